"""A judge's function in pods: unpacked elsewhere, the files that go along are all that it needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import shipping
from base import BadConfig
from components.run_config import parse

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]
FILES = {
    "judges/one.py": "import beside\nfrom .also import ALSO\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
    "def score(response, prompt):\n    import rules.words\n    lines = open('lists/here.txt').read().split()\n"
    "    extra = sum(len(path.read_text()) for path in Path('extra').iterdir())\n"
    "    return beside.ONE + ALSO + rules.words.count(response) + (response in lines) + extra\n",
    "judges/beside.py": "ONE = 100\n",
    "judges/also.py": "from pathlib import Path\nHERE = Path(__file__).parent\n"
    "ALSO = int((HERE / 'tables' / 'also.txt').read_text())",
    "judges/tables/also.txt": "1000",
    "judges/rules/__init__.py": "",
    "judges/rules/words.py": "import os\nPLACE = os.path.join(os.path.dirname(__file__), 'words.txt')\n"
    "def count(response):\n    return open(PLACE).read().split().count(response)\n",
    "judges/rules/words.txt": "a a b",
    "judges/unused.py": "",
    "judges/big.bin": "",
    "lists/here.txt": "b",
    "lists/other.txt": "",
    "extra/x.txt": "12345",
    "json.py": "def score(response, prompt):\n    return 1\n",
    "test/__init__.py": "",
    "test/judge.py": "def score(response, prompt):\n    return 1\n",
    "broken.py": "import helper_broken\n",
    "helper_broken.py": "1 +",
}
SCORES = (
    "import sys, warnings; warnings.simplefilter('ignore'); "
    "from components.judges.verifier import Verifier; from components.data.records import Prompt; "
    "judge = Verifier(function=sys.argv[1]); judge.check(); "
    "print(judge.judge([Prompt('p', ({'role': 'user', 'content': '?'},))], [['a', 'b']]).reward[0].tolist())"
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    home = tmp_path / "home"
    for name, text in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    monkeypatch.chdir(home)
    return home


def files(function, **judge):
    values = {"policy": {"model": "some/model"}, "prompts": {"train": "some/dataset"}}
    config = {**values, "judge": {"name": "verifier", "function": function, **judge}}
    return shipping.files(parse(yaml.safe_dump(config)))


def scores(function, folder):
    command = [sys.executable, "-c", SCORES, function]
    ended = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=120
    )
    return ended.stdout.strip() or ended.stderr


def test_a_judge_scores_in_a_pod_as_here(place, tmp_path):
    """Of response b: 100 + 1000 + once in the words + in the list + five characters."""
    found = files("judges/one.py:score", files=["extra"])
    assert found.keys() == {
        *("judges/one.py", "judges/beside.py", "judges/also.py", "judges/tables/also.txt", "judges/rules/__init__.py"),
        *("judges/rules/words.py", "judges/rules/words.txt", "lists/here.txt", "extra/x.txt"),
    }
    for name, path in found.items():
        (tmp_path / "pod" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "pod" / name)
    assert scores("judges/one.py:score", place) == "[1107.0, 1107.0]"  # a: twice in the words, not in the list
    assert scores("judges/one.py:score", tmp_path / "pod") == "[1107.0, 1107.0]"


@pytest.mark.parametrize(
    ("function", "file", "other"),
    [
        ("json:score", "json.py", "the standard library's json"),
        ("json.py:score", "json.py", "the standard library's json"),
        ("test.judge:score", "test/__init__.py", "the standard library's test"),
    ],
)
def test_a_module_that_would_stand_in_for_another_in_pods_is_refused(place, function, file, other):
    assert scores(function, place) == "[1.0, 1.0]"  # here it does not
    with pytest.raises(BadConfig) as caught:
        files(function)
    assert str(caught.value) == (
        f"judge.function: {file} would stand before {other} in pods. "
        f"Rename yours, or put it into a folder, such as judges/{file}."
    )


def test_a_name_of_another_module_in_a_folder_is_fine(place):
    assert files("test/judge.py:score").keys() == {"test/judge.py"}


def test_what_is_no_python_is_refused(place):
    with pytest.raises(BadConfig, match=r"^judge\.function: /.*helper_broken\.py is no Python"):
        files("broken.py:score")


def test_files_from_elsewhere_are_refused(place, tmp_path):
    (tmp_path / "secret.txt").write_text("")
    with pytest.raises(BadConfig, match=r"^judge\.files: \.\./secret\.txt lies on this machine"):
        files("judges/one.py:score", files=["../secret.txt"])


def test_members_of_an_ensemble_bring_their_own(place):
    members = [{"name": "verifier", "function": "judges/beside.py:ONE", "files": ["extra/x.txt"]}]
    values = {"policy": {"model": "m/m"}, "prompts": {"train": "d/d"}, "judge": {"name": "ensemble", "judges": members}}
    assert shipping.files(parse(yaml.safe_dump(values))).keys() == {"judges/beside.py", "extra/x.txt"}
