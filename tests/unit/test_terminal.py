"""What all commands have in common: Ctrl-C, options twice or cut short, and text that would control a terminal."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components import cli
from components.config.errors import UserError
from components.runtime.terminal import Parser, plain_errors, visible
from support.dripping_server import dripping
from support.flows.signals import HEARING

ROOT = Path(__file__).parents[2]
WIND = [*HEARING, sys.executable, "-c", "from components.cli import main; main()"]


def started(*words: str, cwd: Path, path: Path = ROOT) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*WIND, *words], cwd=cwd, env=env, stdout=-1, stderr=-1, text=True)


@pytest.mark.parametrize("concurrency", [1, 3])
def test_ctrl_c_while_a_judge_is_asked(tmp_path: Path, concurrency: int) -> None:
    """It says what it waits for, and ends at once with one line and the status of shells."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}))
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" ", every=0.05) as (address, _):
        settings = {"name": "http", "url": address, "timeout": 600.0, "concurrency": concurrency}
        (tmp_path / "judge.yaml").write_text(json.dumps({"judge": settings}))
        with started("judge", "judge.yaml", str(pairs), cwd=tmp_path) as process:
            assert process.stderr and process.stderr.readline() == "checking the judge http …\n"
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert process.stderr.read() == "interrupted\n"


@pytest.mark.parametrize(("command", "slow"), [("plan", "pydantic"), ("run", "yaml")])
def test_ctrl_c_while_a_command_imports(tmp_path: Path, command: str, slow: str) -> None:
    (tmp_path / f"{slow}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    with started(command, "config.yaml", cwd=tmp_path, path=tmp_path) as process:
        assert process.stdout and process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr and process.stderr.read() == "interrupted\n"


@pytest.mark.parametrize("module", [module for module, _ in cli.COMMANDS.values()])
def test_ctrl_c_ends_every_command_alike(module: str, monkeypatch, capsys) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    main = importlib.import_module(module).main
    monkeypatch.setattr(Parser, "parse_known_args", interrupted)
    with pytest.raises(SystemExit) as caught:
        main(["x"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_command_is_started_with_ctrl_c_kept_back(monkeypatch) -> None:
    """Until the flow's own `main` is there; where it cannot be started, it is as before."""

    def fails(*_: object) -> None:
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        raise OSError("no such program")

    monkeypatch.setattr(cli.os, "execv", fails)
    with pytest.raises(OSError, match="no such program"):
        cli.main(["flow", "bandit", "show"])
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize(
    ("words", "listed"),
    [([], [*cli.COMMANDS, *cli.FLOWS]), (["store"], ["verify", "gc"]), (["flow"], ["{bandit,compare,wind}"])],
)
def test_a_command_without_a_word_lists_what_there_is(words: list[str], listed: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert [name for name in listed if f"  {name}" not in said] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--config", "a.yaml", "--config=b.yaml"], "argument --config: is given twice. Give it once."),
        (["create", "--config=a.yaml", "--config", "b.yaml"], "argument --config: is given twice. Give it once."),
        (["plan", "a.yaml", "--gpu", "H100", "--gpu", "A100"], "argument --gpu: is given twice. Give it once."),
        (["export", "F/1", "--push", "a/b", "--push=c/d"], "argument --push: is given twice. Give it once."),
        (["samples", "F/1", "--prompts", "1", "--prompts", "1"], "argument --prompts: is given twice."),
        (["store", "gc", "--older-than", "1d", "--older-than", "2d"], "argument --older-than: is given twice."),
        (["store", "ls", "--root", "a", "--root", "b"], "argument --root: is given twice."),
        (["benchmark", "ifbench", "m", "--out", "a", "--out", "b"], "argument --out: is given twice."),
        (["plan", "a.yaml", "--hist", "h.csv"], "unrecognized arguments: --hist h.csv"),
        (["export", "F/1", "--priv"], "unrecognized arguments: --priv"),
        (["store", "gc", "--older-than", "1d", "--del"], "unrecognized arguments: --del"),
        (["schema", "--mark"], "unrecognized arguments: --mark"),
        (["plan", "s3://bucket/a.yaml"], "argument CONFIG: s3://bucket/a.yaml is an address, and a path on this"),
        (["export", "F/1", "s3://bucket/x"], "argument DIR: s3://bucket/x is an address"),
        (["samples", "F/1", ""], "argument OUT.html: is empty. Name a path."),
    ],
)
def test_options_are_neither_guessed_nor_dropped(words: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_a_parser_can_be_used_again() -> None:
    parser = Parser()
    parser.add_argument("--price", type=float)
    assert [parser.parse_args(["--price", text]).price for text in ("1", "2")] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b[31mred", "\\x1b[2J\\x1b[31mred"),
        ("over\rwritten\x07\x00\x7f\x9b", "over\\rwritten\\x07\\x00\\x7f\\x9b"),
        ("\u202etxt.exe\u2066\u2069\u200e", "\\u202etxt.exe\\u2066\\u2069\\u200e"),
        ("\ufeffa\u200bb\u2028c\u2029", "\\ufeffa\\u200bb\\u2028c\\u2029"),
        ("\ud800 \U000e0041", "\\ud800 \\U000e0041"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("naïve · ½ → 日本語\u00a0😀 👩\u200d🔬 می\u200cخواهم", "naïve · ½ → 日本語\u00a0😀 👩\u200d🔬 می\u200cخواهم"),
    ],
)
def test_what_would_control_a_terminal_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_errors_are_shown_so_too(capsys) -> None:
    with pytest.raises(SystemExit) as caught, plain_errors():
        raise UserError("prompts.jsonl:3: \x1b]0;title\x07 is no prompt.")
    assert caught.value.code == "error: prompts.jsonl:3: \\x1b]0;title\\x07 is no prompt."
