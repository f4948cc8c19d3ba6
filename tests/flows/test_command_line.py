"""Command lines that Metaflow would end in a traceback, or wait for without end: one sentence before a run begins."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import command_line
from components.config.errors import UserError
from support.flows.wind_runs import FLOW


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(command_line.VARIABLE, raising=False)
    (tmp_path / "good.yaml").write_text("demo: {}")
    (tmp_path / "sixteen.yaml").write_text("demo: {}", "utf-16")
    (tmp_path / "bytes.yaml").write_bytes(bytes(range(128, 256)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.delenv(command_line.LOCAL_ROOT, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("--config config sixteen.yaml run", ["sixteen.yaml: is not UTF-8 text"]),
        ("--config=config sixteen.yaml run", ["sixteen.yaml: is not UTF-8 text"]),
        ("--config config bytes.yaml show", ["bytes.yaml: is not UTF-8 text"]),
        ("--config config folder run", ["folder: cannot be read (Is a directory)"]),
        ("--config config none.yaml run", ["none.yaml: cannot be read (No such file"]),
        (f"--config config {'x' * 5000} run", ["File name too long"]),
        ("run --max-workers 0", ["--max-workers: 0", "Use 1 or more"]),
        ("run --max-workers=-3", ["--max-workers: -3", "Use 1 or more"]),
        (
            "--datastore-root ~nosuchuser/x run",
            ["--datastore-root: ~nosuchuser/x cannot be", "Check the path"],
        ),
        (f"--datastore-root={'x' * 300} run", ["--datastore-root: xxx", "File name too long", "Check the path"]),
        ("--datastore-root good.yaml run", ["--datastore-root: good.yaml", "Name a directory"]),
        ("--datastore-root=good.yaml/there run", ["--datastore-root: good.yaml/there", "Name a directory"]),
        ("--datastore-root /proc/nope run", ["--datastore-root: /proc/nope cannot be written", "Name a directory"]),
        (f"--datastore-root {'x' * 5000} run", ["--datastore-root: xxx", "File name too long"]),
        ("--datastore-root dangling/a run", ["--datastore-root: dangling/a cannot be written"]),
        ("run --run-id-file /nonexistent/x", ["--run-id-file: /nonexistent/x cannot be written (No such file"]),
        ("run --run-id-file=good.yaml/x", ["--run-id-file: good.yaml/x cannot be written (Not a directory)"]),
        ("run --run-id-file folder", ["--run-id-file: folder cannot be written (Is a directory)", "Name a file"]),
        ("resume --run-id-file /proc/x", ["--run-id-file: /proc/x cannot be written"]),
        (f"run --run-id-file {'x' * 5000}", ["cannot be written (File name too long)"]),
    ],
)
def test_options(here, words, parts):
    with pytest.raises(UserError) as caught:
        command_line.check(words.split())
    assert [part for part in parts if part not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("{bad", "it is not JSON"),
        ("[]", "names no files"),
        ('{"config": 3}', "names no files"),
        ('{"config": "sixteen.yaml"}', "sixteen.yaml: is not UTF-8 text"),
        ('{"config": "good.yaml", "config": "good.yaml"}', "'config' stands twice"),
    ],
)
def test_the_environment_variable(here, monkeypatch, value, part):
    monkeypatch.setenv(command_line.VARIABLE, value)
    with pytest.raises(UserError) as caught:
        command_line.check(["show"])
    assert part in str(caught.value)


@pytest.mark.parametrize("value", ["/proc/x", "/etc/passwd", "/etc/passwd/x", "good.yaml", "dangling", "x" * 5000])
def test_the_variable_of_the_datastore(here, monkeypatch, value):
    monkeypatch.setenv(command_line.LOCAL_ROOT, value)
    with pytest.raises(UserError) as caught:
        command_line.check(["run"])
    assert str(caught.value).startswith(f"METAFLOW_DATASTORE_SYSROOT_LOCAL: {value} cannot be written (")
    assert "Name a directory that can be" in str(caught.value)
    command_line.check(["--datastore-root", "folder", "run"])  # this goes before
    command_line.check(["--datastore=s3", "--metadata=service", "run"])


def test_what_is_well_passes(here, monkeypatch):
    os.mkfifo(here / "pipe")  # what comes through it is Metaflow's to read
    monkeypatch.setenv(command_line.VARIABLE, '{"config": "good.yaml"}')
    for words in (
        "run",
        "--config config good.yaml run --max-workers 1",
        "--config config pipe --datastore-root a/b run",
        "run --run-id-file id",
        "run --run-id-file good.yaml",
    ):
        command_line.check(words.split())
    monkeypatch.setenv(command_line.LOCAL_ROOT, str(here / "new" / "one"))
    before = sorted(here.iterdir())
    command_line.check(["run"])
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("--config config sixteen.yaml show", "error: sixteen.yaml: is not UTF-8 text"),
        ("--config config twice.yaml show", "seed: is given twice in one section"),
    ],
)
def test_no_traceback(here, flow_env, words, part):
    (here / "twice.yaml").write_text("demo: {}\nseed: 1\nseed: 2\n")
    command = [sys.executable, str(FLOW), "--no-pylint", *words.split()]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **flow_env}, check=False)
    assert part in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "config", "a.yaml", "run", "--max-workers", "3"], 3),
        (["run", "--max-workers=5"], 5),
        (["run", "--max-workers", "3", "--max-workers", "2"], 2),
        (["run"], 7),
        (["resume", "--origin-run-id", "1"], 16),  # Metaflow's own
        (["run", "--max-workers", "+3"], 3),
    ],
)
def test_how_many_tasks_are_at_work(monkeypatch, words, expected):
    monkeypatch.setenv("METAFLOW_RUN_MAX_WORKERS", "7")
    monkeypatch.delenv("METAFLOW_RESUME_MAX_WORKERS", raising=False)
    assert command_line.workers(words) == expected


@pytest.mark.parametrize("value", ["0", "+0", "-3", "00", " 0 ", "\u0660", "9" * 5000, "9" * 4000, "many", "1.5"])
@pytest.mark.parametrize("command", ["run", "resume"])
def test_no_number_of_tasks(here, monkeypatch, command, value):
    """By the option or the variable; the option goes before."""
    variable = f"METAFLOW_{command.upper()}_MAX_WORKERS"
    monkeypatch.setenv(variable, "2")
    with pytest.raises(UserError, match=r"^--max-workers: .{1,201} is no number of tasks\. Use 1 or more"):
        command_line.check([command, "--max-workers", value])
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=rf"^{variable}: .{{1,201}} is no number of tasks\. Use 1 or more"):
        command_line.check([command])
    command_line.check([command, "--max-workers", "2"])
    command_line.check(["show"])  # starts none
