"""The monitor of training, on real trainings of tiny models: its figures, its warnings, and resume."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from components.algorithms.dpo import Dpo
from components.algorithms.ipo import Ipo
from components.algorithms.sppo import Sppo
from components.algorithms.wind import Wind
from components.store import open_store
from components.training.checkpoints import Checkpoints, training_key
from components.training.gradient_checkpointing import checkpointed
from components.training.learning import figures
from components.training.loop import Schedule
from components.training.monitor import Monitor, monitored
from support.models.tiny import make_policy, make_scored
from support.monitor import begin, fit, one_word, settings


def plain_logprobs(policy, data):
    """log pi(response | prompt), (n, K): the whole model on one row at a time, log-softmax of all its logits."""
    rollout, k = data.rollout, data.rollout.shape[1]
    sums = []
    for row in range(len(rollout.tokens)):
        prompt, response = rollout.prompt_tokens[row // k], rollout.tokens[row]
        with torch.no_grad():
            logp = policy.model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double().log_softmax(-1)
        sums.append(sum(logp[len(prompt) + i - 1, token].item() for i, token in enumerate(response.tolist())))
    return np.reshape(sums, (-1, k))


def test_two_responses_by_hand():
    """`a` beats `b`: v = 1 and 0. At beta = 0.02 and eta = 10 both residuals are 1/2 at first, so the risk is 1/4, and
    the targets are 10·(±1/2) / 1.2. After a pass, residuals are 1.2/10 of the moves away from these."""
    policy, config = make_policy(), settings(epochs=2)
    data = one_word(policy, n=8, words="ab")
    state, moves = begin(policy, config), []

    def remember(state):
        if state.done % 2 == 0:
            moves.append(plain_logprobs(state.policy, data) - data.logp_old)

    monitor = fit(state, data, Wind(beta=0.02, eta=10.0, clip=None), config, remember)
    wanted = np.array([5 / 1.2, -5 / 1.2])
    risks = [(0.12**2 * (move - wanted) ** 2).mean() for move in moves]
    assert figures(monitor.seen(state)) == pytest.approx(
        {
            "risk_before": 0.25,
            "risk_1": risks[0],
            "risk_2": risks[1],
            "risk_after": risks[1],
            "winners_moved": moves[1][:, 0].mean(),
            "winners_target": 5 / 1.2,
            "losers_moved": moves[1][:, 1].mean(),
            "losers_target": -5 / 1.2,
            "kl_step": -moves[1].mean(),
            "kl_step_token": -moves[1].mean() / 2,  # each is a word and EOS
        },
        rel=1e-4,
    )
    assert 0.25 > risks[0] > risks[1]


@pytest.mark.thorough(but=["1"])
@pytest.mark.parametrize("micro_batch_size", [1, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_some_prompts_of_random_lengths(micro_batch_size, checkpointing):
    """A quarter of 40 prompts; the monitor puts each prompt's figures where they belong, whatever it reads together."""
    config = settings(batch_size=8, micro_batch_size=micro_batch_size)
    data = make_scored(make_policy(), n=40, k=3)
    state = begin(checkpointed(make_policy()) if checkpointing else make_policy(), config)
    monitor = fit(state, data, Wind(beta=0.02, eta=10.0, clip=None), config)
    chosen = monitored(np.arange(40), 64, seed=0, iteration=1)
    assert len(chosen) == 10
    moved = (plain_logprobs(state.policy, data) - data.logp_old)[chosen]
    lengths = np.array([len(data.rollout.tokens[i]) for i in range(120)]).reshape(40, 3)[chosen]
    seen = monitor.seen(state)
    np.testing.assert_allclose(seen.moved, moved, atol=1e-5)
    assert figures(seen)["kl_step_token"] == pytest.approx(-moved.sum() / lengths.sum(), abs=1e-6)


def test_a_selection_of_responses_is_no_sample():
    """SPPO's best and worst of a, b, c, d have v = 1 and 0: targets ±eta/2, a risk of 1/4."""
    policy, config = make_policy(), settings()
    data = one_word(policy, n=8, words="bacd")
    state = begin(policy, config)
    found = figures(fit(state, data, Sppo(eta=4.0), config).seen(state))
    moved = plain_logprobs(policy, data) - data.logp_old
    assert (found["risk_before"], found["winners_target"], found["losers_target"]) == pytest.approx((0.25, 2.0, -2.0))
    assert found["winners_moved"] == pytest.approx(moved[:, 0].mean(), abs=1e-5)
    assert found["losers_moved"] == pytest.approx(moved[:, 3].mean(), abs=1e-5)
    assert np.isnan(found["kl_step"])


def test_which_prompts_are_monitored():
    """All of eight, eight of up to 32, then a quarter, and `monitor_prompts` at most; others in another iteration."""
    choose = partial(monitored, seed=0, iteration=1)
    counts = [len(choose(np.arange(n), 64)) for n in (0, 5, 8, 9, 32, 36, 1000)]
    assert counts == [0, 5, 8, 8, 8, 9, 64]
    assert [len(choose(np.arange(1000), most)) for most in (0, 3)] == [0, 3]
    some = np.arange(0, 600, 3)
    assert set(choose(some, 64)) <= set(some)
    assert np.array_equal(choose(some, 64), choose(some, 64))
    assert not np.array_equal(choose(some, 64), monitored(some, 64, seed=0, iteration=2))
    assert not np.array_equal(choose(some, 64), monitored(some, 64, seed=1, iteration=1))


def test_only_trained_prompts_are_monitored():
    """DPO leaves out prompts whose responses tie."""
    data = make_scored(make_policy(), n=12, k=2)
    preference = np.full_like(data.preference, 0.5)
    preference[[2, 7]] = [[0.5, 1.0], [0.0, 0.5]]
    monitor = Monitor.of(replace(data, preference=preference), Dpo(), Schedule(settings(), 1, 1, seed=0))
    assert monitor.prompts.tolist() == [2, 7]


def test_nothing_is_monitored_without_prompts():
    policy = make_policy()
    data = make_scored(policy, n=8, k=2)
    for algorithm, config, scored in (
        (Wind(beta=0.02, eta=10.0, clip=None), settings(monitor_prompts=0), data),
        (Ipo(), settings(), replace(data, preference=np.full_like(data.preference, 0.5))),
    ):
        state = begin(policy, config)
        assert fit(state, scored, algorithm, config).seen(state) is None


def test_measuring_changes_nothing_of_training():
    """Bit for bit, weights and optimiser."""
    ends = []
    for most in (0, 64):
        policy, config = make_policy(), settings(epochs=3, monitor_prompts=most)
        state = begin(policy, config)
        fit(state, make_scored(make_policy(), n=10, k=3), Wind(beta=0.02, eta=10.0, clip=None), config)
        ends.append(state._tensors())
    assert ends[0].keys() == ends[1].keys()
    assert [name for name in ends[0] if not torch.equal(ends[0][name], ends[1][name])] == []


def test_log_probs_that_are_not_finite_are_an_error():
    policy, config = make_policy(), settings()
    data = make_scored(policy, n=8, k=2)
    state = begin(policy, config)
    with torch.no_grad():
        policy.model.lm_head.weight[5] = torch.nan
    with pytest.raises(FloatingPointError, match=r"training.learning_rate"):
        Monitor.of(data, Wind(beta=0.02, eta=10.0, clip=None), Schedule(config, 1, 1, seed=0)).measure(state)


def test_an_iterations_share_of_the_peak():
    """Two iterations of two steps: linear rates 1, 3/4, 1/2, 1/4. The second of a run that continues from one of 5."""
    config = settings(schedule="linear")
    assert Schedule(config, 1, 2, seed=0).pace(8) == pytest.approx(7 / 8)
    assert Schedule(config, 2, 2, seed=0).pace(8) == pytest.approx(3 / 8)
    assert Schedule(config, 7, 2, seed=0, since=5).pace(8) == pytest.approx(3 / 8)


class Killed(BaseException):
    """Ends an attempt as a kill does: nothing of it is left but what is in the store."""


@pytest.mark.thorough(but=["3"])
@pytest.mark.parametrize("killed_after", [1, 2, 3, 4, 5, 6])
def test_a_killed_attempt_has_the_figures_of_a_whole_one(tmp_path, killed_after):
    """Two passes of three steps, saved at each: figures of the first pass are restored, or measured again."""
    config = settings(epochs=2, learning_rate=1e-2, checkpoint_steps=1)
    store, key = open_store(str(tmp_path / "store")), training_key(test=1)
    data = make_scored(make_policy(), n=12, k=3)
    whole = begin(make_policy(), config)
    expected = fit(whole, data, Wind(beta=0.02, eta=10.0, clip=None), config).seen(whole)
    assert len(whole.measured) == 2

    def save_or_die(saving, state):
        if state.done == killed_after:
            raise Killed
        saving.step_done(state)

    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(Killed):
        fit(
            begin(make_policy(), config),
            data,
            Wind(beta=0.02, eta=10.0, clip=None),
            config,
            partial(save_or_die, Checkpoints(store, key, config, tmp_path / "1")),
        )
    state, second = begin(make_policy(), config), Checkpoints(store, key, config, tmp_path / "2")
    second.restore(state)
    assert state.done == killed_after - 1
    monitor = fit(state, data, Wind(beta=0.02, eta=10.0, clip=None), config, second.step_done)
    assert state.measured == whole.measured
    assert figures(monitor.seen(state)) == figures(expected)
