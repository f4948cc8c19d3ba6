"""The front matter of a model card, as the hub reads it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from components.export.facts import Facts
from components.export.public import public, public_text
from components.export.sources import base_on_hub, datasets_on_hub, held_out_name

TASK = "text-generation"


@dataclass(frozen=True)
class Told:
    """What the run does not know of its policy, and whoever publishes it does."""

    name: str  # of the model: the repository's or the folder's
    license: Mapping[str, str] = field(default_factory=dict)  # `sources.LICENSE`; empty if it is not known
    base_unknown: bool = False  # the hub was asked, and has no such model as the base


def of(facts: Facts, told: Told) -> ModelCardData:
    """The metadata; nothing in it that is not known."""
    base = None if told.base_unknown else base_on_hub(facts.config)
    algorithm = str(facts.config["algorithm"]["name"])
    tags = ["alignment", "wind-metaflow", algorithm, *(["lora"] if facts.adapted else [])]
    results = list(_results(facts))
    own: dict[str, Any] = {
        "base_model": base,
        "base_model_relation": "finetune" if base and facts.iteration else None,
        "datasets": datasets_on_hub(facts.config) or None,
        "model_name": public_text(told.name) if results else None,
        "eval_results": results or None,
    }
    return ModelCardData(
        library_name="transformers", pipeline_tag=TASK, tags=tags, **public(dict(told.license)), **_without_none(own)
    )


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _results(facts: Facts) -> Iterator[EvalResult]:
    """The last evaluation's figures, if it was one of this policy."""
    if (row := facts.measured) is None:
        return
    kind, name = held_out_name(facts.config)
    shares = {"low": row["win_rate_low"], "high": row["win_rate_high"]}
    bounds = {bound: _rounded(value) for bound, value in shares.items() if not math.isnan(value)}
    yield EvalResult(
        task_type=TASK,
        dataset_type=kind,
        dataset_name=name,
        metric_type="win_rate",
        metric_name=f"Win rate against the base model, judged by {public_text(facts.config['judge']['name'])}",
        metric_value=_rounded(row["win_rate"]),
        metric_args={"interval": 0.95, **bounds} if bounds else None,
    )
    for column, value in row.items():
        if f"{column}_metric" in row and isinstance(row[f"{column}_metric"], str) and not math.isnan(value):
            task, metric = str(column).removeprefix("task_"), row[f"{column}_metric"]
            yield EvalResult(
                task_type=TASK, dataset_type=task, dataset_name=task, metric_type=metric, metric_value=_rounded(value)
            )


def _rounded(value: float) -> float:
    return round(float(value), 4)
