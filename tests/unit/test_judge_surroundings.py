"""What a judge's function changes: its prompts are copies, and settings of the process are put back."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from components.data.records import Prompt
from components.judges.ensemble import Ensemble
from components.judges.verifier import Verifier
from components.stages.in_process import Pipeline
from support.runs import smoke

PROMPT = Prompt("p", ({"role": "user", "content": "?"},), "ab", {"kind": ["a", {"b": 1}]})
SETTINGS = {
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "device": (torch.get_default_device, lambda: torch.set_default_device("meta")),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "deterministic": (
        torch.are_deterministic_algorithms_enabled,
        lambda: torch.use_deterministic_algorithms(True),
    ),
    "precision": (torch.get_float32_matmul_precision, lambda: torch.set_float32_matmul_precision("medium")),
    "numpy": (lambda: np.geterr()["divide"], lambda: np.seterr(divide="raise")),
}


def changes(response, prompt):
    prompt.messages[-1]["content"] = "other"
    prompt.metadata["kind"][1]["b"] = 2
    prompt.metadata["kind"].append(response)
    prompt.metadata.update(more=1)
    return len(response)


def changes_all(responses, prompts):
    scores = [changes(response, prompt) for response, prompt in zip(responses, prompts, strict=True)]
    responses.clear()
    prompts.clear()
    return scores


def asked(response, prompt):
    """1 for the prompt as it was."""
    return int(prompt.text == "?" and prompt.metadata == {"kind": ["a", {"b": 1}]})


def sets(response, prompt):
    SETTINGS[response][1]()
    return 1


@pytest.mark.parametrize("settings", [{"function": "changes"}, {"function": "changes_all", "batch_size": 3}])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_function_cannot_change_the_prompt(settings, workers):
    first = {"name": "verifier", **settings, "function": f"{__name__}:{settings['function']}", "workers": workers}
    second = {"name": "verifier", "function": f"{__name__}:asked"}
    judgement = Ensemble.model_validate({"judges": [first, second]}).judge([PROMPT], [["a", "bbb"]])
    assert judgement.reward.tolist() == [[1.0, 2.0]]  # (1 + 1) / 2 and (3 + 1) / 2
    assert Prompt("p", ({"role": "user", "content": "?"},), "ab", {"kind": ["a", {"b": 1}]}) == PROMPT


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_process_are_put_back(name):
    read, _ = SETTINGS[name]
    before = read()
    assert Verifier(function=f"{__name__}:sets").judge([PROMPT], [[name]]).reward.tolist() == [[1.0]]
    assert read() == before


def fails(response, prompt):
    torch.set_grad_enabled(False)
    raise KeyError(response)


def test_settings_are_put_back_after_a_failure():
    with pytest.raises(KeyError):
        Verifier(function=f"{__name__}:fails").judge([PROMPT], [["a"]])
    assert torch.is_grad_enabled()


def test_a_module_that_changes_them_when_it_is_imported(tmp_path):
    file = tmp_path / "imported.py"
    file.write_text(
        "import torch\ntorch.set_default_dtype(torch.float64)\ndef score(response, prompt):\n    return 1\n"
    )
    Verifier(function=f"{file}:score").check()
    assert torch.get_default_dtype() == torch.float32


def test_copies_are_cheap():
    begin = time.process_time()
    for _ in range(10_000):
        PROMPT.copy()
    assert time.process_time() - begin < 2  # measured: 0.06 s


def words(response, prompt):
    return len(response.split())


def meddles(response, prompt):
    """Scores as `words` does, and changes whatever it can reach."""
    score = words(response, prompt)
    prompt.messages[-1]["content"] = "other"
    prompt.metadata.clear()
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    return score


@pytest.mark.thorough
def test_what_a_function_changes_does_not_reach_a_training_step_that_judges(tmp_path):
    histories = []
    for name in ("words", "meddles"):
        judge = {"name": "verifier", "function": f"{__name__}:{name}"}
        config = smoke(iterations=1, algorithm={"name": "jbond"}, judge=judge)
        pipeline = Pipeline(config, str(tmp_path / name))
        histories.append(pipeline.run(pipeline.start())[["win_rate", "kl", "reward_mean"]].to_numpy().tolist())
    assert histories[0] == histories[1]
