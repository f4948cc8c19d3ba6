"""`wind samples` on runs that Metaflow keeps: which steps' artifacts it takes, what it says, and what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings

import pytest

from components.cli import main
from components.samples.files import SamplesError, of_run
from components.stages.runs import RunError

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow.client import core
    from metaflow.plugins.datastores.local_storage import LocalStorage

# The steps of a run of four iterations that fails in the last evaluation; the first and the third evaluate nothing.
FLOW = """
import os

import pandas as pd
from metaflow import FlowSpec, step


def stored(name, number):
    return {name: {"sha256": f"{number:064d}", "size": number}}


class Tiny(FlowSpec):
    @step
    def start(self):
        self.iteration, self.history, self.config = 0, None, {"evaluation": {"group_by": "kind"}}
        self.store_root, self.prompts = "store", stored("evaluation.jsonl", 9)
        self.evaluated_reference = self.evaluated = stored("rollout.parquet", 0)
        self.next(self.gather_1)

    def gather(self):
        self.iteration += 1
        self.shards = [stored("shard.jsonl", self.iteration)]
        self.rollouts = [stored("rollout.parquet", self.iteration)]

    def evaluate(self, rate, rollout):
        row = pd.DataFrame({"iteration": [self.iteration], "win_rate": [rate]})
        self.history, self.evaluated = pd.concat([self.history, row]), stored("rollout.parquet", rollout)

    @step
    def gather_1(self):
        self.gather()
        self.next(self.evaluate_1)

    @step
    def evaluate_1(self):
        self.evaluate(float("nan"), 0)
        self.next(self.gather_2)

    @step
    def gather_2(self):
        self.gather()
        self.next(self.evaluate_2)

    @step
    def evaluate_2(self):
        self.evaluate(0.5, 2)
        self.next(self.gather_3)

    @step
    def gather_3(self):
        self.gather()
        self.next(self.evaluate_3)

    @step
    def evaluate_3(self):
        self.evaluate(float("nan"), 2)
        self.next(self.gather_4)

    @step
    def gather_4(self):
        self.gather()
        self.next(self.evaluate_4)

    @step
    def evaluate_4(self):
        self.evaluate(0.7, 4)
        raise ValueError
        self.next(self.end)

    @step
    def end(self):
        pass


class Other(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    {"Tiny": Tiny, "Other": Other}[os.environ["KIND"]]()
"""


def stored(name, number):
    return {name: {"sha256": f"{number:064d}", "size": number}}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where both flows have run."""
    home = tmp_path_factory.mktemp("runs")
    (home / ".metaflow").mkdir()
    (home / "tiny.py").write_text(FLOW)
    settings = {f"METAFLOW_DEFAULT_{name}": "local" for name in ("DATASTORE", "METADATA")}
    env = {**os.environ, **settings, "METAFLOW_PROFILE": "", "USERNAME": "somebody", "METAFLOW_HOME": str(home)}
    command = [sys.executable, "tiny.py", "--no-pylint", "run", "--run-id-file"]
    started = [subprocess.Popen([*command, kind], cwd=home, env={**env, "KIND": kind}) for kind in ("Tiny", "Other")]
    assert [process.wait() for process in started] == [1, 0]
    return home


@pytest.fixture
def run(home, tmp_path, monkeypatch):
    """The client in this process sees them; gives a run's pathspec."""
    for name, value in [("current_namespace", False), ("current_metadata", False), ("filecache", None)]:
        monkeypatch.setattr(core, name, value)
    monkeypatch.setattr(LocalStorage, "datastore_root", None)
    monkeypatch.setattr("metaflow.client.filecache.CLIENT_CACHE_PATH", str(tmp_path / "cache"))
    core.metadata(f"local@{home}")
    monkeypatch.chdir(tmp_path)
    return lambda kind: f"{kind}/{(home / kind).read_text()}"


@pytest.mark.slow
def test_a_failed_run_has_the_samples_of_the_steps_that_ended_well(run):
    found = of_run(run("Tiny"))
    assert (found.store_root, found.prompts, found.group_by) == ("store", stored("evaluation.jsonl", 9), "kind")
    assert [(one.iteration, one.shards, one.scored) for one in found.drawn] == [
        (t, [stored("shard.jsonl", t)], [stored("rollout.parquet", t)]) for t in (1, 2, 3, 4)
    ]
    # The reference's answers and those after iteration 2: iterations 1 and 3 evaluated nothing, 4 failed.
    assert [(one.iteration, one.rollout) for one in found.answered] == [
        (t, stored("rollout.parquet", t)) for t in (0, 2)
    ]


@pytest.mark.slow
def test_another_flow_has_none(run):
    with pytest.raises(SamplesError, match="has no samples, as it has no finished step `start` of WindFlow"):
        of_run(run("Other"))


@pytest.mark.slow
@pytest.mark.parametrize("pathspec", ["Tiny/1", "Nowhere/1", "Tiny"])
def test_a_run_that_is_not_there(run, pathspec):
    run("Tiny")
    with pytest.raises(RunError, match=pathspec):
        of_run(pathspec)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--iterations", "5"], r"--iterations: Tiny/\d+ has no samples of 5, but of: 1, 2, 3, 4"),
        ([], r"shard\.jsonl"),  # nothing is in its store
    ],
)
def test_what_a_user_can_fix_is_one_line(run, options, said, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["samples", run("Tiny"), "out.html", *options])
    assert re.match(f"error: .*({said})", str(ended.value))
    assert not (tmp_path / "out.html").exists()


@pytest.mark.parametrize("words", [["--iterations", "1,"], ["--iterations", "first"], ["--prompts", "0"]])
def test_options_that_mean_nothing(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["samples", "WindFlow/1", *words])
    assert ended.value.code == 2
    assert f"argument {words[0]}: {words[1]!r} is" in capsys.readouterr().err


def test_a_file_of_the_users_own_is_not_replaced(tmp_path):
    """Before the run is looked for."""
    mine = tmp_path / "notes.html"
    mine.write_text("mine")
    with pytest.raises(SystemExit) as ended:
        main(["samples", "WindFlow/1", str(mine)])
    assert str(ended.value).startswith(f"error: {mine}: is there already")
    assert mine.read_text() == "mine"
