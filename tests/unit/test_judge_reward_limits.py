"""Reward models: inputs that are too long, precision, and what `check` and scoring refuse."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges import Answers
from support.models.reward import (
    BOS,
    END,
    INPUTS,
    PROMPTS,
    RESPONSES,
    USER,
    judge,
    last_token_score,
    save_reward,
    scores,
)
from support.models.words import edit

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture
def make_folder(tmp_path, make_tokenizer):
    """`make_folder(architecture, template=CHAT, around=None, **config)`: a directory with model and tokenizer."""
    return partial(save_reward, tmp_path, make_tokenizer)


def test_a_long_input_stops_the_run(make_folder):
    with pytest.raises(JudgeError) as caught:
        scores(make_folder(), max_tokens=11)
    assert str(caught.value) == (
        "prompt 'long', response 0: 17 tokens for the judge to read, and it reads 11 at most; so it is with 2 of 6 "
        "inputs. Set judge.truncate to left or right, raise judge.max_tokens, or lower generation.max_new_tokens."
    )


def test_the_models_positions_are_the_limit_unless_one_is_set(make_folder):
    long = " ".join(["w9"] * 60)
    with pytest.raises(JudgeError, match=r"prompt 'short', response 1: 66 tokens .* reads 64 at most"):
        scores(make_folder(), [["w20", long]])


def test_the_tokenizers_own_limit_counts_too(make_folder):
    folder = make_folder()
    edit(folder / "tokenizer_config.json", model_max_length=9)
    with pytest.raises(JudgeError, match="17 tokens for the judge to read, and it reads 9 at most"):
        scores(folder)


@pytest.mark.parametrize(
    ("side", "ids"), [("right", [BOS, USER, 7, 8, 9, 10, 11]), ("left", [BOS, 27, 28, 29, 30, 31, END])]
)
def test_a_long_input_loses_the_side_that_the_config_names(make_folder, side, ids):
    folder = make_folder()
    seen = []
    reward = (
        judge(folder, max_tokens=7, truncate=side)
        .judge(PROMPTS, RESPONSES, lambda *_, truncated, **__: seen.append(truncated))
        .reward
    )
    assert reward[1, 0] == pytest.approx(last_token_score(folder, ids), abs=1e-5)
    assert reward[0, 0] == pytest.approx(last_token_score(folder, INPUTS[0][0]), abs=1e-5)  # 7 tokens
    assert set(seen) == {4 / 6}


def test_deberta_reads_more_than_it_has_positions(make_folder):
    """Its positions are relative; GPT-2 would end with an index error."""
    long = " ".join(["w9"] * 100)
    assert np.isfinite(scores(make_folder("deberta-v2"), [[long]], max_tokens=200)).all()


def test_half_precision_keeps_scores_apart(make_folder):
    """bf16 has 8 significant bits; the head adds up in fp32."""
    folder = make_folder("qwen2")
    full = scores(folder)
    half = judge(folder, precision="bf16").judge(PROMPTS, RESPONSES).reward
    np.testing.assert_allclose(half, full, rtol=0.05, atol=0.05)
    assert (half != torch.tensor(half).bfloat16().double().numpy()).any()


def test_auto_precision_on_a_processor_is_full(make_folder):
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    folder = make_folder()
    assert (judge(folder, precision="auto").judge(PROMPTS, RESPONSES).reward == scores(folder)).all()


def refused(folder, *parts, **settings):
    with pytest.raises(JudgeError) as caught:
        judge(folder, **settings).check()
    for part in parts:
        assert part in str(caught.value)


def test_a_process_loads_a_model_once(make_folder):
    folder = make_folder()
    judge(folder).check()
    (folder / "model.safetensors").unlink()
    assert np.isfinite(judge(folder, temperature=2.0).judge(PROMPTS, RESPONSES).reward).all()


def test_check_names_what_a_directory_lacks(tmp_path):
    refused(tmp_path, f"judge.model: {tmp_path} has no config.json.")


def test_check_says_so_when_the_hub_has_no_such_model(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused("nobody/none", "judge.model: 'nobody/none' is neither a directory", "judge.revision")


def test_check_refuses_a_model_that_is_no_classifier(make_folder):
    from transformers import AutoModelForCausalLM

    folder = make_folder(kind=AutoModelForCausalLM)
    refused(folder, "lacks 1 weights of a LlamaForSequenceClassification, score.weight among them.")


def test_check_refuses_several_labels(make_folder):
    refused(make_folder(num_labels=2), "has 2 labels, a reward model has one.")


def test_check_refuses_a_model_without_any_template(make_folder):
    refused(make_folder("llama", None), "judge.input_format: is required", "'{prompt}\\n\\n{response}'")


def test_check_refuses_another_models_tokenizer(make_folder):
    refused(make_folder(size=61), "has 61 tokens, the model's embedding only 60.")


def test_check_refuses_more_tokens_than_positions(make_folder):
    refused(make_folder("gpt2"), "judge.max_tokens: 65 exceeds the model's 64 positions.", max_tokens=65)


def test_check_refuses_code_that_nobody_allowed(make_folder):
    folder = make_folder()
    edit(folder / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling.Model"})
    (folder / "modeling.py").write_text("raise SystemExit('this code ran')")
    refused(
        folder, f"judge.model: {folder} cannot be loaded: its config.json names code", "set judge.trust_remote_code"
    )


def test_check_refuses_damaged_weights(make_folder):
    folder = make_folder()
    (folder / "model.safetensors").write_bytes(b"nothing")
    refused(folder, f"judge.model: {folder} cannot be loaded: ")


def test_a_template_that_refuses_a_prompt_names_it(make_folder):
    prompt = Prompt("p", ({"role": "system", "content": "w7"}, {"role": "user", "content": "w8"}))
    with pytest.raises(
        JudgeError, match=r"prompt 'p': .* refuses its turns \(system, user, assistant\): no system turn"
    ):
        scores(make_folder(), [["w20"]], [prompt])


def test_a_score_that_is_not_finite_names_prompt_and_response(make_folder):
    folder = make_folder()
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][33] = torch.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(JudgeError, match=r"prompt 'long', response 1: .* scores it nan\. Set judge\.precision: fp32"):
        scores(folder)


def test_an_input_without_tokens_is_refused(make_folder):
    prompt = Prompt("empty", ({"role": "user", "content": ""},))
    with pytest.raises(JudgeError, match="prompt 'empty', response 0: there is nothing for the judge to read"):
        scores(make_folder("llama", None, around=None), [[""]], [prompt], input_format="{prompt}{response}")


def test_rows_of_unequal_length_are_refused(make_folder):
    with pytest.raises(JudgeError, match="prompt 'long': 1 responses where the first prompt has 2"):
        scores(make_folder(), [["w20", "w21"], ["w22"]])


def test_a_config_is_read_without_torch():
    """Steps that run no model must not pay for its imports."""
    import subprocess
    import sys

    code = "import sys, components.judges.reward_model as m; m.RewardModel(model='x'); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_it_reads_no_thinking_if_told(make_folder):
    """The last response is all thinking: the model reads an empty one."""
    settings = {"precision": "fp32", "cut_thinking": ["w40", "w41"]}
    known = judge(make_folder(), **settings)
    given = Answers([["w40 w22 w41 w20", "w21", "w40 w30"]], np.zeros((1, 3), bool), [""])
    found, expected = known.verdict(PROMPTS[:1], given), known.judge(PROMPTS[:1], [["w20", "w21", ""]])
    np.testing.assert_array_equal(found.preference, expected.preference)
    np.testing.assert_array_equal(found.reward, expected.reward)
    assert np.ptp(known.judge(PROMPTS[:1], given.texts).preference - expected.preference) > 1e-4
