"""What of this machine a config names: it goes along to pods, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import shipping
from base import BadConfig
from components.run_config import parse

pytestmark = pytest.mark.thorough

OWN = {"policy": {"model": "some/model"}, "prompts": {"train": "some/dataset"}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with prompts, judges and what they import."""
    for name, text in {
        "data/train.jsonl": "{}",
        "my_judge.py": "import json, helper, absent\nfrom tools.deep import score\nfrom components import demo\n",
        "helper.py": "import my_judge\n",
        "unused.py": "",
        "tools/__init__.py": "",
        "tools/deep.py": "import other\nscore = other.score\n",
        "other.py": "",
        "judges/one.py": "def score(response, prompt):\n    return 1\n",
        "tasks/own.yaml": "task: own",
        "tasks/deep/more.yaml": "",
        "models/llama/config.json": "{}",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(judge="my_judge:score", *, begins=True, **changes):
    values = {**OWN, "judge": {"name": "verifier", "function": judge}, **changes}
    return shipping.files(parse(yaml.safe_dump(values)), begins=begins)


@pytest.mark.parametrize(
    ("judge", "names"),
    [
        ("my_judge:score", {"my_judge.py", "helper.py", "tools/__init__.py", "tools/deep.py", "other.py"}),
        ("tools.deep:score", {"tools/__init__.py", "tools/deep.py", "other.py"}),
        ("judges/one.py:score", {"judges/one.py"}),
        ("components.demo:score", set()),
        ("installed.somewhere:score", set()),
    ],
)
def test_a_judge_goes_along_with_what_it_imports_beside_it(place, judge, names):
    found = files(judge)
    assert found == {name: place / name for name in names}


@pytest.mark.parametrize(
    "text",
    [
        "if True:\n    def score(response, prompt):\n        return 1\n",
        "class score: ...\n",
        "first, score = print, len\n",
        "def define():\n    global score\n    score = len\ndefine()\n",
        "from other import rate as score\n",
        "from other import *\n",
        "def __getattr__(name):\n    return len\n",
        "globals()['sco' + 're'] = len\n",
    ],
)
def test_a_function_may_be_defined_in_any_way(place, text):
    (place / "judges" / "two.py").write_text(text)
    assert "judges/two.py" in files("judges/two.py:score")


def test_a_method_is_no_function_of_the_module(place):
    (place / "judges" / "two.py").write_text("class Judge:\n    def score(self, response, prompt):\n        return 1\n")
    with pytest.raises(BadConfig, match=r"^judge\.function: judges/two\.py has no 'score'"):
        files("judges/two.py:score")


def test_a_file_of_the_image_or_of_a_volume_is_not_looked_at(place):
    assert files("/gone/judge.py:score") == {}
    assert files(f"{place}/judges/one.py:nofunc", cluster={"volumes": {"claim": str(place)}}) == {}


def test_prompts_and_task_files_go_along(place):
    prompts, evaluation = {"train": "data/train.jsonl", "evaluation": "./data/train.jsonl"}, {"tasks_path": "tasks"}
    expected = {name: place / name for name in ("data/train.jsonl", "tasks/own.yaml", "tasks/deep/more.yaml")}
    assert files("judges/one.py:score", prompts=prompts, evaluation=evaluation) == {
        **expected,
        "judges/one.py": place / "judges/one.py",
    }
    assert list(files("judges/one.py:score", begins=False, prompts={"train": "gone.jsonl"})) == ["judges/one.py"]


def test_each_prompt_file_of_a_list_or_pattern_goes_along(place):
    for name in ("data/more.jsonl.gz", "data/deep/x.jsonl", "sets/hub/train.csv"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    prompts = {"train": ["data/*.jsonl*", "some/dataset", "sets/h*"], "evaluation": "data/**/x.jsonl"}
    names = {"data/train.jsonl", "data/more.jsonl.gz", "sets/hub/train.csv", "data/deep/x.jsonl", "judges/one.py"}
    assert files("judges/one.py:score", prompts=prompts) == {name: place / name for name in names}
    mounted = {"train": "/mounted/*.jsonl", "evaluation": ["/mounted/a/b.jsonl"]}
    cluster = {"volumes": {"claim": "/mounted"}}
    assert list(files("judges/one.py:score", prompts=mounted, cluster=cluster)) == ["judges/one.py"]


@pytest.mark.parametrize(
    ("changes", "key", "remedy"),
    [
        ({"prompts": {"train": ["data/train.jsonl", "gone.jsonl.gz"]}}, "prompts.train", "there is no such file here"),
        ({"prompts": {"train": "some/data", "evaluation": "gone/*.jsonl"}}, "prompts.evaluation", "no such file here"),
        ({"prompts": {"train": ["data/*.jsonl", "../*.jsonl"]}}, "prompts.train", None),
        ({"policy": {"model": "models/llama"}}, "policy.model", "Name a hub id, or mount a volume"),
        ({"prompts": {"train": "gone.jsonl"}}, "prompts.train", "there is no such file here"),
        ({"prompts": {"train": "some/data", "evaluation": "../data.jsonl"}}, "prompts.evaluation", None),
        ({"judge": {"name": "reward_model", "model": "models/llama"}}, "judge.model", "Name a hub id"),
        ({"judge": {"name": "verifier", "function": "loop:score"}}, "judge.function", "Rename yours"),
        ({"judge": {"name": "verifier", "function": "judges/missing.py:score"}}, "judge.function", "no file"),
        ({"judge": {"name": "verifier", "function": "judges/one.py:nofunc"}}, "judge.function", "has no 'nofunc'"),
        ({"judge": {"name": "verifier", "function": "tools.deep:nofunc"}}, "judge.function", "has no 'nofunc'"),
        ({"judge": {"name": "verifier", "function": "other.py:score"}}, "judge.function", "has no 'score'"),
        (
            {"judge": {"name": "verifier", "function": "json:loads", "files": ["gone"]}},
            "judge.files",
            "no such file here",
        ),
        ({"evaluation": {"tasks_path": "gone"}}, "evaluation.tasks_path", "no such file here"),
    ],
)
def test_what_pods_would_not_find_is_refused(place, changes, key, remedy):
    (place.parent / "data.jsonl").write_text("{}")
    (place / "loop.py").write_text("from judges.one import *")
    values = {**OWN, "judge": {"name": "verifier", "function": "judges/one.py:score"}, **changes}
    with pytest.raises(BadConfig) as caught:
        shipping.files(parse(yaml.safe_dump(values)))
    assert str(caught.value).startswith(f"{key}: ")
    assert (remedy or "relative to that, or mount a volume") in str(caught.value)


def test_a_model_at_an_endpoint_is_a_name_there(place):
    endpoint = {"name": "openai", "model": "models/llama", "base_url": "http://judge:8000/v1"}
    values = {**OWN, "judge": endpoint}
    assert shipping.files(parse(yaml.safe_dump(values))) == {}


def test_an_absolute_path_is_refused_unless_a_volume_is_mounted_there(place):
    prompts = {"train": str(place / "data" / "train.jsonl")}
    with pytest.raises(BadConfig, match=r"^prompts\.train: .* lies on this machine, .*cluster\.volumes"):
        files("judges/one.py:score", prompts=prompts)
    cluster = {"volumes": {"claim": str(place / "data")}}
    assert list(files("judges/one.py:score", prompts=prompts, cluster=cluster)) == ["judges/one.py"]


def test_too_much_is_refused(place, monkeypatch):
    monkeypatch.setattr(shipping, "MOST", 1)
    with pytest.raises(BadConfig, match=r"^prompts\.train: .* Mount a volume"):
        files(prompts={"train": "data/train.jsonl"})


def test_the_demo_ships_nothing(place):
    assert shipping.files(parse(Path(shipping.FLOWS, "configs", "demo.yaml").read_text())) == {}
