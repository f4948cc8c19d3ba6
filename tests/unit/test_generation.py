"""The transformers engine: the tokens it draws, their distribution, and what they must not depend on."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from components.generation import _sampler
from components.policy.logprobs import collate, response_logprobs
from support.sampling import run, seeds_of

EOS, OTHER_EOS = 1, 5  # of the policies in support.models.words, whose words are 6 … 59
MIXED = [[7, 8, 9], [10], [11, 12, 13, 14, 15, 16], [17, 18, 19], [20, 21, 22, 23, 24]]


def redrawn(model, prompts, responses, *, k, limit, temperature=1.0):
    """What each token should have been: a forward of the whole row without cache, and the row's own uniforms."""
    expected = []
    for prompt, group, seeds in zip(prompts, responses, seeds_of(prompts, k), strict=True):
        rows = []
        for response, seed in zip(group, seeds, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
            weights = np.exp(logits.double().numpy() / temperature)
            uniforms = (np.random.Philox(key=int(seed)).random_raw(limit) >> np.uint64(32)) / 2.0**32
            cumulative = weights.cumsum(1) / weights.sum(1, keepdims=True)
            rows.append([int((c <= u).sum()) for c, u in zip(cumulative, uniforms, strict=False)])
        expected.append(rows)
    return expected


def test_agrees_with_forwards_without_a_cache(model, make_policy):
    """Left padding, cache growth, sliding windows of 4, rows that leave the batch: all invisible in the tokens."""
    responses, _ = run(make_policy(model), MIXED, k=6, limit=40)
    lengths = [len(row) for group in responses for row in group]
    assert min(lengths) < 8
    assert max(lengths) == 40  # more than a window, more than the cache's first room
    assert responses == redrawn(model, MIXED, responses, k=6, limit=40)


def test_temperature_divides_logits(make_policy):
    policy = make_policy()
    responses, _ = run(policy, MIXED, temperature=0.4)
    assert responses != run(policy, MIXED)[0]
    assert responses == redrawn(policy.model, MIXED, responses, k=4, limit=12, temperature=0.4)


@pytest.mark.thorough(but=["gemma2", "llama"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_tokens_do_not_depend_on_the_batch(make_policy, name):
    policy = make_policy(name)
    together, finished = run(policy, MIXED)
    for batch_size in (1, 4, 8, 15):
        again, again_finished = run(policy, MIXED, batch_size=batch_size)
        assert again == together
        np.testing.assert_array_equal(again_finished, finished)
    backwards, _ = run(policy, MIXED[::-1])
    assert backwards[::-1] == together
    alone = [run(policy, [prompt])[0][0] for prompt in MIXED]  # unpadded, and another shard's company
    assert alone == together


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_tokens_do_not_depend_on_when_rows_leave(make_policy, monkeypatch, share):
    expected = run(make_policy(), MIXED, k=8)
    monkeypatch.setattr(_sampler, "COMPACT", share)
    found = run(make_policy(), MIXED, k=8)
    assert found[0] == expected[0]
    np.testing.assert_array_equal(found[1], expected[1])


def test_tokens_differ_between_prompts_responses_and_iterations(make_policy):
    policy = make_policy(eos_ids=())
    first, _ = run(policy, [[7, 8, 9], [9, 8, 7]], k=8)
    second, _ = run(policy, [[7, 8, 9], [9, 8, 7]], k=8, iteration=2)
    rows = [tuple(row) for group in (*first, *second) for row in group]
    assert len(set(rows)) == len(rows) == 32


def test_more_responses_leave_the_first_ones_alone(make_policy):
    policy = make_policy()
    few, many = run(policy, MIXED, k=2)[0], run(policy, MIXED, k=5)[0]
    assert [group[:2] for group in many] == few


def test_ends_with_the_first_of_several_eos(make_policy):
    responses, finished = run(make_policy(), MIXED, k=16, limit=20)
    rows = [row for group in responses for row in group]
    for row, ended in zip(rows, finished.reshape(-1), strict=True):
        assert not {EOS, OTHER_EOS} & set(row[:-1])
        assert ended == (row[-1] in (EOS, OTHER_EOS))
        assert ended or len(row) == 20
    assert {row[-1] for row in rows} >= {EOS, OTHER_EOS}
    assert 0 < finished.mean() < 1


def test_cuts_off_at_the_limit(make_policy):
    responses, finished = run(make_policy(eos_ids=(59 + 1,)), MIXED, limit=5)
    assert {len(row) for group in responses for row in group} == {5}
    assert not finished.any()


def test_a_shorter_limit_gives_prefixes(make_policy):
    policy = make_policy()
    long, short = run(policy, MIXED, limit=20)[0], run(policy, MIXED, limit=1)[0]
    assert short == [[row[:1] for row in group] for group in long]


def test_progress_counts_up_to_all_responses(make_policy):
    calls = []
    run(make_policy(), MIXED, k=3, batch_size=6, progress=lambda done, total, **_: calls.append((done, total)))
    done = [d for d, _ in calls]
    assert done == sorted(done)
    assert calls[-1] == (15, 15)
    assert {total for _, total in calls} == {15}


def test_progress_tells_tokens_per_second(make_policy, monkeypatch):
    """Of a clock that goes on by a second at each look, the last rate is all tokens by the number of looks."""
    clock, rates = iter(range(10_000)), []
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    rows, _ = run(
        make_policy(), MIXED, k=3, batch_size=6, progress=lambda *_, tokens_per_second: rates.append(tokens_per_second)
    )
    assert rates[-1] == sum(len(row) for group in rows for row in group) / len(rates)


def test_bf16_repeats_itself_and_leaves_training_possible(make_policy):
    """The weights that autocast casts and keeps while sampling carry no gradient; none may outlive the sampling."""
    policy = make_policy(precision="bf16")
    responses, _ = run(policy, MIXED)
    assert run(policy, MIXED)[0] == responses
    assert responses != run(make_policy(), MIXED)[0]
    batch = collate(MIXED, [group[0] for group in responses], policy.pad_id, policy.device)
    response_logprobs(policy, batch).sum().backward()
    assert all(p.grad is not None and p.dtype == torch.float32 for p in policy.model.parameters())


class Casts(TorchDispatchMode):
    """How often each tensor, by its first address, and each shape was cast."""

    def __init__(self):
        super().__init__()
        self.addresses, self.shapes = Counter(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name() in ("aten::_to_copy", "aten::to.dtype"):
            self.addresses[args[0].data_ptr()] += 1
            self.shapes[tuple(args[0].shape)] += 1
        return function(*args, **(kwargs or {}))


def test_bf16_casts_each_weight_once_and_no_cache_again(make_policy):
    policy = make_policy(precision="bf16")
    with Casts() as casts:
        responses, _ = run(policy, [[7, 8, 9]], k=2, limit=6)
    steps = max(map(len, responses[0]))
    weights = {p.data_ptr() for p in policy.model.parameters() if p.ndim > 1}
    assert steps > 3
    assert {casts.addresses[w] for w in weights} <= {0, 1}
    longer = [shape for shape in casts.shapes if len(shape) == 4 and shape[2] > 3]  # more positions than the prompt has
    assert longer == []


def test_weights_that_are_not_finite_are_an_error(make_model, make_policy):
    policy = make_policy(make_model())
    policy.model.base_model.norm.weight.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        run(policy, MIXED)
