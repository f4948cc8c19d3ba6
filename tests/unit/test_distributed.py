"""Training in two processes, with gloo on the CPU, against one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from components import stages
from components.config.errors import ConfigError
from components.run_config import parse
from components.runtime import processes
from components.stages import training_processes
from components.stages.context import open_workspace
from components.store import open_store
from components.store.note_kinds import content_of
from components.training import checkpoints, sharding
from support.forked import forking
from support.iterations import assert_close_weights, sampled_and_scored, slowly

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.fixture(scope="module")
def iteration(tmp_path_factory):
    return sampled_and_scored(str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def forked(monkeypatch):
    """Processes that need not import torch; others show that real ones train, fail and end the same way."""
    monkeypatch.setattr(training_processes, "subprocess", forking)


def train(iteration, before=None, seen=None, **training):
    root, first = iteration
    seen = [] if seen is None else seen
    progress = lambda done, total, **figures: seen.append((done, total, sorted(figures)))  # noqa: E731
    with open_workspace(slowly(**training), root, "train", progress=lambda _: progress) as work:
        trained = stages.train(work, before or first)
        return trained, load_file(work.fetch(trained.policy) / "model.safetensors")


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True, "batch_size": 7, "micro_batch_size": 2}])
def test_two_processes_train_as_one(iteration, forked, changes):
    """Batches of 7 leave an odd prompt, for which one of the processes has a micro-batch that does not count."""
    seen = []
    alone, expected = train(iteration, **changes)
    together, found = train(iteration, seen=seen, processes=2, **changes)
    assert_close_weights(found, expected)
    assert together.figures == pytest.approx(alone.figures, rel=1e-5, abs=1e-6)
    assert together.counts == alone.counts
    assert [done for done, *_ in seen] == list(range(1, seen[0][1] + 1))
    assert seen[0][2] == ["grad_norm", "logp_change", "loss"]

    second = replace(iteration[1], policy=alone.policy, optimizer=alone.optimizer, iteration=2)
    _, expected = train(iteration, second, **changes)
    _, found = train(iteration, replace(second, optimizer=together.optimizer), processes=2, **changes)
    assert_close_weights(found, expected)


def test_two_processes_measure_each_pass_as_one(iteration, forked):
    """Weights that a measurement gathers must not be read by the next pass. A rate of 1e-9 makes both warn."""
    alone, expected = train(iteration, epochs=2)
    together, found = train(iteration, processes=2, epochs=2)
    assert_close_weights(found, expected)
    assert {"risk_before", "risk_1", "risk_2", "kl_step_token"} < alone.figures.keys()
    assert together.figures == pytest.approx(alone.figures, rel=1e-4, abs=1e-6)
    still = [train(iteration, processes=processes, learning_rate=1e-9)[0].warnings for processes in (1, 2)]
    assert all("training hardly moved the policy" in text for text in still)


def test_a_failure_in_a_process_is_the_tasks(iteration, capfd):
    with pytest.raises(RuntimeError, match="training in 2 processes failed, see above"):
        train(iteration, processes=2, learning_rate=1e30)
    assert "training diverged" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"training": {"processes": 2}, "algorithm": {"name": "jbond"}},
            "algorithm.name: jbond trains in one process, since",
        ),
        (
            {"training": {"processes": 2}, "resources": {"train": {"gpu": 4}}},
            "training.processes: 2 processes need a GPU",
        ),
    ],
)
def test_what_does_not_go_together(changes, message):
    with pytest.raises(ConfigError) as caught:
        parse(yaml.safe_dump({"demo": {}, **changes}))
    assert str(caught.value).startswith(message)


def test_a_group_goes_on_from_what_an_earlier_one_saved(iteration, forked):
    """Saved at each step: for the second attempt nothing is left to do."""

    root, *_ = iteration
    _, expected = train(iteration, processes=2)
    store = open_store(root)
    assert list(store.notes()) == []
    again, _ = train(iteration, processes=2, checkpoint_steps=1)
    assert [note.name for note in store.notes()] == [again.unfinished]
    seen = []
    third, found = train(iteration, seen=seen, processes=2, checkpoint_steps=1)
    assert seen == []
    assert third.policy == again.policy
    assert_close_weights(found, expected)
    with open_workspace(slowly(), root, "evaluate") as work:
        stages.forget_unfinished(work, third.unfinished)
    assert list(store.notes()) == []


def test_all_processes_take_the_state_that_the_first_has_found(iteration, forked, monkeypatch):
    """Another run of the same training saves its first state a moment after the second has looked for one."""

    def found(store, key):
        return content_of(store, key) if sharding.rank() == 0 else None

    first, _ = train(iteration, processes=2, checkpoint_steps=1)
    monkeypatch.setattr(checkpoints, "content_of", found)
    seen = []
    second, _ = train(iteration, seen=seen, processes=2, checkpoint_steps=1)
    assert seen == []
    assert second.policy == first.policy
    with open_workspace(slowly(), iteration[0], "evaluate") as work:
        stages.forget_unfinished(work, second.unfinished)


def test_the_processes_listen_on_the_loopback_only_and_import_nothing_from_here(iteration, tmp_path, monkeypatch):
    """Of every listening socket of theirs, as /proc tells, while they train."""
    for name in ("torch", "numpy", "components", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}:")  # with an empty entry
    found = set()
    show = training_processes._show

    def looking(folder, progress, shown):
        found.update(address for pid in processes.children() for address in listening(pid))
        return show(folder, progress, shown)

    monkeypatch.setattr(training_processes, "_show", looking)
    monkeypatch.setattr(training_processes, "POLL", 0.02)
    train(iteration, processes=2)
    assert found
    assert found <= {"0100007F", "00000000000000000000000001000000"}, found
    assert not (tmp_path / "imported").exists()


def listening(pid):
    """Addresses at which a process listens, as /proc writes them; 0A is the state of a socket that listens."""
    try:
        sockets = {path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
        tables = [Path(f"/proc/{pid}/net/{file}").read_text() for file in ("tcp", "tcp6")]
    except FileNotFoundError:
        return []
    lines = [line.split() for table in tables for line in table.splitlines()]
    return [row[1].split(":")[0] for row in lines if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
