"""How often a judge's winner stays when two responses are swapped: by hand, and said by `start`."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import pytest

from components import stages
from components.config import registry
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge
from components.judges._orders import both_orders, consistency, same_winner
from components.judges._pairwise import FirstWins, PairwiseJudge
from components.runtime.progress import silent
from components.stages.context import open_workspace
from support.loopback_server import said, serving
from support.runs import smoke

PROMPTS = [Prompt(name, ({"role": "user", "content": "?"},)) for name in ("a", "b")]


class ByText(PairwiseJudge):
    """Longer responses win, whatever the order; or the one shown first."""

    name: Literal["by_text"] = "by_text"
    follows_order: bool = False

    def check(self):
        pass

    def compare_pairs(self, prompts, responses, pairs, progress=silent):
        texts = [(responses[i][a], responses[i][b]) for i, a, b in pairs]
        wins = [0.9 if self.follows_order or (len(a), a) > (len(b), b) else 0.1 for a, b in texts]
        return FirstWins(np.array(wins))


def test_the_same_winner_by_hand():
    # first wins with one in front and with the other: agree, agree, both first, both second, tie twice, tie once
    orders = np.array([[0.9, 0.2], [0.4, 0.6], [0.8, 0.7], [0.1, 0.3], [0.5, 0.5], [0.5, 0.9]])
    assert same_winner(orders).tolist() == [1, 1, 0, 0, 1, 0]


def test_pairs_of_one_text_and_those_not_shown_say_nothing():
    first = np.arange(9).reshape(1, 3, 3) / 10
    chosen = ~np.eye(3, dtype=bool)[None]
    assert both_orders(first, [["x", "y", "x"]], chosen).tolist() == [[0.1, 0.3], [0.5, 0.7]]
    chosen[0, 1, 2] = chosen[0, 2, 1] = False
    assert both_orders(first, [["x", "y", "x"]], chosen).tolist() == [[0.1, 0.3]]
    assert both_orders(first, [["x", "x", "x"]], chosen).shape == (0, 2)


SWAPPED = "judge: gives the same winner when the order of two responses is swapped in"


@pytest.mark.parametrize(
    ("orders", "begins", "warns"),
    [
        ([[1, 0]] * 3 + [[1, 1]], f"{SWAPPED} 75% of", 0),
        ([[1, 1]] * 8, f"{SWAPPED} 0% of 8 pairs (0)", 1),
        ([[1, 0], [1, 1]], f"{SWAPPED} 50% of 2", 1),
    ],
)
def test_what_is_said_of_a_share(orders, begins, warns):
    ((told, warned),) = consistency({"judge": np.array(orders, dtype=np.float64)})
    assert told.startswith(begins)
    assert warned == bool(warns) == ("Position alone would give 0%" in told)


def test_without_a_pair_nothing_is_said():
    assert list(consistency({"judge": np.empty((0, 2))})) == []


def test_members_of_an_ensemble_are_told_apart(monkeypatch):
    find = registry.find
    monkeypatch.setattr(
        registry, "find", lambda kind, name, base: ByText if name == "by_text" else find(kind, name, base)
    )
    member = {"name": "by_text"}
    inner = {"name": "ensemble", "judges": [{**member, "follows_order": True}]}
    verifier = {"name": "verifier", "function": f"{__name__}:nothing"}
    judge = build("judges", {"name": "ensemble", "judges": [verifier, member, inner]}, Judge)
    texts = [["a", "bb"], ["c", "c"]]
    orders = judge.verdict(PROMPTS, Answers(texts, np.zeros((2, 2), dtype=bool), ["", ""])).orders
    assert {name: pairs.tolist() for name, pairs in orders.items()} == {
        "judge.judges.1": [[0.1, 0.9]],
        "judge.judges.2.judges.0": [[0.9, 0.9]],
    }


def nothing(response, prompt):
    return 0


def openai(address, **settings):
    pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")
    return {"name": "openai", "base_url": f"{address}/v1", "model": "m", **settings}


def test_ranks_are_compared_in_two_orders(monkeypatch):
    """Of three responses, first as they are, then reversed: 2 is best in both, of the others the one shown first."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def ranks(body, number):
        shown = [line for line in body["messages"][0]["content"].splitlines() if line in ("x", "y", "zz")]
        order = sorted(range(len(shown)), key=lambda place: (shown[place] != "zz", place))
        return said(" > ".join(str(place + 1) for place in order))

    with serving(ranks) as server:
        judge = build("judges", openai(server.address, mode="ranks", concurrency=1), Judge)
        orders = judge.judge(PROMPTS[:1], [["x", "y", "zz"]]).orders["judge"]
    # x and y: whichever comes first; x and zz, y and zz: zz
    assert orders.tolist() == [[1, 1], [0, 1], [0, 1]]


def started(tmp_path, judge, monkeypatch, m=2):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    config = smoke(judge=judge, evaluation={"responses": m})
    with open_workspace(config, str(tmp_path), "start") as work:
        begun = stages.start(work)
        return work.rollout(begun.evaluated)


@pytest.mark.thorough(but=["True"])
@pytest.mark.parametrize("first", [True, False])
def test_start_says_it_of_the_pairs_that_it_judges_anyway(tmp_path, monkeypatch, caplog, capsys, first):
    """The answer is the first shown one, or that of the two whose text sorts last; the server sees each pair twice."""

    def answer(body, number):
        _, a, b = body["messages"][0]["content"].split("|")
        return said("A" if first or a >= b else "B")

    with serving(answer) as server, caplog.at_level(logging.WARNING, "components"):
        judge = openai(server.address, prompt="{prompt}|{response_a}|{response_b}")
        rollout = started(tmp_path, judge, monkeypatch)
    differ = sum(len(set(rollout.group(i))) == 2 for i in range(len(rollout.prompt_ids)))
    share = f"swapped in {0 if first else 100}% of {differ} pairs ({0 if first else differ})"
    told = [record.getMessage() for record in caplog.records if "swapped" in record.getMessage()]
    printed = capsys.readouterr().out
    assert differ > 8
    assert (share in "".join(told), share in printed) == (first, not first)
    questions = {body["messages"][0]["content"] for body in server.bodies[1:]}  # the first is `check`'s
    assert len(server.bodies) - 1 == len(questions) <= 2 * 16


def test_of_one_response_to_a_prompt_it_says_nothing(tmp_path, monkeypatch, capsys):
    with serving(lambda body, number: said("A")) as server:
        started(tmp_path, openai(server.address), monkeypatch, m=1)
    assert "swapped" not in capsys.readouterr().out
