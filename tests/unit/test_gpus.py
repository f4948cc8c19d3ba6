"""GPUs are claimed one process each; the names stand for GPUs, which the claims never touch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from components.config.errors import ConfigError
from components.runtime import gpus

HOLD = """
import os, sys
from pathlib import Path
from components.runtime import gpus
gpus.LOCKS = Path(sys.argv[1])
with gpus.claim(["4", "5", "6"], int(sys.argv[2]), lambda text: print(text, flush=True)):
    print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def locks(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "LOCKS", tmp_path)
    monkeypatch.setattr(gpus, "PAUSE", 0.02)
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    return tmp_path


@pytest.fixture
def hold(locks):
    """`hold(count)`: another task that claims so many of three GPUs; it says which, or that it waits."""
    started = []

    def start(count):
        command = [sys.executable, "-c", HOLD, str(locks), str(count)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


def said(process):
    return process.stdout.readline().strip()


def test_tasks_side_by_side_get_different_gpus(hold):
    assert [said(hold(1)), said(hold(2))] == ["4", "5,6"]


def test_who_finds_too_few_waits_without_holding_any(hold, locks):
    first = hold(1)
    assert said(first) == "4"
    second = hold(3)
    assert said(second) == "Waits until 3 of 3 GPUs are free of other tasks."
    third = hold(2)
    assert said(third) == "5,6"
    for process in (first, third):
        process.stdin.close()
    assert said(second) == "4,5,6"


def test_a_killed_task_lets_go(hold):
    first = hold(3)
    assert said(first) == "4,5,6"
    second = hold(1)
    assert said(second).startswith("Waits until 1 of 3")
    first.send_signal(signal.SIGKILL)
    assert said(second) == "4"


def test_the_variable_is_as_before_afterwards(locks, monkeypatch):
    with gpus.claim(["1", "2"], 1):
        assert os.environ[gpus.VISIBLE] == "1"
    assert gpus.VISIBLE not in os.environ
    monkeypatch.setenv(gpus.VISIBLE, "MIG-a/b,2")
    with pytest.raises(KeyError), gpus.claim(["MIG-a/b", "2"], 2):
        assert os.environ[gpus.VISIBLE] == "MIG-a/b,2"
        raise KeyError
    assert os.environ[gpus.VISIBLE] == "MIG-a/b,2"


def test_without_gpus_there_is_nothing_to_claim(locks):
    with gpus.claim([], 4):
        assert gpus.VISIBLE not in os.environ


def test_more_than_there_are(locks):
    with pytest.raises(ConfigError, match="asks for 3 GPUs, and this machine shows 2"), gpus.claim(["0", "1"], 3):
        pass


@pytest.mark.parametrize(("given", "names"), [(None, ["0", "1"]), ("3, 1", ["3", "1"]), ("3,1,-1,0", ["3", "1"])])
def test_names_are_those_of_the_variable(locks, monkeypatch, given, names):
    """CUDA counts the entries up to the first that names no GPU."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    if given is not None:
        monkeypatch.setenv(gpus.VISIBLE, given)
    assert gpus.visible() == names


def test_the_locks_are_closed_to_others(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "LOCKS", tmp_path / "locks")
    with gpus.claim(["a/b"], 1):
        assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "locks" / "a-b").stat().st_mode & 0o777 == 0o600


def test_a_folder_that_an_earlier_version_left_open_is_closed(locks):
    locks.chmod(0o777)
    with gpus.claim(["0"], 1):
        assert locks.stat().st_mode & 0o777 == 0o700


def test_a_lock_changes_no_file(locks):
    (locks / "0").write_text("kept")
    with gpus.claim(["0"], 1):
        assert (locks / "0").read_text() == "kept"


def link_in_place_of_a_lock(locks, elsewhere):
    (locks / "0").symlink_to(elsewhere)


def link_to_what_is_not_there(locks, elsewhere):
    (locks / "0").symlink_to(elsewhere.parent / "new")


def folder_in_place_of_a_lock(locks, elsewhere):
    (locks / "0").mkdir()


def link_in_place_of_the_folder(locks, elsewhere):
    locks.rmdir()
    locks.symlink_to(elsewhere.parent)


def file_in_place_of_the_folder(locks, elsewhere):
    locks.rmdir()
    locks.write_text("")


@pytest.mark.parametrize(
    "trap",
    [
        link_in_place_of_a_lock,
        link_to_what_is_not_there,
        folder_in_place_of_a_lock,
        link_in_place_of_the_folder,
        file_in_place_of_the_folder,
    ],
)
def test_traps_are_refused(locks, tmp_path_factory, trap):
    elsewhere = tmp_path_factory.mktemp("victim") / "file"
    elsewhere.write_text("kept")
    trap(locks, elsewhere)
    with pytest.raises(ConfigError, match=r"cannot hold the locks of GPUs .* set TMPDIR"), gpus.claim(["0"], 1):
        pass
    assert {path.name: path.read_text() for path in elsewhere.parent.iterdir()} == {"file": "kept"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_another_users_folder_is_refused(locks):
    os.chown(locks, 65534, -1)
    with pytest.raises(ConfigError, match="belongs to another user"), gpus.claim(["0"], 1):
        pass
