"""Compiled code of vLLM in the store; a worker that notes what it was given and compiles stands in for vLLM."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path

import pytest

from components.config.errors import EngineError
from components.generation import _vllm_compiled as compiled
from components.runtime import machine
from components.store import open_store
from components.store.references import COMPILED, uses

KEY = "k"


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def machines(tmp_path, monkeypatch):
    """Makes a new machine, whose disk is empty, the one of the test; gives the folder of its compiled code."""

    def new(name: str) -> Path:
        monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / name))
        return tmp_path / name / "wind" / KEY

    return new


def start(store, code: dict[str, str]) -> list[str]:
    """What a start of vLLM finds compiled; it then has `code`."""
    with compiled.kept(store, KEY) as folder:
        found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for name, text in code.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    return found


def test_another_machine_finds_what_the_first_compiled(store, machines):
    machines("a")
    assert start(store, {"torch_compile_cache/x/model": "code", "x/locks/l.lock": ""}) == []
    folder = machines("b")
    assert start(store, {}) == ["torch_compile_cache/x/model"]
    assert (folder / "torch_compile_cache/x/model").read_text() == "code"


def test_what_a_later_start_compiles_beside_it_is_stored_too(store, machines):
    machines("a")
    start(store, {"one": "1"})
    machines("b")
    start(store, {"two": "2"})
    machines("c")
    assert start(store, {}) == ["one", "two"]


def test_files_that_each_start_adds_are_not_stored_each_time(store, machines):
    machines("a")
    start(store, {"torch_compile_cache/x/rank_0_0/model": "1"})
    before = store.read_note(compiled.NOTE + KEY)
    start(store, {"torch_compile_cache/x/rank_0_0/again": "2"})
    assert store.read_note(compiled.NOTE + KEY) == before
    start(store, {"torch_compile_cache/y/rank_0_0/model": "3"})  # of other settings
    assert store.read_note(compiled.NOTE + KEY) != before


def test_nothing_is_written_when_nothing_is_new(store, machines):
    machines("a")
    start(store, {"one": "1"})
    (note,) = store.notes()
    blobs = list(store.blobs())
    machines("b")
    start(store, {})
    assert list(store.notes()) == [note]
    assert list(store.blobs()) == blobs


def test_a_store_that_lost_it_gets_it_from_a_machine_that_has_it(store, machines):
    machines("a")
    start(store, {"one": "1"})
    store.remove_note(compiled.NOTE + KEY)
    start(store, {})
    machines("b")
    assert start(store, {}) == ["one"]


@pytest.mark.parametrize("fault", ["damaged", "missing", "malformed note", "note of others", "no archive", "leads out"])
def test_what_cannot_be_used_is_compiled_again_and_replaced(store, machines, caplog, tmp_path, fault):
    machines("a")
    start(store, {"one": "1"})
    name = compiled.NOTE + KEY
    blob = Path(store.locate(json.loads(store.read_note(name))[compiled.ARCHIVE]["sha256"]))
    if fault == "damaged":
        blob.chmod(0o644)
        blob.write_bytes(bytes(len(blob.read_bytes())))
    elif fault == "missing":
        blob.unlink()
    elif fault == "malformed note":
        store.write_note(name, "{")
    elif fault == "note of others":
        store.write_note(name, json.dumps(store.put_file(archive(tmp_path, "no archive"), "other")))
    else:
        store.write_note(name, json.dumps(store.put_file(archive(tmp_path, fault), compiled.ARCHIVE)))
    machines("b")
    with caplog.at_level(logging.WARNING):
        assert start(store, {"two": "2"}) == []
    assert "vLLM compiles its code" in caplog.text
    assert not (tmp_path / "outside").exists()
    machines("c")
    assert start(store, {}) == ["two"]


def archive(folder: Path, fault: str) -> Path:
    path = folder / "file"
    if fault == "no archive":
        path.write_bytes(b"x" * 2000)
        return path
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("../../../outside")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    return path


def test_code_with_which_vllm_fails_is_forgotten(store, machines):
    machines("a")
    start(store, {"one": "1"})
    folder = machines("b")
    with pytest.raises(EngineError, match="failed"), compiled.kept(store, KEY):
        raise EngineError("failed")
    assert not folder.exists()
    assert list(store.notes()) == []


def test_a_home_that_cannot_be_written_leaves_vllm_its_own_place(store, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING), compiled.kept(store, KEY) as folder:
        assert folder is None
    assert "not kept" in caplog.text
    assert list(store.notes()) == []


def test_the_house_keeping_knows_it_and_lets_it_age(store, machines):
    machines("a")
    start(store, {"one": "1"})
    (those,) = uses(store).values()
    (note,) = store.notes()
    assert [(use.run, use.name, use.active) for use in those] == [(COMPILED, compiled.ARCHIVE, note.written)]


ARGUMENTS, MODEL = {"dtype": "float32", "max_model_len": 256}, {"hidden_size": 8, "_name_or_path": "/a"}


@pytest.mark.parametrize(
    ("arguments", "model", "threads", "same"),
    [
        (ARGUMENTS, {"hidden_size": 8, "_name_or_path": "/b", "transformers_version": "5"}, 1, True),
        ({**ARGUMENTS, "max_model_len": 512}, MODEL, 1, False),
        (ARGUMENTS, {"hidden_size": 16}, 1, False),
        (ARGUMENTS, MODEL, 2, False),
    ],
)
def test_the_key_is_made_of_what_decides(arguments, model, threads, same):
    assert (compiled.key_of(ARGUMENTS, MODEL, 1) == compiled.key_of(arguments, model, threads)) is same


def test_another_processor_is_another_key(monkeypatch, tmp_path):
    keys = set()
    for flags in ("avx2", "avx2 avx512f", "avx2"):
        (tmp_path / "cpuinfo").write_text(f"processor : 0\nmodel name : X\ncpu MHz : {len(keys)}\nflags : {flags}\n")
        monkeypatch.setattr(machine, "CPUS", tmp_path / "cpuinfo")
        keys.add(compiled.key_of(ARGUMENTS, MODEL, 1))
    assert len(keys) == 2


def test_gpus_are_told_by_nvidia_smi(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'NVIDIA H200, 9.0\\nNVIDIA A100, 8.0\\nNVIDIA H200, 9.0\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert machine.compiles_for() == ["NVIDIA A100, 8.0", "NVIDIA H200, 9.0"]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert machine.compiles_for() is None
    assert compiled.key_of(ARGUMENTS, MODEL, 1) is None
    program.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.compiles_for() is None
