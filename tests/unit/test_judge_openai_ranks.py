"""The judge `openai` with ranks: all responses of a prompt at once, in two opposite orders."""

from __future__ import annotations

import asyncio
import re
import threading
from contextvars import ContextVar

import anyio
import numpy as np
import pytest
from anyio.abc import SocketAttribute

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge
from components.judges._chat import ChatSettings, Reply
from components.judges._verdicts import ranking
from components.judging.measures import ask, measure
from components.judging.pairs import LabelledPair
from support.loopback_server import said, serving

pytest.importorskip("openai", reason="needs openai: pip install -r requirements-openai.txt")

PROMPT = Prompt("one", ({"role": "user", "content": "p"},))
WORTH = {"good": 3, "bad": 2, "ugly": 1}


def judge(server, **settings):
    own = {"base_url": f"{server.address}/v1", "model": "m", "mode": "ranks", "api_key_env": None, "retries": 0}
    return build("judges", {"name": "openai", **own, **settings}, Judge)


def listed(body):
    """Responses in the order in which they are shown."""
    return re.findall(r"# Response \d+\n(.+)\n", body["messages"][0]["content"])


def best_first(body, number):
    shown = listed(body)
    order = sorted(range(len(shown)), key=lambda place: -WORTH[shown[place]])
    return said(" > ".join(str(place + 1) for place in order))


def test_two_requests_rank_all_responses():
    with serving(best_first) as server:
        made = judge(server)
        judgement = made.judge([PROMPT], [["bad", "good", "ugly"]])
    assert sorted(map(listed, server.bodies)) == [["bad", "good", "ugly"], ["ugly", "good", "bad"]]
    assert judgement.preference.tolist() == [[[0.5, 0.0, 1.0], [1.0, 0.5, 1.0], [0.0, 0.0, 0.5]]]
    assert np.isnan(judgement.reward).all()
    assert not made.has_scores
    assert made.model_inputs(5, 8) == made.model_inputs(5, 8, policies=3) == 10


def test_a_model_that_keeps_the_order_shown_says_nothing():
    with serving(lambda *_: said("[1] > [2] > [3]")) as server:
        judgement = judge(server).judge([PROMPT], [["bad", "good", "ugly"]])
    assert judgement.preference.tolist() == [[[0.5] * 3] * 3]


def test_a_ranking_that_cannot_be_read_ties():
    """Forwards it cannot, backwards ugly > good > bad: half of that."""
    with serving(lambda body, _: said("1, 2, 3" if listed(body)[0] == "ugly" else "All are good")) as server:
        judgement = judge(server, max_unparsed=0.5).judge([PROMPT], [["bad", "good", "ugly"]])
        assert judgement.preference.tolist() == [[[0.5, 0.25, 0.25], [0.75, 0.5, 0.25], [0.75, 0.75, 0.5]]]
        assert judgement.usage["unparsed"] == 1
        with pytest.raises(JudgeError, match=r"1 of 2 answers are not the numbers 1 to 3 in an order"):
            judge(server).judge([PROMPT], [["bad", "good", "ugly"]])


def test_a_question_that_nobody_waits_for_closes_its_connection(monkeypatch):
    """The backward one still connects when the forward one has stopped the run."""
    waiting, stopped, threads = threading.Event(), threading.Event(), []
    connect, asks = anyio.connect_tcp, ChatSettings.ask
    backward = ContextVar("backward", default=False)

    def ask(self, client, question):
        if "# Response 1\nugly" in question.text:
            backward.set(True)
            threads.append(threading.current_thread())
        else:
            assert waiting.wait(60)
        return asks(self, client, question)

    async def late(*args, **settings):
        if backward.get():
            waiting.set()
            assert await asyncio.to_thread(stopped.wait, 60)
        stream = await connect(*args, **settings)
        made.append(stream.extra(SocketAttribute.raw_socket))
        return stream

    made = []
    monkeypatch.setattr(ChatSettings, "ask", ask)
    monkeypatch.setattr(anyio, "connect_tcp", late)
    with serving(lambda *_: said("All are good")) as server:
        with pytest.raises(JudgeError, match=r"1 of 2 answers"):
            judge(server).judge([PROMPT], [["bad", "good", "ugly"]])
        stopped.set()
        threads[0].join(60)
        assert [connection.fileno() for connection in made] == [-1, -1]


def test_one_response_and_truncated_ones():
    with serving(best_first) as server:
        assert judge(server).judge([PROMPT], [["good"]]).preference.tolist() == [[[0.5]]]
        assert server.bodies == []
        cut_off = Answers([["bad", "good"]], np.array([[False, True]]), [""])
        lost = judge(server, truncated_penalty="lose").verdict([PROMPT], cut_off)
    assert lost.preference.tolist() == [[[0.5, 1.0], [0.0, 0.5]]]


def test_a_trial_sees_both_orders():
    with serving(best_first) as server:
        made = judge(server)
        rates = measure(ask(made, [LabelledPair(PROMPT, "good", "bad"), LabelledPair(PROMPT, "ugly", "bad")]))
    assert len(server.bodies) == 4
    assert (rates["agreement"].value, rates["consistency"].value, rates["prefers_first_shown"].value) == (0.5, 1.0, 0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 > 1 > 3", [1, 0, 2]),
        ("Ranking: [3] > [2] > [1].", [2, 1, 0]),
        ("1, 3, 2\nbecause it is correct", [0, 2, 1]),
        ("I read them.\n**2 > 3 > 1**", [1, 2, 0]),
        ("2 > 1", None),
        ("2 > 2 > 1", None),
        ("0 > 1 > 2", None),
        ("4 > 2 > 1", None),
        ("1 is better than 2 and 3", None),
        ("1 > 2 > 3\n3 > 2 > 1", None),
        ("", None),
    ],
)
def test_what_is_a_ranking(text, expected):
    assert ranking(Reply(text, "stop"), 3) == expected
