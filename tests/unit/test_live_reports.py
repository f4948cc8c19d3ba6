"""What tasks tell the terminal while files fail, and how large the terminal is."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import termios
from pathlib import Path

import pytest

from components.runtime.reports import REPORTS, Reader, Reporter
from components.runtime.screen import Screen


def test_what_a_full_disk_cut_off_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(tmp_path / "reports")
    monkeypatch.setenv(REPORTS, str(tmp_path / "reports"))
    reporter = Reporter("train_1/3")
    reporter.place(iteration=1)
    with (tmp_path / "reports").open("ab") as file:
        file.write(b'{"task": "train_1/3", "pla\n\xff\n[1]\n')
    reporter.place(iteration=2)
    assert [record["place"]["iteration"] for record in reader.new()] == [1, 2]
    (tmp_path / "reports").unlink()
    assert reader.new() == []


def test_nobody_reads_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REPORTS, raising=False)
    assert not Reporter("train_1/3").is_read
    monkeypatch.setenv(REPORTS, str(tmp_path / "gone" / "reports"))
    Reporter("train_1/3").place(iteration=1)  # the terminal is gone, and the task goes on
    assert list(tmp_path.iterdir()) == []


def test_what_tasks_say_cannot_control_the_terminal() -> None:
    stream = io.StringIO()
    Screen(stream).draw(["arm \x1b[2J\u202e\r: 1"])
    assert stream.getvalue() == "arm \\x1b[2J\\u202e\\r: 1\n"


@pytest.mark.parametrize(
    ("line", "fit"),
    [("排序数字列表", "排序数字"), ("e\u0301" * 10, "e\u0301" * 9), ("a\tbc", "a       b"), ("🙂🙂🙂🙂🙂", "🙂🙂🙂🙂")],
)
def test_wide_signs_take_two_columns_and_joined_ones_none(monkeypatch: pytest.MonkeyPatch, line: str, fit: str) -> None:
    monkeypatch.setattr(Screen, "size", os.terminal_size((10, 3)))
    stream = io.StringIO()
    Screen(stream).draw([line])
    assert stream.getvalue() == f"{fit}\n"


def test_a_terminal_s_own_size_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
        with os.fdopen(theirs, "w", closefd=False) as stream:
            assert Screen(stream).size == (60, 30)
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 40, 0, 0))
            assert Screen(stream).size == (40, 20)
    finally:
        os.close(ours)
        os.close(theirs)
