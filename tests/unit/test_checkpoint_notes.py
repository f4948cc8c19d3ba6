"""The note of unfinished training where it is damaged, or other code saved it: told of, and training begins anew."""

from __future__ import annotations

import pytest

from components.store import open_store
from components.training import checkpoints
from components.training.checkpoints import Checkpoints, training_key
from components.training.leftovers import forget
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.checkpoints import KEY, SETTINGS
from support.models.tiny import make_policy


@pytest.mark.parametrize("text", ["", "[]", "{", '{"file": 3}'])
def test_a_damaged_note_is_told_of_replaced_and_removed(tmp_path, caplog, text):
    store, policy = open_store(str(tmp_path / "store")), make_policy()
    store.write_note(KEY, text)
    state = TrainingState(policy, make_optimizer(policy, SETTINGS), 4, None)
    training = Checkpoints(store, KEY, SETTINGS, tmp_path)
    training.restore(state)
    assert state.done == 0
    assert f"training begins anew, and replaces the note of its unfinished state. {store.root}: the note" in caplog.text
    state.done = 5
    training.save(state)
    Checkpoints(store, KEY, SETTINGS, tmp_path).restore(state := TrainingState(policy, state.optimizer, 4, None))
    assert state.done == 5
    store.write_note(KEY, text)
    forget(store, KEY)  # once the training has ended
    assert list(store.notes()) == []


def test_a_state_of_other_code_is_told_of(tmp_path, caplog, monkeypatch):
    """The same work saved under code that has changed since; a state of other work is none of it."""
    store, policy = open_store(str(tmp_path / "store")), make_policy()
    saved, state = (TrainingState(policy, make_optimizer(policy, SETTINGS), 4, None) for _ in range(2))
    saved.done = 3
    other = training_key(test=2)
    Checkpoints(store, other, SETTINGS, tmp_path).save(saved)
    Checkpoints(store, KEY, SETTINGS, tmp_path).restore(state)
    assert caplog.text == ""
    monkeypatch.setattr(checkpoints, "code_version", lambda: "older")
    Checkpoints(store, training_key(test=1), SETTINGS, tmp_path).save(saved)
    Checkpoints(store, KEY, SETTINGS, tmp_path).restore(state)
    assert state.done == 0
    assert "training begins anew: its unfinished state was saved by other code" in caplog.text
    forget(store, KEY)  # once the training has ended
    assert [note.name for note in store.notes()] == [other]
