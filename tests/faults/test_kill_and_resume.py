"""WindFlow is killed at every task, in every way, and resumed: it ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from support.faults.chains import POINTS, Chain, Kill, Tally, each, in_turn

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

WRITERS = [point for point in POINTS if point not in ("gather_1", "end")]  # they write into the store

# Every task, and every way in which a single machine can fail.
QUICK = [
    Kill("start", "task after"),
    Kill("plan_1", "launcher before"),
    Kill("generate_1/first", "task write:1"),
    Kill("generate_1/second", "launcher exit"),
    Kill("score_1/first", "task before"),
    Kill("score_1/second", "task write:1"),
    Kill("gather_1", "warm before"),
    Kill("gather_1", "launcher after"),
    Kill("train_1", "task step:1"),
    Kill("train_1", "warm step:2"),
    Kill("train_1", "launcher step:3"),
    Kill("evaluate_1", "task exit"),
    Kill("end", "launcher before"),
]
# Write 1 of a training is its first saved state; 6 is a file of the policy.
LOCAL = {
    "task": each(POINTS, "task before", "task after"),
    "launcher": in_turn(POINTS, "launcher after", "launcher exit"),
    "warm": in_turn(POINTS, "warm before", "warm after", "warm exit"),
    "write": [*in_turn(WRITERS, "task write:1", "launcher write:1"), Kill("evaluate_1", "task exit")],
}
S3 = {
    "task and launcher": in_turn(POINTS, "task after", "launcher after"),
    "upload": in_turn(WRITERS, "task part:1", "task put:1", "launcher part:1", "launcher put:1"),
    "server": in_turn(POINTS, "server before", "server after"),
    "training": each(["train_1"], "task step:1", "server step:2", "launcher step:3"),
}
ON_POLICY = each(["train_1"], "task step:2", "launcher step:3")
DATASTORES = ["local", pytest.param("s3", marks=pytest.mark.s3)]


def test_a_run_that_is_killed_at_every_task(make_chain: Callable[..., Chain], undisturbed: Any) -> None:
    chain = make_chain("local")
    chain.walk(QUICK)
    chain.check(undisturbed("wind"))


@pytest.mark.usefixtures("every_kill")
@pytest.mark.parametrize(
    ("datastore", "algorithm", "kills"),
    [
        *(pytest.param("local", "wind", kills, id=f"local {name}") for name, kills in LOCAL.items()),
        *(pytest.param("s3", "wind", kills, id=f"s3 {name}", marks=pytest.mark.s3) for name, kills in S3.items()),
        pytest.param("local", "jbond", ON_POLICY, id="local on-policy training"),
        pytest.param("s3", "jbond", ON_POLICY, id="s3 on-policy training", marks=pytest.mark.s3),
    ],
)
def test_a_run_that_is_killed_in_one_way(
    datastore: str, algorithm: str, kills: list[Kill], make_chain: Callable[..., Chain], undisturbed: Any
) -> None:
    chain = make_chain(datastore, algorithm)
    chain.walk(kills)
    chain.check(undisturbed(algorithm))


@pytest.mark.usefixtures("every_kill")
def test_a_launcher_that_is_killed_while_two_tasks_run(make_chain: Callable[..., Chain], undisturbed: Any) -> None:
    chain = make_chain("local")
    for step in ("generate_1", "score_1"):
        chain.kill(Kill(f"{step}/0", "launcher abreast"), "--max-workers", "2")
    chain.attempt()
    chain.check(undisturbed("wind"))


@pytest.mark.usefixtures("every_kill")
@pytest.mark.parametrize("datastore", DATASTORES)
def test_two_resumes_at_once(datastore: str, make_chain: Callable[..., Chain], undisturbed: Any) -> None:
    chain = make_chain(datastore)
    chain.kill(Kill("train_1", "task step:2"))
    [origin] = chain.runs
    together = Kill("train_1", "nobody restore:0")
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda _: chain.attempt(together, origin=origin), range(2)))
    assert [end.status for end in ends] == [0, 0], ends
    assert all("training continues after optimiser step" in end.stdout for end in ends), ends
    _, first, second = chain.runs
    replace(chain, runs=[origin, first]).check(undisturbed("wind"))
    replace(chain, runs=[origin, second], tally=Tally()).check(undisturbed("wind"))


@pytest.mark.usefixtures("every_kill")
def test_a_retry_goes_on_like_a_resume(make_chain: Callable[..., Chain], undisturbed: Any, tally: Tally) -> None:
    chain = make_chain("local")
    end = chain.attempt(Kill("train_1", "task step:2"), retries=1)
    assert end.status == 0, end
    assert "training continues after optimiser step 2" in end.stdout
    attempts = [(line["attempt"], line["event"]) for line in chain.noted() if line["task"] == "train_1"]
    assert attempts == [(0, "begin"), (0, "task step:2"), (1, "begin"), (1, "end")]
    tally.kills += 1
    chain.check(undisturbed("wind"))
