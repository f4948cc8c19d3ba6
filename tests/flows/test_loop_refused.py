"""Loops that cannot be unrolled are refused, with the reason."""

from pathlib import Path

import pytest

from loop import MAX_STEPS, LoopError

HERE = Path(__file__).parent / "loop_flows"
COUNTING, LINEAR = HERE / "counting.py", HERE / "linear.py"


def refused(run_flow, tmp_path, text, config, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(LoopError) as error:
        run_flow(path, config=config)
    assert message in error.value.message
    return error.value


@pytest.mark.parametrize("value", [101, 0, -1, True, "2", 2.0, None])
def test_refuses_iterations_out_of_range(run_flow, tmp_path, value):
    message = f"config.run.iterations is {value!r}. Use a whole number from 1 to 100: every iteration adds"
    refused(run_flow, tmp_path, LINEAR.read_text(), {"run": {"iterations": value}}, message)


def test_refuses_more_steps_than_metaflow_can_check(run_flow, tmp_path):
    names = [f"s{i}" for i in range(10)]
    steps = "".join(
        f"    @step\n    def {name}(self):\n        self.next(self.{after})\n\n"
        for name, after in zip(["start", *names], [*names, "s0"], strict=True)
    )
    text = (
        "from metaflow import Config, FlowSpec, step\nfrom loop import unroll\n\n"
        f"@unroll(body={tuple(names)}, exit='end', iterations='config.t')\nclass Long(FlowSpec):\n"
        f"    config = Config('config', default_value={{'t': 1}})\n\n{steps}"
        "    @step\n    def end(self):\n        pass\n\n\nif __name__ == '__main__':\n    Long()\n"
    )
    refused(run_flow, tmp_path, text, {"t": 91}, f"from 1 to {MAX_STEPS // 10}:")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"run": {}}, "config.run.iterations: there is no iterations in the config. Known keys: ."),
        (
            {"steps": 1, "seed": 2},
            "config.run.iterations: there is no run in the config. Known keys: steps, seed.",
        ),
        ({"run": 3}, "config.run.iterations: there is no iterations in the config. Known keys: none."),
    ],
)
def test_refuses_an_unknown_config_key(run_flow, tmp_path, config, message):
    refused(run_flow, tmp_path, LINEAR.read_text(), config, message)


ALL = "end, plan, start, train."
BROKEN = {
    "body names no step": (
        '("plan", "train")',
        '("plan", "learn")',
        f"Linear has no step learn. Its steps: {ALL}",
    ),
    "exit names no step": ('exit="end"', 'exit="finish"', f"Linear has no step finish. Its steps: {ALL}"),
    "unknown next step": (
        "self.next(self.train)",
        "self.next(self.trian)",
        f"plan: there is no step trian to go to. The steps: {ALL}",
    ),
    "no self.next": (
        "self.next(self.train)",
        "self.text",
        "plan: self.next(…) is missing. It must be the last statement.",
    ),
    "self.next() without a step": (
        "self.next(self.train)",
        "self.next()",
        "plan: self.next must name the following steps as self.step.",
    ),
    "no back edge": (
        "self.score += 1\n        self.next(self.plan)",
        "self.next(self.end)",
        "train: the last step of the body must go back: self.next(self.plan).",
    ),
    "back edge before the last step": (
        "self.next(self.train)",
        "self.next(self.plan)",
        "plan: only train, the last step of the body, goes back to plan.",
    ),
    "switch in the body": (
        "self.next(self.train)",
        'self.next({"a": self.train, "b": self.end}, condition="text")',
        "plan: a switch cannot lead into or through the loop.",
    ),
    "switch into the body": (
        "self.score = 0\n        self.next(self.plan)",
        'self.next({0: self.plan, 1: self.end}, condition="score")',
        "start: a switch cannot lead into or through the loop.",
    ),
    "entered in the middle": (
        "self.score = 0\n        self.next(self.plan)",
        "self.next(self.train)",
        "start: the loop is entered at plan, not at train.",
    ),
    "name of a copy taken": (
        'def describe(self):\n        return "linear"',
        'def train_2(self):\n        return "linear"',
        "train: its copy cannot be named train_2: that exists.",
    ),
}


@pytest.mark.parametrize(("old", "new", "message"), BROKEN.values(), ids=BROKEN)
def test_refuses_a_loop_that_is_none(run_flow, tmp_path, old, new, message):
    text = LINEAR.read_text()
    assert text.count(old) == 1
    error = refused(run_flow, tmp_path, text.replace(old, new), None, message)
    if ":" in message.split()[0]:  # the place of the step that the message begins with
        name = message.split(":")[0]
        lines = text.replace(old, new).splitlines()
        assert lines[error.line_no - 1 :][:2] == ["    @step", f"    def {name}(self):"]


def test_refuses_variables_of_an_enclosing_function(run_flow, tmp_path):
    text = LINEAR.read_text()
    head, flow = text.split("class Base:")
    indented = "class Base:" + flow.split("\n\nif __name__")[0]
    indented = indented.replace("self.score += 1", "self.score += step_size").replace("\n", "\n    ")
    text = f"{head}\ndef made(step_size):\n    {indented}\n    return Linear\n\n\nLinear = made(1)\n"
    refused(
        run_flow,
        tmp_path,
        text,
        None,
        "train: takes step_size from an outer function. Move it to the module.",
    )
