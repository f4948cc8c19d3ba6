"""Where a judge's function lies: beside what it imports, under any name, and in nobody's way."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges.verifier import Verifier

PROMPT = Prompt("p", ({"role": "user", "content": "?"},), "ab")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Writes files into the working directory, whose modules are forgotten afterwards."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(Path.cwd()))])
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "") or sys.modules[name].__spec__):
            del sys.modules[name]


def score(function, *responses):
    judge = Verifier(function=function)
    judge.check()
    return judge.judge([PROMPT], [list(responses)]).reward[0].tolist()


USES = "import {name}\ndef score(response, prompt):\n    return {name}.points(response)\n"
POINTS = "def points(response):\n    return {factor} * len(response)\n"


@pytest.mark.parametrize("function", ["judges/one.py:score", "{here}/judges/one.py:score"])
def test_a_module_beside_the_file(place, function):
    here = place(judges__one=USES.format(name="helper_beside"), judges__helper_beside=POINTS.format(factor=3))
    assert score(function.format(here=here), "a", "abc") == [3, 9]


@pytest.mark.parametrize(
    "line",
    [
        "import helper_lazy",
        "from importlib import import_module; helper_lazy = import_module('helper_lazy')",
        "from . import helper_lazy",
        "from .helper_lazy import points; helper_lazy = __import__('types').SimpleNamespace(points=points)",
    ],
)
def test_a_module_that_is_imported_in_the_function(place, line):
    body = f"def score(response, prompt):\n    {line}\n    return helper_lazy.points(response)\n"
    place(judges__lazy=body, judges__helper_lazy=POINTS.format(factor=2))
    assert score("judges/lazy.py:score", "a", "abc") == [2, 6]


def test_packages_beside_the_file_and_what_they_import(place):
    place(
        judges__one="from rules_here.deep import points\nscore = lambda response, prompt: points(response)",
        judges__rules_here____init__="",
        judges__rules_here__deep="import helper_of_rules\nfrom .other import FACTOR\n"
        "def points(response):\n    return FACTOR * helper_of_rules.ONE * len(response)",
        judges__rules_here__other="FACTOR = 5",
        judges__helper_of_rules="ONE = 1",
    )
    assert score("judges/one.py:score", "a", "ab") == [5, 10]


def test_a_package_of_the_working_directory_is_loaded_once(place):
    """Its own name and relative imports give the same modules."""
    place(
        own_rules__judge="from .registry import SEEN\nimport own_rules.plug\n"
        "def score(response, prompt):\n    return len(SEEN)",
        own_rules__plug="from own_rules.registry import SEEN\nSEEN.append(1)",
        own_rules__registry="SEEN = []",
    )
    assert score("own_rules.judge:score", "a") == [1]


@pytest.mark.parametrize("name", ["test", "code", "json", "torch", "calendar", "numpy", "loop", "helpers"])
@pytest.mark.parametrize("form", ["{name}:score", "{name}.py:score", "{name}.judge:score"])
def test_names_of_other_modules(place, name, form):
    """The user's own is taken, and the others stay what they are."""
    text = "import json, torch\ndef score(response, prompt):\n    return json.loads('7') * torch.ones(1).item()"
    place(**({f"{name}__judge": text} if "judge" in form else {name: text}))
    before = sys.modules.get(name)
    assert score(form.format(name=name), "a") == [7]
    if name not in ("helpers", "loop") or "judge" not in form:  # packages of names that are free here are no secret
        assert sys.modules.get(name) is before
    assert json.loads("1") == 1 and torch.ones(1).item() == 1
    assert importlib.import_module("calendar").__file__ == find_spec("calendar").origin


def test_nobody_else_finds_what_lies_beside_a_judge(place):
    """Not even an optional package that is not installed, for which libraries look."""
    place(judges__one="def score(response, prompt):\n    return 1", judges__flash_attention_of_mine="")
    assert score("judges/one.py:score", "a") == [1]
    assert find_spec("flash_attention_of_mine") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("flash_attention_of_mine")


def test_an_environment_in_the_working_directory_finds_nothing_of_the_users(place, monkeypatch):
    """As a library does that looks for an optional package, and there is a folder of its name."""
    site = ".venv/lib/python3.11/site-packages"
    here = place(
        one="import library_that_looks\nscore = lambda response, prompt: library_that_looks.found()",
        **{f"{site}/library_that_looks": "from importlib.util import find_spec\ndef found():\n"
           "    try:\n        import optional_here\n    except ImportError:\n"
           "        return find_spec('optional_here') is not None\n    return 1"},
        optional_here__run="",
    )  # fmt: skip
    monkeypatch.setattr(sys, "path", [*sys.path, str(here / site)])
    assert score("one:score", "a") == [0]


def test_an_installed_module_comes_before_one_beside_the_judge(place, caplog):
    place(
        judges__one="import json\ndef score(response, prompt):\n    return json.loads('3')", judges__json="loads = None"
    )
    with caplog.at_level(logging.WARNING, "components.judges"):
        assert score("judges/one.py:score", "a") == [3]
    (record,) = caplog.records
    assert "`import json` gives the standard library's json, and not" in record.getMessage()
    assert record.getMessage().endswith("judges/json.py. Rename yours if that was meant.")


def test_two_judges_with_helpers_of_one_name(place):
    """Python has one module of a name: the second judge is refused and not given the first one's."""
    for folder, factor in (("a", 1), ("b", 2)):
        place(
            **{
                f"{folder}__judge": USES.format(name="helper_twice"),
                f"{folder}__helper_twice": POINTS.format(factor=factor),
            }
        )
    assert score("a/judge.py:score", "abc") == [3]
    with pytest.raises(JudgeError, match=r"b/judge\.py imports 'helper_twice' .*a/helper_twice\.py\. Rename yours\.$"):
        score("b/judge.py:score", "abc")
    place(b__judge=USES.format(name="helper_twice").replace("import", "from . import", 1))
    assert score("b/judge.py:score", "abc") == [6]  # in the folder's own name there is no other


def test_two_judges_of_one_file_name(place):
    place(a__judge="def score(response, prompt):\n    return 1", b__judge="def score(response, prompt):\n    return 2")
    assert score("a/judge.py:score", "x") == [1]
    assert score("b/judge.py:score", "x") == [2]


@pytest.mark.parametrize("file", ["my-judge.py", "judge.v2.py", "2nd.py", "ju dge.py"])
def test_file_names_that_no_import_could_write(place, file):
    (place() / file).write_text("def score(response, prompt):\n    return 4")
    assert score(f"{file}:score", "x") == [4]


def test_data_beside_the_file_and_from_the_working_directory(place):
    text = (
        "from pathlib import Path\nBESIDE = Path(__file__).with_name('words.txt').read_text().split()\n"
        "def score(response, prompt):\n    return (response in BESIDE) + 2 * (response in open('here.txt').read())"
    )
    here = place(judges__one=text)
    (here / "judges" / "words.txt").write_text("a b")
    (here / "here.txt").write_text("b c")
    with pytest.warns(ResourceWarning):
        assert score("judges/one.py:score", "a", "b", "c", "d") == [1, 3, 2, 0]


def test_data_that_is_not_there(place):
    """At import or in a call: the error stays what it is and says how paths are meant."""
    here = place(
        judges__one="WORDS = open('words.txt')\ndef score(response, prompt):\n    return 1",
        judges__two="def score(response, prompt):\n    return open('words.txt')",
    )
    (here / "judges" / "words.txt").write_text("")
    for function in ("judges/one.py:score", "judges/two.py:score"):
        with pytest.raises(FileNotFoundError, match=r"words\.txt") as caught:
            score(function, "a")
        assert f"Relative paths start at the working directory ({here}); Path(__file__).with_name" in "".join(
            caught.value.__notes__
        )
    with pytest.raises(JudgeError, match=r"^judge\.files: there is no /.*/absent\. Correct the path\.$"):
        Verifier(function="components.demo:score", files=["judges/words.txt", "judges", "absent"]).check()


@pytest.mark.parametrize("function", ["script:score", "script.py:score"])
def test_a_script_that_exits_when_it_is_imported(place, function):
    place(script="import sys\ndef score(response, prompt):\n    return 1\nsys.exit(3)")
    with pytest.raises(
        JudgeError, match=r"^judge\.function: script.* called sys\.exit\(3\) when it was imported\. Put"
    ):
        score(function, "a")


def test_a_function_that_goes_elsewhere_does_not_take_the_run_along(place):
    here = place(
        judges__one="import os\nos.chdir('/')\ndef score(response, prompt):\n    os.chdir('/tmp')\n    return 1"
    )
    assert score("judges/one.py:score", "a") == [1]
    assert Path.cwd() == here


def test_a_package_with_the_name_of_this_projects(place):
    place(components__mine="def score(response, prompt):\n    return 6")
    with pytest.raises(JudgeError, match=r"the package components is this project's own\. Write 'components/mine\.py:"):
        score("components.mine:score", "a")
    assert score("components/mine.py:score", "a") == [6]


def test_text_that_python_only_warns_of(place):
    place(judges__one="import helper_warned\nscore = helper_warned.score",
          judges__helper_warned='def score(response, prompt):\n    return response == "\\d"')  # fmt: skip
    with pytest.warns(DeprecationWarning, match="invalid escape sequence"):
        assert score("judges/one.py:score", "\\d", "d") == [1, 0]


def test_what_is_no_python(place):
    place(judges__one="import helper_broken\ndef score(response, prompt):\n    return 1", judges__helper_broken="1 +")
    with pytest.raises(JudgeError, match=r"^judge\.function: /.*helper_broken\.py is no Python \(invalid syntax"):
        score("judges/one.py:score", "a")


@pytest.mark.parametrize("deep", ["+".join(20_000 * "1"), 20_000 * "-" + "1"])  # a RecursionError and a MemoryError
def test_what_is_too_deep_for_python(place, deep):
    place(judges__one="from helper_deep import score", judges__helper_deep=f"score = {deep}")
    with pytest.raises(JudgeError, match=r"^judge\.function: /.*helper_deep\.py nests an expression too deeply"):
        score("judges/one.py:score", "a")
