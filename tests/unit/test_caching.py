"""Architectures of all kinds: responses are drawn and scored as the model's own forward of one row does it."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.data.records import Ragged
from components.generation import Sampling, _caching, _sampler
from components.policy import files, findings
from components.policy.logprobs import check_head, score_responses
from components.policy.model import Policy, load, save
from support.models.architectures import KINDS, make
from support.models.words import EOS, PAD

K, LIMIT = 3, 6
PROMPTS = [[7, 8, 9], [10, 11, 12, 13, 14, 15, 16, 17], [20], [30, 31, 32]]  # two of one length
# Hybrid models say where the fast kernels are that they would use on a GPU.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def make_words(make_tokenizer):
    """A policy of an architecture, as `start` would have it."""

    def make_policy(name):
        policy = Policy(make(name), make_tokenizer("{{ messages[0]['content'] }}"), (EOS,), PAD, "fp32")
        check_head(policy)
        return replace(policy, caching=_caching.choose(policy))

    return make_policy


def uniforms(seed):
    """What decides a response's draws: multiples of 2^-32 from Philox with the seed as key."""
    return (np.random.Philox(key=int(seed)).random_raw(LIMIT) >> np.uint64(32)) * 2.0**-32


@torch.no_grad()
def plain(model, ids):
    """The model's own log-probs of the token behind `ids`, which it reads alone and anew."""
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits.double().log_softmax(-1).numpy()


def drawn_plainly(model, prompt, seed):
    """A response and its log-prob by the inverse of the cumulative distribution, token by token."""
    response, logp = [], 0.0
    for uniform in uniforms(seed):
        likely = plain(model, prompt + response)
        token = int(np.searchsorted(np.cumsum(np.exp(likely)), uniform * np.exp(likely).sum(), side="right"))
        response.append(token)
        logp += likely[token]
        if token == EOS:
            break
    return response, logp


@pytest.mark.thorough(but=["llama", "gpt2", "qwen3_5_text", "minimax"])
@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind != "refused"])
def test_draws_and_scores_as_the_models_own_forward(name, make_words):
    policy = make_words(name)
    assert policy.caching == KINDS[name]
    seeds = np.arange(len(PROMPTS) * K, dtype=np.uint64).reshape(-1, K)
    samples = _sampler.sample(policy, PROMPTS, seeds, Sampling(LIMIT), batch_size=100)
    logp = score_responses(policy, Ragged.of(PROMPTS), samples.tokens)
    for i, prompt in enumerate(PROMPTS):
        for k in range(K):
            response, expected = drawn_plainly(policy.model, prompt, seeds[i, k])
            assert samples.tokens[i * K + k].tolist() == response
            assert samples.finished[i, k] == (response[-1] == EOS)
            assert logp[i, k] == pytest.approx(expected, abs=2e-3)


@pytest.mark.thorough(but=["llama", "qwen3_next", "minimax"])
@pytest.mark.parametrize(
    "name", ["llama", "mixtral", "llama4_text", "mamba2", "qwen3_next", "minimax", "recurrent_gemma"]
)
def test_frozen_weights_in_bf16_are_found_out_alike(name, make_tokenizer):
    model = make(name).to(torch.bfloat16)
    policy = Policy(model, make_tokenizer("{{ messages[0]['content'] }}"), (EOS,), PAD, "bf16")
    assert _caching.choose(policy) == KINDS[name]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rwkv", "RwkvForCausalLM changes its weights when it runs"),
        ("bert", "BertLMHeadModel is not causal"),
        ("modernbert-decoder", "ModernBertDecoderForCausalLM changes its logits after the head"),
    ],
)
def test_what_would_go_wrong_is_refused(name, reason, make_words):
    with pytest.raises(PolicyError, match=reason):
        make_words(name)


def test_the_remedy_for_rwkv(make_tokenizer):
    policy = Policy(make("rwkv", rescale_every=0), make_tokenizer("{{ messages[0]['content'] }}"), (EOS,), PAD, "fp32")
    check_head(policy)
    assert _caching.choose(policy) == "none"


class Forgetful:
    """Makes a model's forward wrong in one way."""

    def __init__(self, model, wrong):
        self._forward, model.model.forward = model.model.forward, self
        self.wrong = wrong
        self.__wrapped__ = self._forward  # its signature

    def __call__(self, input_ids, **inputs):
        output = self._forward(input_ids=input_ids, **inputs)
        if self.wrong(input_ids, inputs):
            output.last_hidden_state = output.last_hidden_state * 1.5
        return output


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (lambda ids, inputs: False, "shared"),
        (lambda ids, inputs: inputs.get("attention_mask") is not None, "equal"),
        (lambda ids, inputs: inputs.get("past_key_values") is not None and ids.shape[1] > 1, "none"),
        (lambda ids, inputs: inputs.get("past_key_values") is not None, "none"),
    ],
)
def test_what_a_cache_is_good_for(wrong, expected, make_words):
    policy = make_words("llama")
    Forgetful(policy.model, wrong)
    assert _caching.choose(policy) == expected


def test_rows_that_padding_changes_are_refused(make_words):
    policy = make_words("llama")
    Forgetful(policy.model, lambda ids, inputs: len(ids) > 1)
    with pytest.raises(PolicyError, match=r"LlamaForCausalLM gives a response in a padded batch another log-prob"):
        _caching.choose(policy)


def test_what_is_found_stays_with_the_policy(tmp_path, make_words, make_tokenizer):
    folder = tmp_path / "model"
    make("lfm2").save_pretrained(folder)
    make_tokenizer("{{ messages[0]['content'] }}").save_pretrained(folder)
    assert load(folder, PolicyConfig()).caching == "shared"  # nobody has looked yet
    findings.write(findings.Findings(caching="equal"), folder)
    policy = load(folder, PolicyConfig())
    assert policy.caching == "equal"
    assert not policy.shares_prompts
    assert load(save(policy, tmp_path / "trained"), PolicyConfig()).caching == "equal"


def test_an_earlier_find_in_a_users_directory_does_not_count(tmp_path):
    source = tmp_path / "model"
    make("llama").save_pretrained(source)
    findings.write(findings.Findings(caching="none"), source)
    copied = files.copy_files(source, tmp_path / "copy")
    assert not (copied / findings.FILE).exists()


def test_start_says_what_it_costs(caplog, tmp_path, make_tokenizer):
    from components.stages.preparation import _examined

    folder = tmp_path / "model"
    make("mamba2").save_pretrained(folder)
    make_tokenizer("{{ messages[0]['content'] }}").save_pretrained(folder)
    with caplog.at_level(logging.WARNING):
        assert _examined(load(folder, PolicyConfig()), folder).caching == "equal"
    assert "Mamba2ForCausalLM takes no padding into its cache" in caplog.text
    assert load(folder, PolicyConfig()).caching == "equal"
