"""The key of unfinished training: it changes with all that training depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.training import checkpoints
from components.training.checkpoints import training_key
from support.checkpoints import KEY


def test_key_follows_inputs_and_code(monkeypatch):
    assert training_key(a=1, b=[2]) == training_key(b=[2], a=1)
    keys = {KEY, training_key(test=2), training_key(other=1)}
    monkeypatch.setattr(checkpoints, "code_version", lambda: "another")
    assert len(keys | {training_key(test=1)}) == 4


def test_key_follows_all_sources(monkeypatch):
    read = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path.name) or b"")
    checkpoints.code_version.__wrapped__()
    assert {"off_policy.py", "logprobs.py", "wind.py"} <= set(read)


@pytest.mark.parametrize("library", checkpoints.LIBRARIES)
def test_key_follows_the_libraries(monkeypatch, library):
    real = checkpoints._version
    monkeypatch.setattr(checkpoints, "_version", lambda name: "0.0" if name == library else real(name))
    assert checkpoints.code_version.__wrapped__() != checkpoints.code_version()
