"""Unfinished training: saved, found by its inputs, taken over bit for bit; and training within the memory there is."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from components.algorithms.jbond import JBond
from components.algorithms.wind import Wind
from components.config.sections import LoraConfig
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.judges.verifier import Verifier
from components.policy import lora
from components.stages import sampling
from components.store import open_store
from components.training.checkpoints import Checkpoints
from components.training.leftovers import forget
from components.training.loop import Schedule, run_steps
from components.training.off_policy import train
from components.training.on_policy import OnPolicyTrainer, make_anchor
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.checkpoints import KEY, SETTINGS, N, ended
from support.models.tiny import OPTIMIZERS, make_policy, make_prompts, make_scored, wide_policy


class Killed(BaseException):
    """Ends an attempt as a kill does: nothing of it is left but what is in the store."""


def length(response, prompt):
    return float(len(response))


def off_policy(state, **calls):
    data = make_scored(make_policy(), n=N, k=3)
    return train(state, data, Wind(beta=0.02, eta=10.0, clip=None), Schedule(SETTINGS, 1, 2, seed=0), **calls)


def on_policy(state, **calls):
    draw = partial(sampling.generate, seed=0, iteration=1, sampling=Sampling(6))
    trainer = OnPolicyTrainer(
        state,
        JBond(anchor_rate=0.3),
        make_prompts(N),
        draw=lambda policy, prompts, count, purpose: draw(
            policy, TransformersEngine(), prompts, responses=count, purpose=purpose
        ),
        compare=partial(sampling.judge, Verifier(function=f"{__name__}:length")),
    )
    return run_steps(trainer, state, Schedule(SETTINGS, 1, 2, seed=0), np.arange(N), of=N, **calls)


def begin(fit, policy=None, optimizer="adamw"):
    policy = policy or make_policy()
    anchor = make_anchor(policy) if fit is on_policy else None
    settings = SETTINGS.model_copy(update={"optimizer": optimizer})
    return TrainingState(policy, make_optimizer(policy, settings), 4, anchor)


def assert_equal_ends(left, right):
    assert left[1:] == right[1:]
    assert left[0].keys() == right[0].keys()
    assert [name for name in left[0] if not torch.equal(left[0][name], right[0][name])] == []


def attempt(store, folder, settings=SETTINGS):
    folder.mkdir()
    return Checkpoints(store, KEY, settings, folder)


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.mark.thorough(but=["2"])
@pytest.mark.parametrize("fit", [off_policy, on_policy])
@pytest.mark.parametrize("killed_after", [1, 2, 3, 5])
def test_a_killed_attempt_goes_on_bit_for_bit(store, tmp_path, fit, killed_after):
    """Saved after steps 2 and 4 of six: an attempt killed after step 5 continues after 4, after step 1 anew."""
    whole = begin(fit)
    figures = fit(whole)

    def save_or_die(saving, state):
        saving.step_done(state)
        if state.done == killed_after:
            raise Killed

    first = attempt(store, tmp_path / "first")
    with pytest.raises(Killed):
        fit(begin(fit), saved=partial(save_or_die, first))

    state, second, steps = begin(fit), attempt(store, tmp_path / "second"), []
    second.restore(state)
    assert state.done == 2 * (killed_after // 2)
    again = fit(state, saved=second.step_done, progress=lambda done, total, **_: steps.append((done, total)))
    assert steps == [(done, 6) for done in range(state.done - len(steps) + 1, 7)]
    assert len(steps) == 6 - 2 * (killed_after // 2)
    assert again == figures
    assert_equal_ends(ended(state), ended(whole))
    forget(store, KEY)
    assert list(store.notes()) == list(store.blobs()) == []


@pytest.mark.thorough(but=["adamw"])
@pytest.mark.parametrize("fit", [off_policy, on_policy])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_goes_on_bit_for_bit(store, tmp_path, fit, tied, optimizer):
    """With state that is rounded to 8 bits, and with weights that share theirs."""
    ends = []
    for killed in (False, True):
        state = begin(fit, wide_policy(tied=tied), optimizer)
        if killed:
            saving = attempt(store, tmp_path / "saving")
            fit(state, saved=lambda s, saving=saving: saving.save(s) if s.done == 3 else None)
            state = begin(fit, wide_policy(tied=tied), optimizer)
            attempt(store, tmp_path / "restoring").restore(state)
            assert state.done == 3
        fit(state)
        ends.append(ended(state))
    assert_equal_ends(*ends)


@pytest.mark.parametrize("fit", [off_policy, on_policy])
def test_an_adapter_goes_on_bit_for_bit(store, tmp_path, fit):
    """With an anchor of its own, if the algorithm has one; nothing of the base is saved."""

    def policy():
        found = make_policy()
        lora.add(found.model, LoraConfig(rank=4), 0)
        return found

    whole = begin(fit, policy())
    fit(whole)
    saving = attempt(store, tmp_path / "saving")
    fit(begin(fit, policy()), saved=lambda state: saving.save(state) if state.done == 3 else None)
    state = begin(fit, policy())
    attempt(store, tmp_path / "restoring").restore(state)
    assert state.done == 3
    fit(state)
    assert_equal_ends(ended(state), ended(whole))
    assert {name.split(".", 1)[1] for name in ended(state)[0]} == lora.weights(state.policy.model).keys()


def test_it_is_saved_when_time_has_passed(store, tmp_path):
    """Every step takes longer than a billionth of a minute, none an hour."""
    state, saved = begin(off_policy), []
    for minutes in (1e-9, 60.0):
        saving = attempt(store, tmp_path / str(minutes), SETTINGS.model_copy(update={"checkpoint_minutes": minutes}))
        saving.settings = saving.settings.model_copy(update={"checkpoint_steps": None})
        saving.step_done(state)
        saved.append(store.read_note(KEY) is not None)
        forget(store, KEY)
    assert saved == [True, False]


def test_only_the_last_state_is_kept(store, tmp_path):
    off_policy(begin(off_policy), saved=attempt(store, tmp_path / "a").step_done)
    (blob,) = store.blobs()
    (entry,) = json.loads(store.read_note(KEY)).values()
    assert entry["sha256"] == blob.sha256


def test_an_equal_state_of_another_attempt_is_a_file_of_its_own(store, tmp_path):
    """So that an attempt which removes its older states takes nothing from another."""
    one, other = attempt(store, tmp_path / "one"), attempt(store, tmp_path / "other")
    state = begin(off_policy)
    one.save(state)
    other.save(state)
    assert len(list(store.blobs())) == 2
    one.save(state)
    other.restore(begin(off_policy))


def test_seconds_of_earlier_attempts_count(store, tmp_path):
    clock, state = [100.0], begin(off_policy)

    def attempt(store, folder):
        folder.mkdir()
        return Checkpoints(store, KEY, SETTINGS, folder, clock=lambda: clock[0])

    first = attempt(store, tmp_path / "first")
    clock[0] += 7
    first.save(state)
    clock[0] += 1000  # lost with the attempt
    second = attempt(store, tmp_path / "second")
    second.restore(state)
    assert second.seconds_before == 7
    clock[0] += 5
    second.save(state)
    third = attempt(store, tmp_path / "third")
    third.restore(state)
    assert third.seconds_before == 12


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_state_is_named_and_not_used(store, tmp_path, caplog, damage):
    saved = begin(off_policy)
    saved.done = 3
    attempt(store, tmp_path / "first").save(saved)
    (blob,) = store.blobs()
    path = Path(store.locate(blob.sha256))
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    state = begin(off_policy)
    attempt(store, tmp_path / "second").restore(state)
    assert state.done == 0
    assert "begins anew" in caplog.text
    assert str(path) in caplog.text


def test_a_state_replaced_while_it_is_read_is_read_anew(store, tmp_path):
    """Another attempt, still running, saves a later state and removes the one whose note was just read."""
    other, state = attempt(store, tmp_path / "other"), begin(off_policy)
    state.done = 1
    other.save(state)

    class Overtaken(type(store)):
        reads = 0

        def read_note(self, name):
            note = super().read_note(name)
            if not Overtaken.reads:
                Overtaken.reads = 1
                state.done = 2
                other.save(state)
            return note

    restored = begin(off_policy)
    attempt(Overtaken(store.root), tmp_path / "late").restore(restored)
    assert restored.done == 2


def test_the_smaller_micro_batch_is_kept_over_a_kill(store, tmp_path):
    state = replace(begin(off_policy), micro_batch_size=2)
    attempt(store, tmp_path / "first").save(state)
    again = begin(off_policy)
    attempt(store, tmp_path / "second").restore(again)
    assert again.micro_batch_size == 2
