"""The note of unfinished training where it is damaged: neither taken for none nor for a defect of the project."""

from __future__ import annotations

import pytest

from components.config.errors import StoreError
from components.store import open_store
from components.training.checkpoints import Checkpoints
from components.training.leftovers import forget
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.checkpoints import KEY, SETTINGS
from support.models.tiny import make_policy


@pytest.mark.parametrize("text", ["", "[]", "{", '{"file": 3}'])
def test_a_damaged_note_is_named(tmp_path, text):
    store, policy = open_store(str(tmp_path / "store")), make_policy()
    store.write_note(KEY, text)
    state = TrainingState(policy, make_optimizer(policy, SETTINGS), 4, None)
    with pytest.raises(StoreError, match=f"the note {KEY} cannot be read"):
        Checkpoints(store, KEY, SETTINGS, tmp_path).restore(state)
    with pytest.raises(StoreError, match=f"the note {KEY} cannot be read"):
        forget(store, KEY)
