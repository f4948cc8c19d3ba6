"""Command lines and names of models that nothing can be done with end in one sentence with the remedy."""

from __future__ import annotations

import pytest

from components import export
from components.comparison import __main__ as comparison
from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.plan import __main__ as plan
from components.policy.sources import locate
from components.store import __main__ as store

CONFIG = 'policy: {model: /none}\nprompts: {train: p.jsonl}\njudge: {name: verifier, function: "a:b"}\n'
NUMBERS = ("nan", "inf", "-1", "0", "1e300", "many", "", "1e400")
DIGITS = "9" * 5000


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """`said(main, words)`: what a command line says as it fails; it runs where own.yaml and the file `taken` lie."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(CONFIG)
    (tmp_path / "taken").write_text("")

    def run(main, *words):
        with pytest.raises(SystemExit) as caught:
            main(list(words))
        assert caught.value.code not in (0, None)
        code = caught.value.code
        return code if isinstance(code, str) else capsys.readouterr().err

    return run


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("option", ["--price", "--prompt-tokens", "--response-tokens"])
def test_plan_takes_numbers_above_0(said, option, number):
    message = said(plan.main, "own.yaml", "--parameters", "1e9", f"{option}={number}")
    assert f"argument {option}: {number!r} is no number from 1e-09 to 1e+15. Write it as in 0.5 or 8.0e9" in message


@pytest.mark.parametrize("number", NUMBERS)
def test_plan_takes_sizes_above_0(said, number):
    message = said(plan.main, "own.yaml", "--parameters", f"/none={number}")
    said_of = f"error: --parameters /none={number}: {number!r}"
    assert message == f"{said_of} is no number from 1e-09 to 1e+15. Write it as in 0.5 or 8.0e9."


@pytest.mark.parametrize(
    ("main", "words", "part"),
    [
        (store.main, ["gc", "--older-than", "9" * 400 + "d"], "is not an age such as 12h, 30d or 4w"),
        (store.main, ["gc", "--older-than", DIGITS + "w"], "is not an age"),
        (store.main, ["gc", "--older-than", "٣d"], "is not an age"),
        (store.main, ["ls", "--root", "taken"], "error: --root taken: is no directory"),
        (store.main, ["du", "--root", ""], "error: --root : is no directory"),
        (store.main, ["du", "--root", "none"], "error: --root none: is no directory"),
        (store.main, ["ls", "--root", "x" * 5000], "is no directory"),
        (export.main, ["WindFlow/1", "--iteration", "²"], "neither a number of `history` nor `last`"),
        (export.main, ["WindFlow/1", "--iteration", DIGITS], "neither a number of `history` nor `last`"),
        (export.main, ["a/b/c"], "does not name a run"),
        (comparison.main, [""], "does not name a run"),
    ],
)
def test_other_commands(said, main, words, part):
    assert part in said(main, *words)


def test_a_directory_that_cannot_be_made(said, monkeypatch):
    """The run is found, and a file stands where its results should go."""

    def write(*_, **__):
        raise NotADirectoryError(20, "Not a directory")

    monkeypatch.setattr(export.command, "export", write)
    message = "error: taken/x: cannot be written (Not a directory). Name another directory."
    assert said(export.main, "WindFlow/1", "taken/x") == message


@pytest.mark.parametrize(
    ("model", "part"),
    [
        ("x" * 5000, "cannot be looked up (File name too long)"),
        ("~nobody-of-this-name/model", "cannot be looked up (Could not determine home directory"),
        ("package:__main__", "__main__"),
        ("package:", "names no package"),
        ("package:a.b", "names no package"),
    ],
)
def test_names_of_models(model, part):
    with pytest.raises(PolicyError) as caught:
        locate(PolicyConfig(model=model), "judge")
    assert str(caught.value).startswith("judge.model: ")
    assert part in str(caught.value)
    assert len(str(caught.value)) < 400
