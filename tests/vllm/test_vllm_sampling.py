"""Stop strings and filters with vLLM itself: the responses that the transformers engine could have drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from components.data.records import Prompt
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.generation.vllm import VllmEngine
from components.policy.logprobs import score_responses
from components.runtime.progress import silent
from components.stages.sampling import generate
from support.models.bytewise import BOS, END, EOS, bytes_of, first_stop, text_of, tokenizer
from support.models.served import load, needs_vllm
from support.models.words import make_model

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm, pytest.mark.thorough]

ENGINE = VllmEngine(enforce_eager=True, kv_cache_mb=256)
TOKENIZER = tokenizer()
TABLE = bytes_of(TOKENIZER)
PROMPTS = [Prompt(text, ({"role": "user", "content": text},)) for text in ("ab", "x y", "é\n")]
K, LIMIT = 200, 30
STOP = ("ab", "\n\n", "é", "cxa", "<end>")
TEXTS = STOP[:-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Random weights with a bias to letters, so that stop strings come up in all ways."""
    folder = tmp_path_factory.mktemp("policy")
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 2, "max_position_embeddings": 2048}
    ids = {"vocab_size": len(TABLE), "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": None}
    model = make_model("llama", **shape, **ids, initializer_range=0.2)
    letters = [i for i in TABLE if text_of([i], TABLE) in {*"abcxy\n", "ab", "bc", "xa", "by", "\n\n", "é"}]
    halves = [i for i in TABLE if TABLE[i] in (b"\xc3", b"\xa9")]
    with torch.no_grad():  # the others' heads are small: a token in ten is one of them
        others = [i for i in TABLE if i not in {*letters, *halves, EOS, END}]
        model.lm_head.weight[others] *= 0.02
        model.lm_head.weight[[*letters, *halves, EOS, END]] *= 2
    model.generation_config = GenerationConfig(eos_token_id=EOS)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def draw(folder, engine, *, weights=False, k=K, stop=(), progress=silent):
    settings = Sampling(LIMIT, stop=stop)
    run = {"responses": k, "sampling": settings, "seed": 0, "purpose": "train", "iteration": 1, "progress": progress}
    return generate(load(folder, weights=weights), engine, PROMPTS, **run)


@pytest.fixture(scope="module")
def progress() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def sampled(folder, progress):
    return draw(folder, ENGINE, stop=STOP, progress=lambda *done, **_: progress.append(done))


def test_responses_end_with_the_token_that_completes_a_stop_string(sampled):
    """Each by a search byte by byte, and its text ends before the stop string."""
    ends = {"text": 0, "special": 0, "eos": 0, "limit": 0}
    within, spanning = 0, 0
    for i in range(len(sampled.tokens)):
        row = sampled.tokens[i].tolist()
        shown = text_of(row, TABLE)
        end = first_stop(row, TEXTS, TABLE)
        assert end in (None, len(row))
        assert not {EOS, END} & set(row[:-1])
        how = "text" if end else {EOS: "eos", END: "special"}.get(row[-1], "limit")
        ends[how] += 1
        assert sampled.finished.reshape(-1)[i] == (how != "limit")
        assert how != "limit" or len(row) == LIMIT
        place = min([p for t in TEXTS if (p := shown.find(t)) >= 0], default=None)
        assert sampled.texts[i] == shown[:place]
        if how == "text":
            last = len(text_of(row[-1:], TABLE))
            spanning += len(shown) - last > place
            within += last > 1
    assert min(ends[how] for how in ("text", "special", "eos")) >= 10
    assert spanning >= 10
    assert within >= 10


def test_progress_counts_each_response_once(sampled, progress):
    done = [d for d, _ in progress]
    assert done == sorted(done)
    assert progress[-1] == (K * len(PROMPTS), K * len(PROMPTS))


def test_log_probs_are_those_of_the_tokens_that_are_kept(sampled, folder):
    exact = score_responses(load(folder, weights=True), sampled.prompt_tokens, sampled.tokens)
    np.testing.assert_allclose(sampled.logp_engine, exact, atol=2e-4)


def test_ends_and_lengths_are_as_often_those_of_the_transformers_engine(sampled, folder):
    theirs = draw(folder, TransformersEngine(), weights=True, stop=STOP)
    error = np.sqrt((sampled.tokens.lengths.var() + theirs.tokens.lengths.var()) / (K * len(PROMPTS)))
    assert abs(sampled.tokens.lengths.mean() - theirs.tokens.lengths.mean()) < 4 * error
    share, other = sampled.finished.mean(), theirs.finished.mean()
    assert abs(share - other) < 4 * np.sqrt(2 * max(share * (1 - share), 0.01) / sampled.finished.size)


def test_stop_strings_change_nothing_before_them(sampled, folder):
    """On a CPU bit by bit: the same draws, up to the first stop string."""
    whole = draw(folder, ENGINE, k=30)
    compared = 0
    for i, prompt in enumerate(PROMPTS):
        for k in range(30):
            ours, theirs = sampled.tokens[i * K + k].tolist(), whole.tokens[i * 30 + k].tolist()
            assert theirs[: len(ours)] == ours, prompt
            compared += len(ours) < len(theirs)
    assert compared > 30


def filtered(probabilities, *, min_p, top_k, top_p):
    """The distribution that is left, by the definitions: one filter after another, what is left made to sum to 1."""
    kept = np.where(probabilities >= min_p * probabilities.max(), probabilities, 0)
    kept = np.where(kept >= np.sort(kept)[-min(top_k, len(kept))], kept, 0)
    kept /= kept.sum()
    order = np.argsort(-kept)
    count = int((kept[order].cumsum() < top_p).sum()) + 1
    kept[order[count:]] = 0
    return kept / kept.sum()


@pytest.mark.parametrize(
    "settings",
    [
        {"min_p": 0.0, "top_k": 5, "top_p": 1.0},
        {"min_p": 0.3, "top_k": 999, "top_p": 1.0},
        {"min_p": 0.15, "top_k": 6, "top_p": 0.8},
    ],
)
def test_both_engines_draw_from_the_same_tokens_equally_often(folder, settings):
    prompt, trainer = [BOS, 4 + ord("b")], load(folder, weights=True)
    with torch.no_grad():
        logits = trainer.model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    expected = 1000 * filtered((logits / 2).softmax(-1).numpy(), **settings)
    seeds = np.arange(1000, dtype=np.uint64)[None]
    sampling = Sampling(1, 2.0, **settings)
    for engine, policy in ((ENGINE, load(folder)), (TransformersEngine(), trainer)):
        samples = engine.sample(policy, [prompt], seeds, sampling)
        found = np.bincount(samples.tokens.values, minlength=len(expected))
        assert 2 <= (expected > 0).sum() <= 40
        assert found[expected == 0].sum() == 0
        assert (np.abs(found - expected) < 4.5 * np.sqrt(expected) + 1).all()
        if samples.logp is not None:  # of all tokens, at temperature 1
            exact = logits.log_softmax(-1).numpy()[samples.tokens.values]
            np.testing.assert_allclose(samples.logp[0], exact, atol=2e-4)
