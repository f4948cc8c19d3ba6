"""Which prompts training takes, in which order, and at which learning rate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from components.algorithms.ipo import Ipo
from components.algorithms.wind import Wind
from components.training.loop import Schedule
from components.training.optimizer import learning_rate, make_optimizer
from support.models.tiny import (
    make_policy,
    make_scored,
)
from support.training import assert_same, fit, settings, weights


def order(prompts, *, seed, iteration, epoch):
    return Schedule(settings(), iteration, 9, seed).order(prompts, epoch)


def test_learning_rate_by_hand():
    """Ten steps, two of them warm-up: 1/2 and 1 of the peak, then eight that fall from 1 to 1/8 (linear)."""
    config = {"warmup_ratio": 0.2, "learning_rate": 2.0}

    def rates(schedule):
        return [learning_rate(settings(**config, schedule=schedule), step, 10) for step in range(10)]

    assert rates("linear") == pytest.approx([1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25])
    assert rates("constant") == pytest.approx([1.0] + [2.0] * 9)
    # 1 + cos(pi·i/8); cos(pi/4) = sqrt(1/2)
    half = math.sqrt(0.5)
    assert rates("cosine")[::2] == pytest.approx([1.0, 2.0, 1 + half, 1.0, 1 - half])
    assert rates("cosine")[-1] == pytest.approx(1 + math.cos(7 * math.pi / 8))


def test_without_warm_up_the_first_step_has_the_peak():
    assert learning_rate(settings(warmup_ratio=0.0, learning_rate=2.0), 0, 10) == 2.0


def test_warm_up_is_the_share_that_was_asked_for():
    """7 % of 100 steps are 7, though 0.07·100 is 7.000000000000001."""
    config = settings(warmup_ratio=0.07, learning_rate=1.0, schedule="constant")
    assert [learning_rate(config, step, 100) for step in (5, 6, 7)] == pytest.approx([6 / 7, 1.0, 1.0])


def test_prompts_without_information_are_left_out():
    """Ten prompts, of which four tie: batches of 4 and 2 of the other six instead of 4, 4 and 2, twice an iteration.

    The schedule counts the steps that all ten would take.
    """
    policy = make_policy()
    data = make_scored(policy, n=10, k=2)
    preference = data.preference.copy()
    preference[:, 0, 1], preference[:, 1, 0] = 1.0, 0.0
    tied = [1, 4, 5, 8]
    preference[tied] = 0.5
    data = replace(data, preference=preference)
    config = settings(batch_size=4, micro_batch_size=4, epochs=2, learning_rate=12.0e-3, warmup_ratio=0.0)
    optimizer = make_optimizer(policy, config)
    rates, calls = [], []

    def progress(done, total, **figures):
        rates.append(optimizer.param_groups[0]["lr"])
        calls.append((done, total))

    run = {"config": config, "optimizer": optimizer, "iterations": 2, "progress": progress}
    for iteration in (1, 2):
        fit(policy, data, algorithm=Ipo(), iteration=iteration, **run)
    # 12 steps in all; of each iteration's six, those with the indices 0, 6·1/4, 6·2/4 and 6·3/4, rounded down.
    assert np.array(rates) == pytest.approx(1e-3 * np.array([12, 11, 9, 8, 6, 5, 3, 2]))
    assert calls == 2 * [(done, 4) for done in (1, 2, 3, 4)]


def test_left_out_prompts_change_nothing_for_a_loss_that_ignores_them():
    """IPO on the informative prompts alone: the gradient's direction is that of all, so AdamW's first step agrees."""
    data = make_scored(make_policy(), n=8, k=3)
    preference = data.preference.copy()
    preference[3:] = 0.5
    data = replace(data, preference=preference)

    class EveryPrompt(Ipo):
        def informative(self, win_rate):
            return np.ones(len(win_rate), dtype=bool)

    ends = []
    for algorithm in (Ipo(), EveryPrompt()):
        policy = make_policy()
        fit(policy, data, algorithm=algorithm, config=settings(max_grad_norm=1e-3, warmup_ratio=0.0))
        ends.append(weights(policy))
    for name, after in ends[0].items():
        torch.testing.assert_close(after, ends[1][name], rtol=0, atol=1e-3)


def test_an_iteration_of_ties_leaves_the_policy_alone():
    policy = make_policy()
    data = make_scored(policy, n=4, k=2)
    data = replace(data, preference=np.full_like(data.preference, 0.5))
    before = weights(policy)
    assert fit(policy, data, algorithm=Ipo()) == {}
    assert_same(before, weights(policy))


def test_warm_up_over_the_whole_run():
    config = settings(warmup_ratio=0.99, learning_rate=1.0)
    assert [learning_rate(config, step, 2) for step in (0, 1)] == [0.5, 1.0]


def test_steps_per_iteration_counts_the_short_batch():
    assert Schedule(settings(batch_size=4, micro_batch_size=4), 1, 1, 0).steps(8) == 2
    assert Schedule(settings(batch_size=4, micro_batch_size=4, epochs=3), 1, 1, 0).steps(9) == 9
    assert Schedule(settings(batch_size=4, micro_batch_size=1), 1, 1, 0).steps(1) == 1


def test_schedule_runs_on_over_iterations():
    """Two iterations of three steps (ten prompts, batches of 4, 4 and 2): six rates from the peak to 1/6 of it."""
    policy = make_policy()
    data = make_scored(policy, n=10, k=2)
    config = settings(batch_size=4, micro_batch_size=4, learning_rate=6e-3, warmup_ratio=0.0)
    optimizer = make_optimizer(policy, config)
    rates, calls = [], []

    def progress(done, total, **figures):
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
        calls.append((done, total, sorted(figures)))

    for iteration in (1, 2):
        fit(policy, data, config=config, optimizer=optimizer, iteration=iteration, iterations=2, progress=progress)
    assert np.array(rates) == pytest.approx(np.array([[6e-3 - 1e-3 * i] * 2 for i in range(6)]))
    assert calls == 2 * [(done, 3, ["grad_norm", "logp_change", "loss"]) for done in (1, 2, 3)]


def test_order_is_a_permutation_of_its_own():
    orders = [
        order(50, seed=seed, iteration=iteration, epoch=epoch)
        for seed in (0, 1)
        for iteration in (1, 2)
        for epoch in (0, 1)
    ]
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert len({tuple(o) for o in orders}) == len(orders)
    assert (order(50, seed=1, iteration=2, epoch=1) == orders[-1]).all()


def test_each_epoch_visits_every_prompt_once_in_its_order():
    """With batches that do not divide the prompts and micro-batches that do not divide the batches."""
    policy = make_policy()
    data = make_scored(policy, n=10, k=3)
    seen = []

    class Watched(Wind):
        clip: float | None = None

        def loss(self, group):
            seen.append(group.logp_old.numpy())
            return super().loss(group)

    config = settings(batch_size=7, micro_batch_size=3, epochs=2)
    fit(policy, data, algorithm=Watched(), config=config, iteration=2, iterations=2, seed=5)
    assert [len(rows) for rows in seen] == 2 * [3, 3, 1, 3]
    logp_old = data.logp_old.astype(np.float32)
    for epoch in (0, 1):
        visits = order(10, seed=5, iteration=2, epoch=epoch)
        batches = [np.concatenate(seen[4 * epoch : 4 * epoch + 3]), seen[4 * epoch + 3]]
        for batch, expected in zip(batches, (visits[:7], visits[7:]), strict=True):
            assert sorted(batch.tolist()) == sorted(logp_old[expected].tolist())
