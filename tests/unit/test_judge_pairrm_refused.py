"""Checkpoints of PairRM that `check` takes or refuses, and what a judge of it does not read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from components.config.errors import JudgeError
from components.judges import Answers
from support.models.pairrm import PROMPTS, judge, save_original
from support.models.words import edit

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture
def folder(tmp_path):
    return save_original(tmp_path)


def refused(folder, *parts):
    with pytest.raises(JudgeError) as caught:
        judge(folder).check()
    for part in parts:
        assert part in str(caught.value)


def test_check_takes_a_good_checkpoint(folder):
    judge(folder).check()


@pytest.mark.parametrize("name", ["head_layer.4.weight", "pretrained_model.encoder.layer.1.output.dense.bias"])
def test_check_refuses_a_checkpoint_that_lacks_a_weight(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    refused(folder, f"judge.model: {folder} lacks 1 weights of a PairRMModel, {name} among them.")


def test_check_refuses_a_model_whose_markers_are_others(folder):
    edit(folder / "config.json", cand2_prefix_id=24)
    refused(folder, "is no PairRM: its config.json has cand2_prefix_id 24, its tokenizer the id 23 for <|candidate2|>.")


def test_check_refuses_a_plain_deberta(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["n_tasks"]
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, f"judge.model: {folder} cannot be loaded: its config.json has no n_tasks, so it is no PairRM")


def test_it_reads_no_thinking_if_told(folder):
    """The last response is all thinking: the model reads an empty one."""
    settings = {"precision": "fp32", "cut_thinking": ["d", "f"]}
    known = judge(folder, **settings)
    given = Answers([["d a f b", "c", "d e"]], np.zeros((1, 3), bool), [""])
    found, expected = known.verdict(PROMPTS[:1], given), known.judge(PROMPTS[:1], [["b", "c", ""]])
    np.testing.assert_array_equal(found.preference, expected.preference)
    np.testing.assert_array_equal(found.reward, expected.reward)
    assert np.ptp(known.judge(PROMPTS[:1], given.texts).preference - expected.preference) > 1e-4
