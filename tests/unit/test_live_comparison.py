"""The picture of a comparison that goes on: its arms, and what is done of them."""

from __future__ import annotations

from datetime import datetime

from components.reporting.live import Picture

NOON = datetime(2026, 5, 4, 12, 0)


def begin(picture: Picture, task: str, kind: str, iteration: int, branch: str = "") -> None:
    picture.starts(task, 10.0)
    place = {"kind": kind, "iteration": iteration, "last": 3, "branch": branch}
    picture.told({"task": task, "place": place}, 10.0)


def test_what_comes_before_the_arms_gives_way_and_an_arm_that_is_done_says_so() -> None:
    picture = Picture("CompareFlow/7", 0.0)
    begin(picture, "start/1", "start", 0)
    assert "before iteration 1" in "\n".join(picture.lines(15.0, NOON, 100, 20))
    picture.ends("start/1", well=True)
    begin(picture, "evaluate_3/2", "evaluate", 3, "wind, seed 0")
    begin(picture, "evaluate_2/3", "evaluate", 2, "dpo, seed 0")
    begin(picture, "evaluate_3/4", "evaluate", 3, "ipo, seed 0")
    for task, well in (("evaluate_3/2", True), ("evaluate_2/3", True), ("evaluate_3/4", False)):
        picture.ends(task, well=well)
    assert picture.lines(20.0, NOON, 100, 20) == [
        "CompareFlow/7 · running for 20.0 s · 0 tasks at work",
        "wind, seed 0 · iteration 3 of 3 · evaluated",
        "dpo, seed 0 · iteration 2 of 3 · expected end of the run: known after iteration 2",
        "ipo, seed 0 · iteration 3 of 3 · expected end of the run: known after iteration 3",
    ]
