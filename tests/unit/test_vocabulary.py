"""Vocabularies that are larger in the model than in the tokenizer, and files that no model comes of."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from components.config.errors import JudgeError, PolicyError
from components.config.sections import PolicyConfig
from components.data.records import Ragged
from components.generation import Sampling, _sampler
from components.generation.vllm import VllmEngine
from components.judges import _models
from components.judges.llm_judge import LLMJudge
from components.policy.logprobs import score_responses
from components.policy.model import load, save
from support.models.words import edit

TOKENS, PADDED = 60, 72
PROMPTS = [[7, 8, 9], [10, 11]]


@pytest.fixture
def save_model(tmp_path, make_model, make_tokenizer):
    def save_to(name="llama", **changes):
        model = make_model(name, vocab_size=PADDED, **changes)
        with torch.no_grad():  # so that nearly all would fall on ids without a token
            model.get_output_embeddings().weight[TOKENS:] *= 4
        model.save_pretrained(tmp_path / name)
        make_tokenizer("{{ messages[0]['content'] }}").save_pretrained(tmp_path / name)
        return tmp_path / name

    return save_to


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "gpt2"])
def test_ids_without_a_token_are_neither_drawn_nor_counted(save_model, name):
    policy = load(save_model(name), PolicyConfig())
    assert policy.unused.nonzero()[:, 0].tolist() == list(range(TOKENS, PADDED))
    seeds = np.arange(40, dtype=np.uint64).reshape(2, 20)
    samples = _sampler.sample(policy, PROMPTS, seeds, Sampling(6), batch_size=64)
    assert samples.tokens.values.max() < TOKENS
    logp = score_responses(policy, Ragged.of(PROMPTS), samples.tokens)
    for i, prompt in enumerate(PROMPTS):
        response = samples.tokens[i * 20].tolist()
        with torch.no_grad():
            own = policy.model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1, :TOKENS]
        expected = own.double().log_softmax(-1).gather(-1, torch.tensor(response)[:, None]).sum().item()
        assert logp[i, 0] == pytest.approx(expected, abs=1e-3)


def test_gradients_leave_them_alone(save_model):
    policy = load(save_model(), PolicyConfig())
    from components.policy.batches import collate
    from components.policy.logprobs import response_logprobs

    batch = collate(PROMPTS, [[12, 13], [14, 1]], policy.pad_id, policy.device)
    response_logprobs(policy, batch).sum().backward()
    gradient = policy.model.lm_head.weight.grad
    assert gradient.isfinite().all()
    assert gradient[:TOKENS].any()
    assert not gradient[TOKENS:].any()


def test_holes_in_a_tokenizer_count_too(save_model, make_tokenizer):
    folder = save_model()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    del tokenizer["model"]["vocab"]["w30"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    policy = load(folder, PolicyConfig())
    assert policy.unused.nonzero()[:, 0].tolist() == [30, *range(TOKENS, PADDED)]


def test_an_eos_that_the_tokenizer_does_not_know_may_be_drawn(save_model):
    folder = save_model()
    edit(folder / "generation_config.json", eos_token_id=[1, 65])
    assert 65 not in load(folder, PolicyConfig()).unused.nonzero()[:, 0].tolist()


def test_a_tokenizer_for_all_rows_leaves_none(tmp_path, make_model, make_tokenizer):
    make_model().save_pretrained(tmp_path)
    make_tokenizer("{{ messages[0]['content'] }}").save_pretrained(tmp_path)
    assert load(tmp_path, PolicyConfig()).unused is None


def test_vllm_is_told(save_model, tmp_path):
    folder = save_model()
    for device in (None, torch.device("meta")):
        policy = load(folder, PolicyConfig(), device=device)
        request = tmp_path / str(device)
        request.mkdir()
        VllmEngine()._write_request(request, policy, PROMPTS, np.zeros((2, 1), np.uint64), Sampling(4))
        assert json.loads((request / "request.json").read_text())["unused"] == list(range(TOKENS, PADDED))


# Files that no model comes of


QUANTISED = [
    {"quant_method": "gptq", "bits": 4},
    {"quant_method": "awq", "bits": 4},
    {"quant_method": "bitsandbytes", "load_in_4bit": True},
    {"quant_method": "fp8"},
    {"quant_method": "compressed-tensors"},
    {"quant_method": "mxfp4"},
    {"quant_method": "something new"},
]


@pytest.mark.parametrize("quantised", QUANTISED, ids=lambda q: q["quant_method"])
def test_quantised_weights_are_refused_with_the_remedy(save_model, quantised):
    folder = save_model()
    edit(folder / "config.json", quantization_config=quantised)
    message = rf"policy\.model: mine cannot be loaded: its weights are quantised \({quantised['quant_method']}\)"
    with pytest.raises(PolicyError, match=message) as caught:
        load(folder, PolicyConfig(model="mine"))
    assert "Use the model that it was made from" in str(caught.value)
    with pytest.raises(JudgeError, match=r"judge\.model: .* its weights are quantised"):
        LLMJudge(model=str(folder)).check()
    _models.unload()


@pytest.mark.parametrize("pad", [PADDED, PADDED + 5, -PADDED - 1])
def test_padding_that_the_model_does_not_embed(save_model, pad):
    folder = save_model()
    edit(folder / "config.json", pad_token_id=pad)
    with pytest.raises(PolicyError, match=rf"config\.json has pad_token_id {pad}, and the model embeds 72 tokens"):
        load(folder, PolicyConfig())


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "unheard_of"},
        {"hidden_size": 17},
        {"num_attention_heads": 0},
        {"vocab_size": "many"},
        {"num_hidden_layers": 3},
        {"rope_parameters": {"rope_type": "unheard_of"}},
        {"hidden_act": "unheard_of"},
    ],
)
def test_a_config_that_does_not_fit_is_no_traceback(save_model, changes):
    folder = save_model()
    edit(folder / "config.json", **changes)
    with pytest.raises(PolicyError, match=r"^policy\.model: mine (cannot be loaded: |lacks \d+ weights)"):
        load(folder, PolicyConfig(model="mine"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_damaged_file_is_no_traceback(save_model, file, content):
    folder = save_model()
    (folder / file).write_bytes(content)
    with pytest.raises(PolicyError, match=r"^policy\.model: mine cannot be loaded"):
        load(folder, PolicyConfig(model="mine"))


def test_the_mask_stays_with_what_is_trained(save_model, tmp_path):
    policy = load(save_model(), PolicyConfig())
    assert torch.equal(load(save(policy, tmp_path / "trained"), PolicyConfig()).unused, policy.unused)
