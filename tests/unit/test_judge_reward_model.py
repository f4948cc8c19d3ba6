"""Reward models of real architectures with random weights: their own tokenizer, one BOS, batches, limits, refusals."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AddedToken, AutoConfig, AutoModel, AutoModelForSequenceClassification, Qwen2Tokenizer

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge, _models
from components.judges.reward_model import RewardModel

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

BOS, EOS, PAD, UNK, USER, END = range(6)  # of the tokenizers in conftest.py; word w7 has id 7
CHAT = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
    "{{ bos_token }}{% for m in messages %} {{ 'user:' if m['role'] == 'user' else 'w6' }} {{ m['content'] }} <end>"
    "{% endfor %}{% if add_generation_prompt %} w6{% endif %}"
)
SHAPE = {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # wide, so that scores differ
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "num_labels": 1,
}
GPT2 = {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
DEBERTA = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
ARCHITECTURES = {
    "llama": {"pad_token_id": PAD, "num_key_value_heads": 2},
    "qwen2": {"pad_token_id": None, "num_key_value_heads": 2},
    "gpt2": {"pad_token_id": None, **GPT2},
    "deberta-v2": {"pad_token_id": PAD, **DEBERTA},
}
PROMPTS = [
    Prompt("short", ({"role": "user", "content": "w7"},)),
    Prompt("long", ({"role": "user", "content": "w7 w8 w9 w10 w11"},)),
]
RESPONSES = [["w20", "w21 w22 w23 w24", ""], ["w25 w26 w27 w28 w29 w30 w31", "w32 w33", "w34"]]
# What the model must read of them, written out: BOS once, the words, each turn closed by <end>
INPUTS = [
    [
        [BOS, USER, 7, END, 6, 20, END],
        [BOS, USER, 7, END, 6, 21, 22, 23, 24, END],
        [BOS, USER, 7, END, 6, END],
    ],
    [
        [BOS, USER, 7, 8, 9, 10, 11, END, 6, 25, 26, 27, 28, 29, 30, 31, END],
        [BOS, USER, 7, 8, 9, 10, 11, END, 6, 32, 33, END],
        [BOS, USER, 7, 8, 9, 10, 11, END, 6, 34, END],
    ],
]


@pytest.fixture
def make_folder(tmp_path, make_tokenizer):
    """`make_folder(architecture, template=CHAT, around=None, **config)`: a directory with model and tokenizer."""

    def make(architecture="llama", template=CHAT, *, around="<s> $A </s>", size=60, kind=None, **changes):
        settings = {**SHAPE, **ARCHITECTURES[architecture], **changes}
        if architecture == "gpt2":
            settings["n_inner"] = settings.pop("intermediate_size")
        torch.manual_seed(0)
        config = AutoConfig.for_model(architecture, **settings)
        (kind or AutoModelForSequenceClassification).from_config(config).save_pretrained(tmp_path)
        tokenizer = qwen2_tokenizer(template) if architecture == "qwen2" else None
        (tokenizer or make_tokenizer(template, around=around, size=size)).save_pretrained(tmp_path)
        return tmp_path

    return make


def qwen2_tokenizer(template):
    """The words of conftest.py for the class that transformers gives to every Qwen2, whatever was saved."""
    words = ["<s>", "</s>", "<pad>", "<unk>", "user:", "<end>", *(f"w{i}" for i in range(6, 60))]
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], chat_template=template, **special)
    tokenizer.add_tokens([AddedToken(word, lstrip=True, normalized=False) for word in words[4:]])
    return tokenizer


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def judge(folder, **settings):
    return build("judges", {"name": "reward_model", "model": str(folder), **settings}, Judge)


def scores(folder, responses=RESPONSES, prompts=PROMPTS, **settings):
    return judge(folder, precision="fp32", **settings).judge(prompts[: len(responses)], responses).reward


@torch.no_grad()
def last_token_score(folder, ids):
    """The head, multiplied out by hand, on the base model's hidden state of the last token of one input."""
    hidden = AutoModel.from_pretrained(folder).eval()(torch.tensor([ids])).last_hidden_state[0, -1]
    head = load_file(folder / "model.safetensors")["score.weight"]
    return float(hidden.double().numpy() @ head[0].double().numpy())


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


def test_progress_counts_inputs_and_pairs(make_folder):
    seen = []
    judge(make_folder(), tokens_per_batch=20).judge(
        PROMPTS, RESPONSES, lambda done, total, **figures: seen.append((done, total, figures))
    )
    # lengths 17; 12; 11; 10, 7; 6: each batch as many of the longest left as fit 20 tokens
    assert [step[:2] for step in seen] == [(1, 6), (2, 6), (3, 6), (5, 6), (6, 6)]
    assert all(step[2].keys() == {"pairs_per_second"} for step in seen)


# Long inputs


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


# Precision


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


# What is refused


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
