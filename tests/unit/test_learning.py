"""What training did to its own data: figures and warnings by hand, and the log-probs that losses ask for."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from components.algorithms.dpo import Dpo
from components.algorithms.rloo import Rloo
from components.algorithms.wind import Wind
from components.config.sections import TrainingConfig
from components.reporting.report import told, warned
from components.training.learning import Seen, figures, warnings


def seen(**changes):
    """Two prompts with two responses each: in the first, one wins; the second ties."""
    values = {
        "risk": np.array([[0.3, 0.1], [0.1, 0.1]]),
        "moved": np.array([[1.0, -4.0], [0.5, 0.5]]),
        "target": np.array([[5.0, -5.0], [0.0, 0.0]]),
        "win_rate": np.array([[1.0, 0.0], [0.5, 0.5]]),
        "tokens": np.array([[2, 4], [6, 8]]),
        "sample": True,
    }
    return Seen(**values | changes)


def test_figures_by_hand():
    """Moves 1, -4, 0.5, 0.5: mean -0.5, so a KL of 0.5 a response, and a tenth of that a token at 5 tokens each."""
    assert figures(seen()) == pytest.approx(
        {
            "risk_before": 0.2,
            "risk_after": 0.1,
            "winners_moved": 1.0,
            "winners_target": 5.0,
            "losers_moved": -4.0,
            "losers_target": -5.0,
            "kl_step": 0.5,
            "kl_step_token": 0.1,
        }
    )


def test_each_pass_of_several_has_its_risk():
    found = figures(seen(risk=np.array([[0.3, 0.1], [0.1, 0.1], [0.5, 0.7]])))
    passes = {key: value for key, value in found.items() if key.startswith("risk_")}
    assert passes == pytest.approx({"risk_before": 0.2, "risk_after": 0.6, "risk_1": 0.1, "risk_2": 0.6})


def test_what_is_not_there_is_nan():
    """No winner among ties; no KL from the best and the worst of more; no target of a loss without end."""
    nothing = np.full((2, 2), math.nan)
    found = figures(seen(win_rate=np.full((2, 2), 0.5), target=nothing, sample=False))
    assert {key for key, value in found.items() if math.isnan(value)} == found.keys() - {"risk_before", "risk_after"}


def many(risk=((0.10,), (0.05,)), *, winners=2.0, losers=-2.0, target=5.0, tokens=10, sample=True):
    """Sixteen prompts of one winner and one loser; risks are repeated."""
    n = 16
    return Seen(
        risk=np.array([np.resize(row, n) for row in risk]),
        moved=np.tile([winners, losers], (n, 1)),
        target=np.tile([target, -target], (n, 1)),
        win_rate=np.tile([0.8, 0.2], (n, 1)),
        tokens=np.full((n, 2), tokens),
        sample=sample,
    )


def warn(found, algorithm=None, pace=1.0):
    settings = TrainingConfig(learning_rate=2e-5, epochs=len(found.risk) - 1)
    return warnings(found, algorithm or Wind(beta=0.02, eta=10.0, clip=None), settings, pace=pace)


def test_training_that_learns_is_silent():
    assert warn(many()) == ""
    assert warn(many([[0.1], [0.05], [0.04]])) == ""


def test_a_rise_in_a_later_pass_is_told_with_both_figures():
    """A language model at eta 10 and a rate of 2e-5: the loss fell in the first pass and rose in the second."""
    assert warn(many([[0.034], [0.016], [0.53]])) == (
        "The risk rose from 0.016 to 0.53 in pass 2 of 2: training overshot. Lower training.learning_rate (2e-05), "
        "lower training.epochs (2) or raise algorithm.eta (10)."
    )


@pytest.mark.parametrize(("last", "told"), [(0.249, False), (0.27, True)])
def test_a_later_pass_may_take_back_a_little(last, told):
    """Of the 0.2 that the first pass gained, a quarter is 0.05: from 0.2 to 0.25."""
    assert ("in pass 2 of 2" in warn(many([[0.4], [0.2], [last]]))) == told


def test_a_rise_over_the_iteration_is_told():
    """One pass leaves no fewer; DPO has no eta."""
    text = warn(many([[0.6], [0.9]]), Dpo())
    assert text == (
        "The risk rose from 0.6 to 0.9 over the iteration: training overshot. Lower training.learning_rate (2e-05)."
    )


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([0.100], [0.104], False),  # by 4 %
        ([0.100], [0.106], True),  # by 6 %, all prompts alike
        ([-1.0], [-0.9], True),  # a loss may be negative: by 10 %
        ([-1.0], [-1.1], False),
        # Rises of 3 and falls of 1 in turn: mean 1, standard deviation 2·sqrt(16/15), standard error 0.516: 1.94 of it.
        ([4.0, 4.0], [7.0, 3.0], False),
        # 3.2 and -1: mean 1.1, standard error 2.1·sqrt(16/15)/4 = 0.542: 2.03 of it.
        ([4.0, 4.0], [7.2, 3.0], True),
        # Four rises of 8 and twelve falls of 0.8: mean 1.4, standard error 3.935/4 = 0.984: 1.4 of it.
        ([1.0, 1.0, 1.0, 1.0], [9.0, 0.2, 0.2, 0.2], True),  # the risk has doubled
        ([1.6, 1.6, 1.6, 1.6], [9.6, 0.8, 0.8, 0.8], False),  # it has not
    ],
)
def test_a_rise_counts_if_it_is_large_and_no_chance(before, after, told):
    assert ("rose" in warn(many([before, after]))) == told


def test_one_prompt_shows_no_rise():
    one = many([[0.1], [0.9]])
    one = Seen(one.risk[:, :1], one.moved[:1], one.target[:1], one.win_rate[:1], one.tokens[:1], one.sample)
    assert warn(one) == ""


def test_a_policy_that_hardly_moved():
    """0.1 nats of 10 are 1 %; 0.3 would be 3 %."""
    assert warn(many(winners=0.06, losers=-0.04)) == (
        "Log-probs of winners and losers moved apart by 0.1 of the 10 nats that the algorithm asks for: training "
        "hardly moved the policy. Raise training.learning_rate (2e-05), raise training.epochs (1) or lower "
        "algorithm.eta (10)."
    )
    assert warn(many(winners=-0.85, losers=-0.95)) != ""
    assert (
        warn(many(winners=-1.1, losers=-1.2)) == ""
    )  # both by more than a tenth of 10 nats: no higher rate is missing
    assert warn(many(winners=0.16, losers=-0.14)) == ""


def test_where_beta_holds_the_targets_beta_is_to_be_lowered():
    """Up to 1 / beta: eta 100 at beta 0.02 puts them at 100/3 of the spread, eta 10 at 10/1.2 of it."""
    text = warn(many([[0.034], [0.016], [0.53]]), Wind(eta=100.0, beta=0.02))
    assert text.endswith("or lower algorithm.beta (0.02).")


@pytest.mark.parametrize(("winners", "told"), [(0.2, True), (0.3, False)])
def test_of_a_target_out_of_reach_half_a_nat_is_enough(winners, told):
    """2 % of 25 nats, where the targets are 200 apart."""
    text = warn(many(winners=winners, losers=-winners, target=100.0))
    assert ("hardly" in text) == told


@pytest.mark.parametrize(("winners", "losers", "told"), [(-15.0, -40.0, True), (-8.0, -7.3, True), (-2.0, -9.0, False)])
def test_winners_that_fall_where_they_should_rise(winners, losers, told):
    """With targets out of reach neither the risk nor the target's distance shows it."""
    text = warn(many(winners=winners, losers=losers, target=100.0, tokens=100))
    assert ("of winners fell by" in text) == told
    assert "hardly" not in text


def test_winners_alone_that_hardly_moved():
    """No loser was trained on: 0.05 of 5 nats are 1 %, 0.2 are 4 %."""
    for won, told_of in ((0.05, True), (0.2, False)):
        both = many(winners=won)
        best = replace(both, **{name: getattr(both, name)[:, :1] for name in ("moved", "target", "win_rate", "tokens")})
        assert ("Log-probs of winners rose by 0.05 of the 5 nats that" in warn(best)) is told_of


def test_where_beta_holds_the_targets_a_policy_that_hardly_moved_may_have_them_nearer():
    text = warn(many(winners=0.01, losers=-0.01, target=100.0), Wind())
    assert text.endswith("raise training.epochs (1) or raise algorithm.beta (0.002).")


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ([3.0, -1.0], False),  # mean 1, standard error 2·sqrt(16/15)/4 = 0.516: 1.9 of it
        ([2.0, -0.1], True),  # mean 0.95, standard error 1.05·sqrt(16/15)/4 = 0.271: 3.5 of it
    ],
)
def test_a_loss_that_begins_at_zero_is_not_doubled_by_noise(after, told):
    assert ("rose" in warn(many([[0.0, 0.0], after]), Rloo())) == told


def test_where_the_schedule_ends_little_is_enough():
    """At a quarter of the rate, 2 % of 10 nats become 0.05."""
    assert warn(many(winners=0.06, losers=-0.04), pace=0.25) == ""
    assert "hardly" in warn(many(winners=0.02, losers=-0.02), pace=0.25)


def test_without_a_target_nobody_can_say_whether_it_hardly_moved():
    assert warn(many(winners=0.0, losers=0.0, target=math.nan), Dpo()) == ""


def test_a_policy_that_ran_away_from_its_target():
    """Six times the target; nine times where there is none."""
    text = warn(many(winners=1.0, losers=-30.0, tokens=100))
    assert text == (
        "Log-probs of losers moved by -30 nats per response, where the algorithm asks for -5: training ran away. "
        "Lower training.learning_rate (2e-05)."
    )
    assert warn(many(winners=1.0, losers=-24.0, tokens=100)) == ""


def test_a_short_response_may_fall_further():
    """3.75 nats, 1.9 a token; a response of less than 8 tokens counts as 8. At 5 nats, 2.5 a token."""
    assert warn(many(winners=1.0, losers=-8.5, tokens=2)) == ""
    assert "fell by 2.5 nats per token" in warn(many(winners=1.0, losers=-11.0, tokens=2))


@pytest.mark.parametrize("sample", [True, False])
def test_a_policy_that_left_the_previous_one(sample):
    """Moves of +2 and -14: 6 nats a response on average, 0.6 a token at 10 tokens. At 13 it is 0.46."""
    text = warn(many(winners=2.0, losers=-14.0, sample=sample))
    assert text == (
        "Log-probs of the responses fell by 0.6 nats per token: the policy left the one that drew them. "
        "Lower training.learning_rate (2e-05) or lower algorithm.eta (10)."
    )
    assert warn(many(winners=2.0, losers=-14.0, tokens=13, sample=sample)) == ""


def test_several_warnings_follow_each_other():
    text = warn(many([[0.1], [0.9]], winners=-30.0, losers=-40.0))
    assert [text.count(word) for word in ("rose", "ran away", "hardly")] == [1, 1, 0]


def test_what_is_told_of_a_history():
    history = pd.DataFrame({"iteration": [1, 2, 3], "warnings": ["It rose.", "It rose again.", ""]})
    assert warned(history) == {1: "It rose.", 2: "It rose again."}
    assert told(history) == "Training in iteration 2 (also in 1): It rose again."
    assert told(history[2:]) == ""


def test_older_histories_have_no_warnings():
    """A run that continues from another has NaN in that one's rows."""
    old, new = pd.DataFrame({"iteration": [1]}), pd.DataFrame({"iteration": [2], "warnings": ["It rose."]})
    assert told(old) == ""
    assert told(pd.concat([old, new], ignore_index=True)) == "Training in iteration 2: It rose."
