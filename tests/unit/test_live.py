"""The picture of a run that goes on, the place where it is drawn, and what its tasks tell."""

from __future__ import annotations

import io
import os
from datetime import datetime
from pathlib import Path

import pytest

from components.reporting.cards import StepProgress
from components.reporting.live import Picture
from components.reporting.text import is_meter
from components.runtime.heartbeat import Heartbeat, is_sign
from components.runtime.progress import Within
from components.runtime.reports import REPORTS, Reader, Reporter
from components.runtime.screen import Screen
from support.terminal import Shown

NOON = datetime(2026, 5, 4, 12, 0)


def begin(picture: Picture, task: str, now: float, **facts: object) -> None:
    """A task that starts and says where it stands."""
    picture.starts(task, now)
    place = {"kind": task.rpartition("_")[0], "iteration": int(task.partition("/")[0][-1]), "last": 3, **facts}
    picture.told({"task": task, "place": place}, now)


def progress(picture: Picture, task: str, now: float, done: int, total: int, **figures: float) -> None:
    picture.told({"task": task, "progress": ["work", done, total, 10.0, figures]}, now)


def test_shards_done_tokens_and_a_task_each() -> None:
    picture = Picture("WindFlow/7", 0.0)
    for task, shard in (("generate_1/3", 0), ("generate_1/4", 1), ("generate_1/5", 2)):
        begin(picture, task, 60.0, shard=[shard, 4])
    progress(picture, "generate_1/4", 70.0, 5, 10, tokens_per_second=1000.0)
    progress(picture, "generate_1/5", 70.0, 5, 10, tokens_per_second=234.0)
    picture.ends("generate_1/3", well=True)
    begin(picture, "score_1/6", 75.0, shard=[0, 4])
    lines = picture.lines(80.0, NOON, 100, 20)
    assert lines[:3] == [
        "WindFlow/7 · running for 80.0 s · 3 tasks at work",
        "iteration 1 of 3 · shards done: generate 1 of 4, score 0 of 4 · 1,234 tokens/s",
        "  expected end of the run: known after iteration 1",
    ]
    assert lines[3].startswith("generate_1/4 shard 2: work:  50%|")
    assert "| 5/10 [00:10<00:10, tokens_per_second=1000]" in lines[3]
    assert len(lines[3]) == 100
    assert lines[5] == "score_1/6 shard 1: preparing, 5.0 s"


def test_the_end_is_expected_by_the_clock_of_whole_iterations() -> None:
    """Iteration 1 lasts from 100 s to 160 s; two more from there end at 280 s, which is 110 s after 170 s."""
    picture = Picture("WindFlow/7", 90.0)
    begin(picture, "plan_1/2", 100.0)
    picture.ends("plan_1/2", well=True)
    begin(picture, "plan_2/9", 160.0, win_rate="0.600 (0.500 to 0.700) after iteration 1", seconds=10.0)
    assert picture.lines(170.0, NOON, 200, 9)[1] == (
        "iteration 2 of 3 · win rate 0.600 (0.500 to 0.700) after iteration 1 · "
        "expected end of the run at 12:01, in about 1 min 50 s"
    )


def test_where_no_whole_iteration_was_watched_its_steps_say_what_one_takes() -> None:
    """A resumed run: from `train_2` on, 30 s each; iterations 2 and 3 are to come."""
    picture = Picture("WindFlow/7", 0.0)
    begin(picture, "train_2/9", 5.0, seconds=30.0)
    progress(picture, "train_2/9", 6.0, 1, 4, loss=0.25)
    begin(picture, "plan_3/10", 50.0)
    assert picture.lines(50.0, NOON, 200, 9)[1] == (
        "iteration 3 of 3 · loss 0.25 · expected end of the run at 12:00, in about 30.0 s"
    )


def test_a_run_ends_no_sooner_than_what_its_tasks_do() -> None:
    """A resumed run: 5 s an iteration are told, and after 10 s a quarter of a task is done, so 30 s remain of it."""
    picture = Picture("WindFlow/7", 0.0)
    begin(picture, "train_3/9", 5.0, seconds=5.0)
    progress(picture, "train_3/9", 15.0, 1, 4)
    lines = picture.lines(15.0, NOON, 200, 9)
    assert lines[1] == "iteration 3 of 3 · expected end of the run at 12:00, in about 30.0 s"
    assert "[00:10<00:30]" in lines[2]
    progress(picture, "train_3/9", 20.0, 4, 4)
    assert picture.lines(20.0, NOON, 200, 9)[1].endswith("in about 0.0 s")


def test_a_resumed_run_counts_its_own_shards() -> None:
    picture = Picture("WindFlow/8", 0.0)
    picture.resumed = True
    begin(picture, "score_2/9", 1.0, shard=[2, 3])
    assert picture.lines(1.0, NOON, 200, 9)[1] == (
        "iteration 2 of 3 · shards done since it was resumed: score 0 of 3 · "
        "expected end of the run: known after iteration 2"
    )


def test_a_task_without_news_says_so() -> None:
    picture = Picture("WindFlow/7", 0.0)
    picture.starts("train_1/8", 0.0)
    assert picture.lines(3.0, NOON, 90, 9)[1] == "train_1/8: starting, 3.0 s"
    begin(picture, "train_1/8", 4.0)
    progress(picture, "train_1/8", 10.0, 1, 2)
    assert "no news" not in picture.lines(29.9, NOON, 90, 9)[-1]
    last = picture.lines(55.0, NOON, 90, 9)[-1]
    assert last.endswith(", no news for 45 s")
    assert len(last) == 90


def test_arms_of_a_comparison_stand_apart_and_too_many_tasks_are_counted() -> None:
    picture = Picture("CompareFlow/7", 0.0)
    for seed, task in enumerate(["train_1/1", "train_2/2", "train_1/3", "train_1/4"]):
        begin(picture, task, 0.0, branch=f"wind, seed {seed % 2}")
    lines = picture.lines(1.0, NOON, 100, 5)
    assert lines[1].startswith("wind, seed 0 · iteration 1 of 3 · ")
    assert lines[2].startswith("wind, seed 1 · iteration 1 of 3 · ")
    assert lines[3].startswith("train_1/1: preparing")
    assert lines[4] == "… and 3 more tasks"


def test_what_comes_too_late_and_a_task_that_failed_change_nothing() -> None:
    picture = Picture("WindFlow/7", 0.0)
    begin(picture, "score_1/6", 0.0, shard=[0, 2])
    picture.ends("score_1/6", well=False)
    progress(picture, "score_1/6", 1.0, 1, 2)
    assert picture.lines(2.0, NOON, 100, 9) == [
        "WindFlow/7 · running for 2.0 s · 0 tasks at work",
        "iteration 1 of 3 · shards done: score 0 of 2 · expected end of the run: known after iteration 1",
    ]


def test_lines_are_drawn_in_one_place_and_others_stay_above() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.draw(["a", "b"])
    screen.above("first\nhalf ")
    screen.draw(["c"])
    screen.above("a line\n")
    screen.draw(["d", "e", "f"])
    assert seen(stream) == ["first", "half a line", "d", "e", "f", ""]
    screen.above("unfinished")
    screen.close()
    assert seen(stream) == ["first", "half a line", "unfinished"]


def seen(stream: io.StringIO) -> list[str]:
    shown = Shown()
    shown.feed(stream.getvalue().replace("\n", "\r\n"))  # as a terminal's driver has it
    return shown.rows


def test_a_line_never_wraps_and_the_place_is_never_higher_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Screen, "size", os.terminal_size((10, 3)))
    stream = io.StringIO()
    Screen(stream).draw(["0123456789ABC", "b", "c", "d"])
    assert seen(stream) == ["012345678", "b", ""]


def test_a_terminal_without_some_signs_gets_question_marks() -> None:
    written = io.BytesIO()
    screen = Screen(io.TextIOWrapper(written, encoding="latin-1"))
    screen.above("é · … →\n")
    assert written.getvalue().decode("latin-1") == "é · ? ?\n"


def test_what_is_printed_meanwhile_goes_above(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    with screen.kept():
        screen.draw(["place"])
        print("kept")
        assert seen(stream) == ["kept", "place", ""]
    assert seen(stream) == ["kept", ""]
    assert capsys.readouterr().out == ""


def test_reports_are_read_whole_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(tmp_path / "reports")
    monkeypatch.setenv(REPORTS, str(tmp_path / "reports"))
    clock = iter([0.0, 0.0, 0.4, 0.6, 0.6, 0.7])  # told, and due again; too early; told; the last always
    reporter = Reporter("train_1/3", clock=lambda: next(clock))
    reporter.place(iteration=1)
    for done in (1, 2, 3, 4):
        reporter.progress("train", done, 4, float(done), {"loss": 0.5})
    with (tmp_path / "reports").open("a") as file:
        file.write('{"task": "half')
    records = reader.new()
    assert records[0] == {"task": "train_1/3", "place": {"iteration": 1}}
    assert [record["progress"] for record in records[1:]] == [
        ["train", done, 4, float(done), {"loss": 0.5}] for done in (1, 3, 4)
    ]
    with (tmp_path / "reports").open("a") as file:
        file.write('"}\n')
    assert reader.new() == [{"task": "half"}]
    assert reader.new() == []


def test_each_call_of_a_step_s_progress_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(tmp_path / "reports")
    monkeypatch.setenv(REPORTS, str(tmp_path / "reports"))
    shown = StepProgress("score", stream=io.StringIO(), interval=1e9, reporter=Reporter("score_1/2"))
    shown(2, 2, agreement=0.5)
    [record] = reader.new()
    assert record["progress"][:3] == ["score", 2, 2]
    assert record["progress"][4] == {"agreement": 0.5}


def test_bars_and_signs_of_life_are_told_from_all_else() -> None:
    log = io.StringIO()
    StepProgress("judge responses", stream=log)(3, 8, pairs_per_second=1234.5)
    now = iter([0.0, 25.0])
    heartbeat = Heartbeat("train", stream=io.StringIO(), clock=lambda: next(now))
    assert is_meter(log.getvalue())
    assert is_meter(
        "Downloading:  10%|#  | 1/10 [00:00<00:01, 5.0it/s]\rDownloading:  20%|## | 2/10 [00:00<00:01, 5.0it/s]"
    )
    assert is_sign(heartbeat.sign())
    for line in (
        "ValueError: 3 of 8 [see above]",
        "work:  45%|###  | 4/9 [00:01<00:02]Traceback (most recent call last):",
        "win rate 50% | [a]",
        "iteration 1 of 2, win rate 0.500 (0.400 to 0.600), took 5.0 s",
    ):
        assert not is_meter(line)
        assert not is_sign(line)


def test_a_slow_step_tells_of_its_parts_and_a_quick_one_does_not() -> None:
    now = [0.0]
    told = []
    within = Within(lambda done, total, **figures: told.append((now[0], done, total, figures)), 3, 5, lambda: now[0])
    for second in range(0, 26, 4):  # parts every four seconds; from ten on, one is worth a word
        now[0] = float(second)
        within.part(of_step=second / 26)
    now[0] = 26.0
    within.step(4, loss=0.5)
    now[0] = 35.0
    within.part(of_step=0.5)
    now[0] = 36.0
    within.part(of_step=0.6)
    assert told == [
        (12.0, 3, 5, {"of_step": 12 / 26}),
        (24.0, 3, 5, {"of_step": 24 / 26}),
        (26.0, 4, 5, {"loss": 0.5}),
        (36.0, 4, 5, {"loss": 0.5, "of_step": 0.6}),
    ]
