"""What becomes of responses that the length limit cut off: a penalty on scores or log-odds, or that they lose."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from components.algorithms import leave_one_out
from components.config.errors import ConfigError
from components.config.registry import build
from components.data.records import Prompt, Ragged, Rollout
from components.judges import Answers, Judge, Judgement
from components.judges._base import PairwiseModelJudge
from components.judges._pairwise import FirstWins
from components.judges._truncated import lost, shifted
from components.run_config import parse
from components.runtime.progress import silent
from components.stages import sampling

PROMPT = Prompt("one", ({"role": "user", "content": "a"},))


def number(response, prompt):
    return {"score": float(response), "digits": len(response)}


FUNCTION = {"name": "verifier", "function": f"{__name__}:number"}


def verdict(settings, texts, truncated):
    judge = build("judges", settings, Judge) if isinstance(settings, dict) else settings
    return judge.verdict([PROMPT], Answers([texts], np.array([truncated]), [""]))


# Scores


def test_a_penalty_is_subtracted_from_scores():
    """Scores 3, 1, 2 with the first cut off: 1.5, 1, 2."""
    judgement = verdict({**FUNCTION, "truncated_penalty": 1.5}, ["3", "1", "2"], [True, False, False])
    assert judgement.reward.tolist() == [[1.5, 1, 2]]
    assert judgement.preference[0].tolist() == [[0.5, 1, 0], [0, 0.5, 0], [1, 1, 0.5]]
    assert leave_one_out(judgement.preference).tolist() == [[0.5, 0, 1]]
    assert judgement.parts["digits"].tolist() == [[1, 1, 1]]


def test_a_penalty_may_make_a_tie():
    judgement = verdict({**FUNCTION, "truncated_penalty": 2}, ["3", "1"], [True, False])
    assert judgement.preference[0].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_a_penalty_of_scores_with_a_temperature():
    """P(first) = sigmoid((ln 9 + 1 - 1) / 1) before, sigmoid(ln 9 - 1 + 1 - ln 3) = 3/4 after a penalty of ln 3."""
    scores = [str(np.log(9)), "0", "0"]
    settings = {**FUNCTION, "temperature": 2.0, "truncated_penalty": float(np.log(3))}
    p = verdict({**settings, "temperature": 1.0}, scores, [True, False, True]).preference[0]
    assert p[0, 1] == pytest.approx(3 / 4)  # odds 9 / 3
    assert p[0, 2] == pytest.approx(9 / 10)  # both are cut off
    assert p[1, 2] == pytest.approx(3 / 4)  # a tie before
    halved = verdict(settings, scores, [True, False, True]).preference[0]
    assert halved[0, 1] == pytest.approx(np.sqrt(3) / (1 + np.sqrt(3)))


@pytest.mark.parametrize("penalty", [0.0, 5.0, "lose"])
def test_nothing_changes_where_nothing_is_cut_off(penalty):
    plain = verdict(FUNCTION, ["3", "1", "2"], [False] * 3)
    judgement = verdict({**FUNCTION, "truncated_penalty": penalty}, ["3", "1", "2"], [False] * 3)
    assert judgement.preference.tolist() == plain.preference.tolist()
    assert judgement.reward.tolist() == plain.reward.tolist()
    all_cut = verdict({**FUNCTION, "truncated_penalty": penalty}, ["3", "1", "2"], [True] * 3)
    assert all_cut.preference.tolist() == plain.preference.tolist()


# Losing


def test_what_is_cut_off_loses_to_what_is_not():
    """Scores 3, 1, 2, 0, the first and the last cut off: these two among themselves as the judge has it."""
    judgement = verdict({**FUNCTION, "truncated_penalty": "lose"}, ["3", "1", "2", "0"], [True, False, False, True])
    assert judgement.preference[0].tolist() == [
        [0.5, 0, 0, 1],
        [1, 0.5, 0, 1],
        [1, 1, 0.5, 1],
        [0, 0, 0, 0.5],
    ]
    assert leave_one_out(judgement.preference) == pytest.approx(np.array([[1 / 3, 2 / 3, 1, 0]]))
    assert judgement.reward.tolist() == [[3, 1, 2, 0]]


# Pairs


class Pairs(PairwiseModelJudge):
    """A judge of pairs whose verdicts are given, in the order of `ordered_pairs`."""

    name: Literal["pairs"] = "pairs"
    model: str = "none"
    first_wins: list[float]

    def check(self):
        pass

    def compare_pairs(self, prompts, responses, pairs, progress=silent):
        return FirstWins(np.array(self.first_wins))


# (first, second): (0, 1) 0.8, (0, 2) 0.5, (1, 0) 0.2, (1, 2) 0.9, (2, 0) 0.5, (2, 1) 0.1
GIVEN = [0.8, 0.5, 0.2, 0.9, 0.5, 0.1]


def test_a_penalty_of_log_odds():
    """The first is cut off, with a penalty of ln 4: odds 4 and 1 become 1 and 1/4."""
    judge = Pairs(first_wins=GIVEN, truncated_penalty=float(np.log(4)))
    judgement = verdict(judge, ["a", "b", "c"], [True, False, False])
    expected = [[0.5, 0.5, 0.2], [0.5, 0.5, 0.9], [0.8, 0.1, 0.5]]
    assert judgement.preference[0] == pytest.approx(np.array(expected))
    assert leave_one_out(judgement.preference)[0] == pytest.approx(np.array([0.35, 0.7, 0.45]))
    assert np.isnan(judgement.reward).all()


def test_pairs_may_lose_too():
    judge = Pairs(first_wins=GIVEN, truncated_penalty="lose")
    judgement = verdict(judge, ["a", "b", "c"], [True, False, True])
    assert judgement.preference[0] == pytest.approx(np.array([[0.5, 0, 0.5], [1, 0.5, 1], [0.5, 0, 0.5]]))


def random_game(rng, n, k):
    wins = np.triu(rng.choice([0.0, 1e-300, 0.2, 0.5, 0.7, 1 - 1e-12, 1.0], size=(n, k, k)), 1)
    return wins + np.tril(1 - wins.swapaxes(1, 2), -1) + 0.5 * np.eye(k)


@pytest.mark.parametrize("size", [0.1, 3.0, 1e4])
def test_preferences_stay_preferences(size):
    """In [0, 1], P + P^T = 1, the diagonal 1/2, and no response of a penalty gains by it."""
    rng = np.random.default_rng(0)
    game, truncated = random_game(rng, 50, 6), rng.random((50, 6)) < 0.4
    for changed in (lost(game, truncated), shifted(game, size * truncated)):
        assert ((changed >= 0) & (changed <= 1)).all()
        np.testing.assert_allclose(changed + changed.swapaxes(1, 2), 1, atol=1e-12)
        assert (np.diagonal(changed, axis1=1, axis2=2) == 0.5).all()
        before, after = leave_one_out(game), leave_one_out(changed)
        assert (after[truncated] <= before[truncated] + 1e-12).all()
        assert (after[~truncated] >= before[~truncated] - 1e-12).all()
        same = truncated[:, :, None] == truncated[:, None, :]
        np.testing.assert_array_equal(changed[same], game[same])


def test_what_is_certain_stays_certain_under_a_penalty_and_not_where_it_loses():
    game, truncated = np.array([[[0.5, 1.0], [0.0, 0.5]]]), np.array([[True, False]])
    assert shifted(game, 9.0 * truncated).tolist() == game.tolist()
    assert lost(game, truncated).tolist() == [[[0.5, 0], [1, 0.5]]]


# Ensembles


def test_members_have_penalties_of_their_own():
    """Scores 3 and 2, the first cut off. The first member takes 2 off; the second none: a tie in the mean."""
    members = [{**FUNCTION, "truncated_penalty": 2.0}, {**FUNCTION, "function": f"{__name__}:plain"}]
    judgement = verdict({"name": "ensemble", "judges": members}, ["3", "2"], [True, False])
    assert judgement.preference[0].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert judgement.reward.tolist() == [[2, 2]]
    lose = {"name": "ensemble", "judges": members, "truncated_penalty": "lose"}
    assert verdict(lose, ["3", "2"], [True, False]).preference[0].tolist() == [[0.5, 0], [1, 0.5]]
    members[0]["truncated_penalty"] = "lose"
    weighted = [{**members[0], "weight": 3}, members[1]]
    judgement = verdict({"name": "ensemble", "judges": weighted}, ["3", "2"], [True, False])
    assert judgement.preference[0].tolist() == [[0.5, 0.25], [0.75, 0.5]]


def plain(response, prompt):
    return float(response)


# In rollouts, and in the config


def rollout(texts, finished):
    tokens = Ragged.of([[1]] * len(texts))
    return Rollout(["one"], Ragged.of([[1]]), tokens, texts, np.array([finished]))


def test_responses_of_several_policies_each_know_whether_they_were_cut_off():
    """5 is cut off and loses to 1, 2 and 3, which was not; 4, of the second policy and cut off too, loses to 5."""
    judge = build("judges", {**FUNCTION, "truncated_penalty": "lose"}, Judge)
    both = [rollout(["5", "1"], [False, True]), rollout(["2", "4"], [True, False])]
    found: Judgement = sampling.judge(judge, [PROMPT], both)
    assert found.preference[0].tolist() == [[0.5, 0, 0, 1], [1, 0.5, 0, 1], [1, 1, 0.5, 1], [0, 0, 0, 0.5]]


CONFIG = "policy: {model: m}\nprompts: {train: p.jsonl}\n"
VERIFIER = "{name: verifier, function: 'a:b', truncated_penalty: %s}"


@pytest.mark.parametrize("value", ["-1", "loose", "true", "null", ".inf", ".nan", "[1]", "'1'"])
def test_penalties_that_cannot_be_used(value):
    with pytest.raises(ConfigError) as caught:
        parse(f"{CONFIG}judge: {VERIFIER % value}")
    assert str(caught.value).startswith("judge.truncated_penalty: ")
    assert str(caught.value).endswith("cannot be used. Give a number of at least 0, or lose.")


def test_a_penalty_that_no_score_can_be_lowered_by():
    with pytest.raises(ConfigError, match=r"1e\+101 cannot be used\. Give a number of at most 1e\+100, or lose\.$"):
        parse(f"{CONFIG}judge: {VERIFIER % '1.0e+101'}")


def test_an_ensembles_scores_have_no_scale():
    with pytest.raises(ConfigError, match=r"^judge.truncated_penalty: 1.0 has no scale here; members have their own."):
        parse(f"{CONFIG}judge: {{name: ensemble, truncated_penalty: 1, judges: [{VERIFIER % 1}]}}")


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
@pytest.mark.parametrize(
    ("judge", "wrong"),
    [
        (VERIFIER % "lose", True),
        (VERIFIER % 2, False),
        ("{name: llm_judge, model: m, truncated_penalty: lose}", False),  # no scores: trains on win rates
        ("{name: reward_model, model: m, truncated_penalty: lose}", True),
        (f"{{name: ensemble, judges: [{VERIFIER % 'lose'}]}}", True),
        (f"{{name: ensemble, truncated_penalty: lose, judges: [{VERIFIER % 0}]}}", True),
        (f"{{name: ensemble, judges: [{VERIFIER % 'lose'}, {{name: pairrm}}]}}", False),
    ],
)
def test_what_trains_on_scores_does_not_see_who_loses(algorithm, judge, wrong):
    text = f"{CONFIG}judge: {judge}\nalgorithm: {{name: {algorithm}}}"
    if not wrong:
        assert parse(text)["algorithm"]["name"] == algorithm
        return
    with pytest.raises(ConfigError, match=rf"judge.truncated_penalty: lose decides pairs, and {algorithm} trains on"):
        parse(text)
