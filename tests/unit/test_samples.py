"""What `wind samples` collects from a run's files, against figures worked out by hand."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from components import prompts
from components.config.errors import BlobError
from components.data import rollouts
from components.data.records import Prompt, Ragged, Rollout, Scored
from components.samples.collect import affordable, collect
from components.samples.files import Answered, Drawn, RunFiles, SamplesError
from components.samples.records import Asked, Batch, Side, asked, fields
from components.store import LocalStore


def prompt(name, **metadata):
    return Prompt(name, ({"role": "user", "content": f"sort {name}"},), f"answer {name}", metadata)


P0, P1, P2 = prompt("p0", kind="long", level=1), prompt("p1", kind="short", level=2), prompt("p2", kind="long")


class Home:
    """A store, and what a run would have put there."""

    def __init__(self, folder):
        self.folder, self.store = folder, LocalStore(str(folder / "store"))

    def keep(self, name, write):
        write(self.folder / name)
        return self.store.put_file(self.folder / name)

    def prompts(self, *chosen, name="shard"):
        return self.keep(f"{name}.jsonl", partial(prompts.save, chosen))

    def rollout(self, chosen, texts, lengths, finished, **judged):
        k = len(texts) // len(chosen)
        tokens = Ragged.of([[7] * length for length in lengths])
        drawn = Rollout(
            *([p.id for p in chosen], Ragged.of([[5]] * len(chosen)), tokens, texts),
            np.array(finished).reshape(-1, k),
        )
        reward, parts = np.array(judged["reward"], float).reshape(-1, k), judged.get("parts", {})
        parts = {name: np.array(values, float).reshape(-1, k) for name, values in parts.items()}
        if "old" not in judged:
            return self.keep("rollout.parquet", lambda path: rollouts.save_rollout(drawn, path, reward, parts))
        old, ref = (np.array(judged[name], float).reshape(-1, k) for name in ("old", "ref"))
        scored = Scored(drawn, old, ref, np.array(judged["preference"]), reward)
        return self.keep("rollout.parquet", lambda path: rollouts.save_scored(scored, path, parts))


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


# P(y_0 > y_1) = 0.8, P(y_0 > y_2) = 0.6, P(y_1 > y_2) = 0.3: against the others of the group
# (0.8 + 0.6) / 2 = 0.7, (0.2 + 0.3) / 2 = 0.25 and (0.4 + 0.7) / 2 = 0.55.
TELLING = [[0.5, 0.8, 0.6], [0.2, 0.5, 0.3], [0.4, 0.7, 0.5]]
TIED = [[0.5] * 3] * 3


@pytest.fixture
def files(home):
    """Two iterations, the first of two shards; two held-out prompts, answered by reference and both policies."""
    first = [
        home.rollout(
            [P0],
            ["a", "b", ""],
            [1, 2, 0],
            [True, True, False],
            reward=[1, 0.25, math.nan],
            parts={"met": [1, 0, 0]},
            old=[-1, -2, -3],
            ref=[-1.5, -2, -2],
            preference=[TELLING],
        ),
        home.rollout(
            [P1],
            ["c", "d", "e"],
            [3, 4, 5],
            [True] * 3,
            reward=[0, 0, 0],
            old=[-1 / 3, -1, -1],
            ref=[-1, -1, -1],
            preference=[TIED],
        ),
    ]
    second = home.rollout(
        [P2, P1],
        list("fghijk"),
        [6] * 6,
        [True] * 6,
        reward=range(6),
        old=[-1.0] * 6,
        ref=[-math.inf, *[-1.0] * 5],
        preference=[TIED, TELLING],
    )
    held_out = {
        **home.prompts(P0, P2, name="evaluation"),
        **home.prompts(P1, name="train"),
    }
    answers = [
        home.rollout([P0, P2], [f"{name}{i}" for i in range(4)], [2] * 4, [True] * 4, reward=[t, t, 0, t / 2])
        for t, name in enumerate(["ref", "one", "two"])
    ]
    return RunFiles(
        run="WindFlow/7",
        store_root=home.store.root,
        prompts=held_out,
        drawn=[
            Drawn(1, [home.prompts(P0), home.prompts(P1)], first),
            Drawn(2, [home.prompts(P2, P1)], [second]),
        ],
        answered=[Answered(t, manifest) for t, manifest in enumerate(answers)],
        group_by="kind",
    )


def test_collects_every_response_with_what_is_known_of_it(files):
    found = collect(files)
    assert (found.run, found.notes) == ("WindFlow/7", [])
    first, second = found.trained.batches
    assert first == Batch(
        iteration=1,
        k=3,
        prompts=[0, 1],
        texts=["a", "b", "", "c", "d", "e"],
        truncated=[False, False, True, False, False, False],
        tokens=[1, 2, 0, 3, 4, 5],
        reward=[1.0, 0.25, None, 0.0, 0.0, 0.0],
        parts={"met": [1.0, 0.0, 0.0, None, None, None]},  # the second shard's judge told none
        win_rate=[0.7, 0.25, 0.55, 0.5, 0.5, 0.5],
        log_ratio=[0.5, 0.0, -1.0, 0.666667, 0.0, 0.0],
        logp=[-1.0, -2.0, -3.0, -0.333333, -1.0, -1.0],
    )
    assert (second.iteration, second.prompts, second.texts) == (2, [2, 1], list("fghijk"))
    assert second.win_rate == [0.5, 0.5, 0.5, 0.7, 0.25, 0.55]
    assert second.log_ratio == [None, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert second.parts == {}


def test_prompts_are_kept_once_and_in_words(files):
    found = collect(files)
    assert [one.id for one in found.trained.prompts] == ["p0", "p1", "p2"]
    assert found.trained.prompts[0] == Asked("p0", [("user", "sort p0")], "answer p0", {"kind": "long", "level": "1"})
    assert [one.id for one in found.held_out.prompts] == ["p0", "p2"]
    assert found.trained.fields == ["kind", "level"]


def test_answers_to_held_out_prompts_stand_beside_the_references(files):
    reference, one, two = collect(files).held_out.batches
    assert [batch.iteration for batch in (reference, one, two)] == [0, 1, 2]
    assert [batch.prompts for batch in (reference, one, two)] == [[0, 1]] * 3
    assert (reference.k, reference.texts, reference.reward) == (2, ["ref0", "ref1", "ref2", "ref3"], [0.0] * 4)
    assert (two.texts, two.reward) == (["two0", "two1", "two2", "two3"], [2.0, 2.0, 0.0, 1.0])
    assert (two.win_rate, two.log_ratio, two.logp) == (None, None, None)


@pytest.mark.parametrize(
    ("wanted", "drawn", "answered"), [({1}, [1], [0, 1]), ({1, 2}, [1, 2], [0, 1, 2]), ("last", [2], [0, 2])]
)
def test_iterations_are_chosen(files, wanted, drawn, answered):
    found = collect(files.only(wanted))
    assert [batch.iteration for batch in found.trained.batches] == drawn
    assert [batch.iteration for batch in found.held_out.batches] == answered


def test_an_iteration_that_is_not_there(files):
    with pytest.raises(SamplesError, match=r"--iterations: WindFlow/7 has no samples of 3, but of: 1, 2\."):
        files.only({1, 3})


def test_the_last_of_a_run_that_failed_before_its_evaluation(files):
    failed = RunFiles(**{**vars(files), "answered": files.answered[:2]})
    last = failed.only("last")
    assert [one.iteration for one in last.drawn] == [2]
    assert [one.iteration for one in last.answered] == [0, 1]


def test_a_run_that_has_drawn_nothing_yet(files):
    found = collect(RunFiles(**{**vars(files), "drawn": [], "answered": files.answered[:1]}))
    assert found.trained == Side([], [], [])
    assert found.held_out.batches[0].texts == ["ref0", "ref1", "ref2", "ref3"]


def test_what_training_drew_itself_is_not_there(home, files):
    drawn = [Drawn(1, files.drawn[0].shards, [{}, {}]), files.drawn[1]]
    found = collect(RunFiles(**{**vars(files), "drawn": drawn}))
    assert found.notes == ["Training drew its own responses and kept none; iterations: 1."]
    assert [batch.iteration for batch in found.trained.batches] == [2]


def test_the_first_prompts_of_each_iteration(files):
    found = collect(files, prompts=1)
    assert [batch.texts for batch in found.trained.batches] == [["a", "b", ""], ["f", "g", "h"]]
    assert [one.id for one in found.trained.prompts] == ["p0", "p2"]
    assert [batch.texts for batch in found.held_out.batches] == [["ref0", "ref1"], ["one0", "one1"], ["two0", "two1"]]
    [note] = found.notes
    assert note == "Of the prompts of each iteration and of the held-out ones, up to 2, the first 1 are shown."


def test_more_prompts_than_there_are(files):
    assert collect(files, prompts=9) == collect(files)


def test_a_page_too_large_takes_fewer_prompts_and_says_so(files):
    assert collect(files, limit=10_000) == collect(files)
    assert collect(files, limit=1_500) == collect(files, prompts=1)


def test_so_many_prompts_fit():
    sizes = [np.array([10, 10, 10]), np.array([5, 5])]  # together 15, 30 and 40 for one, two and three prompts of each
    assert [affordable(sizes, limit) for limit in (1, 15, 29, 30, 39, 40, 99)] == [1, 1, 1, 2, 2, 3, 3]


def test_sizes_of_texts_are_told_without_reading_them(home):
    [entry] = home.rollout([P0, P1], ["", "ab", "日本語", "c"], [1] * 4, [True] * 4, reward=[0] * 4).values()
    assert rollouts.text_sizes(home.store.locate(entry["sha256"]), 10).tolist() == [22, 30]


def test_a_file_that_is_gone_is_named(files, home):
    Path(home.store.locate(files.drawn[0].scored[1]["rollout.parquet"]["sha256"])).unlink()
    with pytest.raises(BlobError, match=r"rollout\.parquet"):
        collect(files)


def test_metadata_is_text_that_is_not_too_long():
    values = {"list": [1, "ä"], "none": None, "blank": " ", "true": True, "spaced": " a\n b ", "long": "x" * 301}
    assert asked(prompt("p", **values)).metadata == {
        **{"list": '[1, "ä"]', "true": "True", "spaced": "a b"},
        "long": "x" * 299 + "…",
    }


def test_fields_with_few_values_group_the_prompts():
    few = [asked(prompt(str(i), url=f"http://{i}", kind=str(i % 2), long="x" * 400, by=str(i))) for i in range(60)]
    assert fields(few, None) == ["kind"]
    assert fields(few, "by") == ["by", "kind"]  # the run's own groups, whatever their number
