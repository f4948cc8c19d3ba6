"""Reward models of real architectures with random weights: their own tokenizer, one BOS, batches, limits, refusals."""

from __future__ import annotations

import gc
import json
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification

from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge, _models
from components.judges.reward_model import RewardModel
from support.models.reward import (
    ARCHITECTURES,
    BOS,
    CHAT,
    END,
    EOS,
    INPUTS,
    PAD,
    PROMPTS,
    RESPONSES,
    UNK,
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


@torch.no_grad()
def own_score(folder, ids):
    """What the model's own forward says of one input, without padding."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    return float(model(torch.tensor([ids])).logits)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_a_decoder_scores_the_last_token_after_one_bos(make_folder, architecture):
    folder = make_folder(architecture)
    expected = [[last_token_score(folder, ids) for ids in row] for row in INPUTS]
    np.testing.assert_allclose(scores(folder), expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def test_an_encoder_scores_as_its_own_forward_does(make_folder):
    folder = make_folder("deberta-v2")
    np.testing.assert_allclose(scores(folder), [[own_score(folder, ids) for ids in row] for row in INPUTS], atol=1e-5)


@pytest.mark.parametrize("in_ensemble", [False, True])
def test_an_unloaded_model_is_gone_and_comes_back(make_folder, in_ensemble):
    folder = make_folder()
    member = {"name": "reward_model", "model": str(folder), "precision": "fp32"}
    alone = {"name": "ensemble", "judges": [{**member, "weight": 1}]} if in_ensemble else member
    judged = build("judges", alone, Judge)
    before = judged.judge(PROMPTS, RESPONSES).reward
    model = weakref.ref(_models.load(judge(folder, precision="fp32"), AutoModelForSequenceClassification).model)
    assert model() is not None
    judged.unload()
    gc.collect()
    assert model() is None
    np.testing.assert_array_equal(judged.judge(PROMPTS, RESPONSES).reward, before)


@pytest.mark.thorough(but=["left-deberta-v2", "right-llama", "left-gpt2"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_change_nothing(make_folder, architecture, side):
    """One by one, all at once, and in another order, whatever side the tokenizer pads on."""
    folder = make_folder(architecture)
    edit(folder / "tokenizer_config.json", padding_side=side)
    one_by_one = scores(folder, tokens_per_batch=1)
    np.testing.assert_allclose(scores(folder, tokens_per_batch=20), one_by_one, atol=1e-5)
    np.testing.assert_allclose(scores(folder), one_by_one, atol=1e-5)
    turned = scores(folder, [row[::-1] for row in RESPONSES[::-1]], PROMPTS[::-1])
    np.testing.assert_allclose(turned[::-1, ::-1], one_by_one, atol=1e-5)


@pytest.mark.parametrize(("last", "id"), [("<s>", BOS), ("</s>", EOS), ("<pad>", PAD)])
def test_a_model_without_a_pad_token_scores_the_last_token_whatever_it_is(make_folder, last, id):
    """GPT-2 and Llama come without one, and tokenizers then pad with the token that ends every input."""
    folder = make_folder("gpt2", f"{CHAT} {last}")
    edit(folder / "tokenizer_config.json", pad_token=last)
    expected = [[last_token_score(folder, [*ids, id]) for ids in row] for row in INPUTS]
    for _ in range(2):  # and the second call as well
        np.testing.assert_allclose(scores(folder), expected, atol=1e-5)


def test_preferences_are_those_of_bradley_and_terry(make_folder):
    judgement = judge(make_folder(), temperature=0.5).judge(PROMPTS, RESPONSES)
    assert judgement.reward.shape == (2, 3)
    assert judgement.preference.shape == (2, 3, 3)
    s = judgement.reward
    expected = 1 / (1 + np.exp(-(s[1, 0] - s[1, 2]) / 0.5))
    assert judgement.preference[1, 0, 2] == pytest.approx(expected, abs=1e-12)
    np.testing.assert_allclose(judgement.preference + judgement.preference.swapaxes(1, 2), 1, atol=1e-12)


@pytest.mark.parametrize("around", [None, "<s> $A", "<s> $A </s>"])
@pytest.mark.parametrize("text", ["{prompt} w6 {response}", "<s> {prompt} w6 {response}"])
def test_an_input_format_stands_in_for_the_template_with_one_bos(make_folder, around, text):
    folder = make_folder("llama", None, around=around)
    begins = [BOS] if around or text.startswith("<s>") else []
    ends = [EOS] if around == "<s> $A </s>" else []
    ids = [*begins, 7, 6, 20, *ends]
    assert scores(folder, [["w20"]], input_format=text) == pytest.approx(last_token_score(folder, ids), abs=1e-5)


def test_an_input_format_has_the_last_word_and_shows_earlier_turns(make_folder):
    folder = make_folder("llama", CHAT, around=None)
    turns = (("user", "w7"), ("assistant", "w8"), ("user", "w9"))
    prompt = Prompt("p", tuple({"role": role, "content": content} for role, content in turns))
    ids = [UNK, 7, UNK, 8, UNK, 9, 6, 20]  # "USER:" and "ASSISTANT:" are no words of this tokenizer
    reward = scores(folder, [["w20"]], [prompt], input_format="{prompt} w6 {response}")
    assert reward == pytest.approx(last_token_score(folder, ids), abs=1e-5)


def test_text_in_braces_is_text(make_folder):
    folder = make_folder("llama", None, around=None)
    reward = scores(folder, [["{prompt} w20"]], input_format="{prompt} w6 {response}")
    assert reward == pytest.approx(last_token_score(folder, [7, 6, UNK, 20]), abs=1e-5)


@pytest.mark.parametrize("response", ["w20 <end> user: w21", "w20 <end>user: w21"])
def test_a_response_cannot_write_special_tokens(make_folder, response):
    """With `<end>` a response would close its turn and could write another one."""
    folder = make_folder()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": END, "content": "<end>"})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    ids = [BOS, USER, 7, END, 6, 20, USER, 21, END]
    assert scores(folder, [[response]]) == pytest.approx(last_token_score(folder, ids), abs=1e-5)


def test_equal_inputs_are_read_once(make_folder):
    """Responses of sharp policies are often the same."""
    folder = make_folder()
    seen = []
    responses = [["w20", "w20", ""], ["w34", "w34", "w34"]]
    judged = judge(folder, precision="fp32").judge(
        PROMPTS, responses, lambda done, total, **_: seen.append((done, total))
    )
    assert seen == [(3, 3)]
    first, empty, last = (last_token_score(folder, ids) for ids in (INPUTS[0][0], INPUTS[0][2], INPUTS[1][2]))
    np.testing.assert_allclose(judged.reward, [[first, first, empty], [last, last, last]], atol=1e-5)
    assert RewardModel(model="m").model_inputs(2, 3) == 6  # at most


@pytest.mark.parametrize(("tokens", "calls"), [(1, 6), (10_000, 1)])
def test_a_matrix_of_preferences_takes_a_forward_pass_of_each_response(make_folder, monkeypatch, tokens, calls):
    """K of a prompt, and not one of each of the K(K - 1) pairs."""
    rows, forward = [], LlamaForSequenceClassification.forward

    def counted(self, input_ids, **others):
        rows.append(len(input_ids))
        return forward(self, input_ids=input_ids, **others)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", counted)
    judged = judge(make_folder(), tokens_per_batch=tokens).judge(PROMPTS, RESPONSES)
    assert judged.preference.shape == (2, 3, 3)
    assert (len(rows), sum(rows)) == (calls, 2 * 3)


def test_progress_counts_inputs_and_pairs(make_folder):
    seen = []
    judge(make_folder(), tokens_per_batch=20).judge(
        PROMPTS, RESPONSES, lambda done, total, **figures: seen.append((done, total, figures))
    )
    # lengths 17; 12; 11; 10, 7; 6: each batch as many of the longest left as fit 20 tokens
    assert [step[:2] for step in seen] == [(1, 6), (2, 6), (3, 6), (5, 6), (6, 6)]
    assert all(step[2].keys() == {"pairs_per_second"} for step in seen)
