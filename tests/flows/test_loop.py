"""Flows unrolled by `loop.unroll`, run for real."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from metaflow.cards import get_cards
from metaflow.flowspec import FlowStateItems
from metaflow.parameters import flow_context

pytestmark = pytest.mark.thorough

HERE = Path(__file__).parent / "loop_flows"
COUNTING, LINEAR = HERE / "counting.py", HERE / "linear.py"
CONFIG = {"iterations": 2, "shards": 2, "train": {"cpu": 2, "memory": 256}}
# Iteration t adds 10 t + 0 and 10 t + 1 to three times what was there: 21, then 3 * 21 + 41.
HISTORY = [21, 104]
STEPS = [f"{name}_{t}" for t in (1, 2) for name in ("plan", "generate", "gather", "evaluate")]


def command(path, env, *arguments):
    return subprocess.run(
        [sys.executable, path, "--no-pylint", *arguments],
        env={**os.environ, **env},
        cwd=env["METAFLOW_HOME"],
        capture_output=True,
        text=True,
        check=False,
    )


def origins(run):
    """Step (and index of the shard) to whether the task was cloned from another run."""
    return {
        step.id if task.index is None else f"{step.id}/{task.index}": "origin-task-id" in task.metadata_dict
        for step in run
        for task in step
    }


def test_run_with_a_config_value_and_resume_from_a_step(run_flow, open_run):
    run = run_flow(COUNTING, config=CONFIG, env={"FAIL_ONCE_AT": "plan_2"}).run
    assert run.data.history == HISTORY
    assert run.data.iteration == 2
    assert [step.id for step in reversed(list(run))] == ["start", *STEPS, "end"]
    assert [len(list(run[f"generate_{t}"])) for t in (1, 2)] == [2, 2]
    assert [run[f"plan_{t}"].task.data.attempts for t in (1, 2)] == [1, 2]  # @retry of each copy
    for t in (1, 2):
        assert run[f"gather_{t}"].task.data.seen == "256plain"  # @environment with config_expr
        assert run[f"gather_{t}"].task.data.label == "label 2"  # StepMutator with config_expr
        assert run[f"plan_{t}"].task.data.notes[-1] == f"plan_{t} 2"  # user_step_decorator with config_expr
    info = run["start"].task["_graph_info"].data["steps"]
    for t in (1, 2):
        decorators = {deco["name"]: deco["attributes"] for deco in info[f"generate_{t}"]["decorators"]}
        assert {key: decorators["resources"][key] for key in ("cpu", "memory")} == CONFIG["train"]
        assert info[f"plan_{t}"]["doc"] == "Counts the iteration."
    assert "plan" not in run["start"].task  # what hides the step as written is no artifact

    again = open_run(run_flow(COUNTING, resume=run.id, step="gather_2").run.pathspec)  # with the origin's config
    executed = {name for name, cloned in origins(again).items() if not cloned}
    assert executed == {"gather_2", "evaluate_2", "end"}
    assert again.data.history == HISTORY


def test_one_iteration_from_a_config_file(run_flow, tmp_path):
    config = tmp_path / "once.json"
    config.write_text('{"run": {"iterations": 1}}')
    run = run_flow(LINEAR, config=config).run
    assert run.data.score == 1
    assert [step.id for step in reversed(list(run))] == ["start", "plan_1", "train_1", "end"]


def test_resume_from_every_kind_of_step(run_flow):
    """A chain: each resume continues behind the failure before it, and fails a step further."""
    failures = ["generate_1/1", "gather_1", "plan_2"]
    order = ["start"]
    for t in (1, 2):
        order += [f"plan_{t}", f"generate_{t}/0", f"generate_{t}/1", f"gather_{t}", f"evaluate_{t}"]
    order.append("end")
    run = None
    for before, failing in zip([None, *failures], [*failures, None], strict=True):
        source = {"config": CONFIG} if run is None else {"resume": run.id}
        result = run_flow(
            COUNTING,
            **source,
            env={"FAIL_AT": failing or ""},
            status="failed" if failing else "successful",
            max_workers=1,
        )
        run = result.run
        if failing:
            assert f"told to fail at {failing}" in result.stderr + result.stdout
        if failing == "gather_1":
            assert_shows_the_line_as_written(result)
        cloned = order[: order.index(before)] if before else []
        tried = order[len(cloned) : order.index(failing) + 1 if failing else None]
        assert origins(run) == {name: name in cloned for name in [*cloned, *tried]}
    assert run.data.history == HISTORY


def assert_shows_the_line_as_written(failed):
    """The traceback of gather_1, which is a copy."""
    lines = (HERE / "loop_body.py").read_text().splitlines()
    row = lines.index("    def gather(self, inputs):") + 2  # 1-based, and the line below
    shown = re.sub(r"\d{4}-\S+ \S+ \[.*?\(pid \d+\)\] ", "", failed.stdout + failed.stderr)
    assert re.search(rf'loop_body\.py \[Counting\.gather_1\]", line {row}, in gather_1\n *fail_if_told\(\)', shown)


def test_body_inside_a_foreach(run_flow):
    run = run_flow(HERE / "branches.py", config=CONFIG).run
    # The second branch starts at 1: 3 * 1 + 21, then 3 * 24 + 41.
    assert run["compare"].task.data.histories == [HISTORY, [24, 113]]
    assert len(list(run["generate_2"])) == 4


def test_body_that_splits(run_flow):
    run = run_flow(HERE / "split.py").run
    assert run.data.score == 255  # 2 * 3 + 3 ** 2 = 15, then 2 * 15 + 15 ** 2
    assert {"double_1", "square_1", "double_2", "square_2"} < {step.id for step in run}
    assert all(len(get_cards(run[f"merge_{t}"].task)) == 1 for t in (1, 2))  # @card of each copy


def test_the_default_config_and_steps_with_super_private_names_and_annotations(run_flow):
    run = run_flow(LINEAR).run
    assert run.data.score == 3  # (0 * 2 + 1) * 2 + 1
    assert run.data.text == "é base points"


def test_show_and_check_on_the_command_line(flow_env):
    shown = command(COUNTING, flow_env, "--config-value", "config", json.dumps(CONFIG), "show")
    assert shown.returncode == 0, shown.stderr
    assert re.findall(r"Step (\w+)", shown.stderr + shown.stdout) == ["start", *STEPS, "end"]
    refused = command(COUNTING, flow_env, "--config-value", "config", '{"iterations": 0}', "check")
    assert refused.returncode == 1
    assert "The loop cannot be unrolled" in refused.stderr
    assert "config.iterations is 0" in refused.stderr


def edges(flow, iterations):
    """The graph of a flow class with this config, as `step: [next steps]`."""
    config = {"iterations": iterations, "shards": 2, "train": {"cpu": 1, "memory": 1}}
    flow._flow_state.self_data[FlowStateItems.CONFIGS]["config"] = (config, False)
    with flow_context(flow):
        flow._process_config_decorators({"config": config})
    return {node.name: node.out_funcs for node in flow._graph}


def test_two_flows_share_a_body_in_one_process(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    import branches
    import counting
    import loop_body

    before = {name: getattr(loop_body.Body, name) for name in ("plan", "generate", "gather", "evaluate")}
    decorators = list(before["generate"].decorators)
    assert edges(counting.Counting, 1) == {
        "start": ["plan_1"],
        "plan_1": ["generate_1"],
        "generate_1": ["gather_1"],
        "gather_1": ["evaluate_1"],
        "evaluate_1": ["end"],
        "end": [],
    }
    two = edges(branches.Branches, 2)
    assert two["branch"] == ["plan_1"]
    assert two["evaluate_1"] == ["plan_2"]
    assert two["evaluate_2"] == ["compare"]
    assert len(two) == 4 + 8
    assert not hasattr(loop_body.Body, "plan_1")
    assert {name: getattr(loop_body.Body, name) for name in before} == before
    assert before["generate"].decorators == decorators
    assert [deco.name for deco in decorators] == ["resources", "environment"]
    copies = [flow.generate_1 for flow in (counting.Counting, branches.Branches)] + [branches.Branches.generate_2]
    assert len({id(deco) for copy in [before["generate"], *copies] for deco in copy.decorators}) == 4 * 2


def test_metaflow_checks_the_longest_loop(run_flow, tmp_path, flow_env):
    config = '{"run": {"iterations": 100}}'
    assert command(LINEAR, flow_env, "--config-value", "config", config, "check").returncode == 0
