"""A judge with parts and prompts in groups, through a run's stages: files, history and the reference's figures."""

from __future__ import annotations

import json
import math
import re
import statistics
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest

from components import demo, stages
from components.config.errors import JudgeError, PromptError
from components.config.sections import DemoConfig
from components.evaluation import metrics
from components.evaluation.parts import tidy
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from components.stages.origin import Origin
from support.part_judges import judged
from support.runs import TOTAL

KINDS = ["long", "long", "long", "long", "short", "short", "lone"]  # of the evaluation prompts
M = 2  # responses of an evaluation
# 97.5 % quantiles of Student's t for so many prompts, of a printed table
T = {9: 2.306004, 7: 2.446912, 6: 2.570582, 4: 3.182446, 2: 12.706205}
CONFIG = """
iterations: 1
policy: {{model: {home}/policy, precision: fp32}}
prompts: {{train: {home}/train.jsonl, evaluation: {home}/grouped.jsonl, per_iteration: 8, shards: 2}}
generation: {{responses: 4, max_new_tokens: 8}}
judge: {{name: verifier, function: "support.part_judges:scored"}}
training: {{batch_size: 4, micro_batch_size: 4, learning_rate: 1e-2}}
evaluation: {{responses: 2, group_by: kind}}
"""


@dataclass
class Run:
    """A run of one iteration, with what its stages gave."""

    config: RunConfig
    root: str
    started: stages.Started
    scored: list
    evaluated: metrics.Evaluated
    history: pd.DataFrame

    def read(self, manifest, name="rollout.parquet"):
        """A stored file as pandas reads it."""
        with open_workspace(self.config, self.root, "end") as work:
            return pd.read_parquet(work.fetch(manifest) / name)

    def evaluate(self, **changed):
        started = self.started
        rivals = {"by_reference": started.evaluated, "by_last": started.evaluated}
        arguments = {"policy": started.policy, "config": self.config, **rivals} | changed
        config = arguments.pop("config")
        with open_workspace(config, self.root, "evaluate", precision=self.started.precision) as work:
            given = stages.EvaluateInput(reference=started.policy, prompts=started.prompts, iteration=1, **arguments)
            return stages.evaluate(work, given)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small policy that sorts, and its evaluation prompts with a column `kind`."""
    home = tmp_path_factory.mktemp("parts")
    settings = DemoConfig(numbers=3, prompts=16, held_out=7, steps=5, batch_size=8, hidden_size=16, layers=1, heads=2)
    demo.build(home, settings, seed=0)
    records = [json.loads(line) for line in (home / "evaluation.jsonl").read_text().splitlines()]
    grouped = [json.dumps({**record, "kind": kind}) for record, kind in zip(records, KINDS, strict=True)]
    (home / "grouped.jsonl").write_text("\n".join(grouped))
    return home


def config(home, **changed):
    values = parse(CONFIG.format(home=home))
    values["resources"] = {kind: {"cpu": 1} for kind in values["resources"]}
    for section, settings in changed.items():
        values[section] |= settings
    return RunConfig.model_validate(values)


@pytest.fixture(scope="module")
def run(home, tmp_path_factory):
    """The pipeline's history; and its stages once more, for their files."""
    root, settings = str(tmp_path_factory.mktemp("run") / "store"), config(home)
    pipeline = Pipeline(settings, root)
    started = pipeline.start()
    history = pipeline.run(started)
    with open_workspace(settings, root, "plan") as work:
        shards = stages.plan(work, started.prompts, 1)
    judged = []
    for shard in shards:
        with open_workspace(settings, root, "score", precision=started.precision) as work:
            rollout = stages.generate(work, started.policy, shard, 1)
            judged.append(stages.score(work, started.policy, started.policy, rollout, shard))
    with open_workspace(settings, root, "train", precision=started.precision) as work:
        trained = stages.train(work, stages.TrainInput(started.policy, None, shards, judged, 1))
    run = Run(settings, root, started, judged, None, history)
    run.evaluated = run.evaluate(policy=trained.policy)
    return run


@pytest.mark.parametrize("place", ["reference", "policy", "shard"])
def test_files_hold_the_parts_of_each_response(run, place):
    manifest = {"reference": run.started.evaluated, "policy": run.evaluated.rollout, "shard": run.scored[1]}[place]
    frame = run.read(manifest)
    assert len(frame) == (4 if place == "shard" else 7)
    for column, part in (("reward", "score"), ("part_count", "count"), ("part_even", "even")):
        expected = [[judged(text, part) for text in texts] for texts in frame["texts"]]
        assert [list(values) for values in frame[column]] == expected
    assert len({value for values in frame["part_count"] for value in values}) > 1  # or the test would show little


@pytest.mark.parametrize("part", ["count", "even"])
@pytest.mark.parametrize("group", ["", "long", "short", "lone"])
@pytest.mark.parametrize("side", ["", "_reference"])
def test_history_has_means_and_intervals_of_parts_and_groups(run, part, group, side):
    """From the texts in the stored files, by the formulas of a t-interval and of a share's."""
    frame = run.read(run.started.evaluated if side else run.evaluated.rollout)
    rows = [texts for texts, kind in zip(frame["texts"], KINDS, strict=True) if group in ("", kind)]
    means = [statistics.mean(judged(text, part) for text in texts) for texts in rows]
    n, mean = len(means), statistics.mean(means)
    place = f"[{group}]" if group else ""
    found = run.history.iloc[0]
    assert found[f"part_{part}{side}{place}"] == pytest.approx(mean)
    bounds = [found[f"part_{part}{side}{bound}{place}"] for bound in ("_low", "_high")]
    if part == "even":  # 0 or 1 alone: two more values, a 0 and a 1, and half a value on each side, within [0, 1]
        more = [*means, 0.0, 1.0]
        half = T[n + 2] * statistics.stdev(more) / math.sqrt(n + 2) + 0.5 / (n + 2) if n > 1 else 1.0
        middle = statistics.mean(more)
        assert bounds == pytest.approx([max(0.0, middle - half), min(1.0, middle + half)], rel=1e-5)
    elif n == 1:
        assert all(math.isnan(bound) for bound in bounds)
    else:
        half = T[n] * statistics.stdev(means) / math.sqrt(n)
        assert bounds == pytest.approx([mean - half, mean + half], rel=1e-5)
    assert found[f"held_out{place}"] == n


def test_win_rates_of_groups_make_up_the_whole(run):
    found = run.history.iloc[0]
    parts = [found[f"win_rate[{kind}]"] for kind in KINDS]
    assert statistics.mean(parts) == pytest.approx(found["win_rate"])
    frames = [run.read(manifest) for manifest in (run.evaluated.rollout, run.started.evaluated)]
    ours, theirs = (frame["reward"].iloc[-1] for frame in frames)  # of the lone prompt
    wins = [(a > b) + 0.5 * (a == b) for a in ours for b in theirs]
    assert found["win_rate[lone]"] == pytest.approx(statistics.mean(wins))


def test_an_older_rollout_without_parts_serves_as_a_rival(run):
    """Of a run to continue from that began before its judge gave parts: all are judged again."""
    with open_workspace(run.config, run.root, "end") as work:
        bare = work.keep_rollout(work.rollout(run.started.evaluated))
    assert "part_count" not in run.read(bare)
    ours, again = (run.evaluate(by_reference=rival, by_last=rival).measures for rival in (run.started.evaluated, bare))
    assert repr(again) == repr(ours)  # NaN equals NaN


def test_examples_know_the_parts_of_both_responses(run):
    manifests = (run.started.evaluated, run.evaluated.rollout)
    with open_workspace(run.config, run.root, "end") as work:
        shown = stages.examples(work, run.started.prompts, *manifests)
    assert len(shown) == 7
    for side, manifest in zip(("reference", "final"), manifests, strict=True):
        texts = run.read(manifest)["texts"]
        expected = [{part: judged(row[0], part) for part in ("count", "even")} for row in texts]
        assert [example[f"{side}_parts"] for example in shown] == expected


def test_without_group_by_there_are_no_groups(run, home):
    measures = run.evaluate(config=config(home, evaluation={"group_by": None})).measures
    assert [(one.name, one.group, one.prompts) for one in measures] == [("part_count", None, 7), ("part_even", None, 7)]


def test_a_judge_without_parts_still_tells_win_rates_by_group(run, home):
    plain = config(home, judge={"function": TOTAL})
    measures = run.evaluate(config=plain).measures
    assert [(one.name, one.group) for one in measures] == [("win_rate", kind) for kind in ("lone", "long", "short")]


def test_parts_that_change_stop_the_run_in_start(home, tmp_path):
    changed = config(home, judge={"function": "support.part_judges:changing"})
    with (
        open_workspace(changed, str(tmp_path / "store"), "start") as work,
        pytest.raises(JudgeError, match=r"response 0: \S+:changing returned other parts .* it adds 'new'"),
    ):
        stages.start(work)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("knid", "no evaluation prompt has a field 'knid'. Name one of: kind."),
        ("level", "5 of 7 evaluation prompts have no 'level'"),
    ],
)
def test_groups_are_checked_in_start_before_the_policy_is_loaded(home, tmp_path, field, message):
    lines = (home / "grouped.jsonl").read_text().splitlines()
    if field == "level":
        lines[:2] = [json.dumps({**json.loads(line), "level": 1}) for line in lines[:2]]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    changed = config(home, evaluation={"group_by": field}, prompts={"evaluation": str(tmp_path / "prompts.jsonl")})
    with (
        open_workspace(changed, str(tmp_path / "store"), "start") as work,
        pytest.raises(PromptError, match=rf"^evaluation\.group_by: {re.escape(message)}"),
    ):
        stages.start(work)
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_a_run_to_go_on_from_may_have_had_other_groups_and_is_checked_too(run, home):
    earlier = Origin(
        run="WindFlow/1",
        config=config(home, evaluation={"group_by": None}).model_dump(),
        store_root=run.root,
        started=run.started,
        policy=run.started.policy,
        optimizer=run.started.prompts,  # any files that are there
        evaluated=run.started.evaluated,
        history=run.history,
        iteration=1,
    )
    with open_workspace(run.config, run.root, "start") as work:
        earlier = replace(earlier, store_root=work.store.root)  # as the store itself writes it
        assert stages.start(work, earlier) == run.started
    changed = config(home, evaluation={"group_by": "nothing"})
    with (
        open_workspace(changed, run.root, "start") as work,
        pytest.raises(PromptError, match=r"^evaluation\.group_by: no evaluation prompt has a field 'nothing'"),
    ):
        stages.start(work, earlier)


def test_history_survives_the_file_of_a_runs_note(run, tmp_path):
    run.history.to_parquet(tmp_path / "history.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "history.parquet"), run.history)
    assert np.isfinite(tidy(run.history)["mean"]).all()
