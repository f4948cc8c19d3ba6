"""What a model card tells of a run, taken from the run's artifacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.evaluation.parts import evaluated

if TYPE_CHECKING:
    import pandas as pd

NEEDED = ("config", "history", "iteration")  # artifacts without which there is nothing to tell


@dataclass(frozen=True)
class Compared:
    """The comparison of which the run is one arm."""

    arm: str
    results: pd.DataFrame  # as `comparison.analysis.tidy` gives them
    reach: pd.DataFrame


@dataclass(frozen=True)
class Facts:
    """A policy's way: what it was made of, how, and what it is worth."""

    run: str  # FLOW/RUN, of a comparison with arm and seed behind it
    config: Mapping[str, Any]  # of the run; of an arm its own
    iteration: int  # after which the policy is; 0: the base
    history: pd.DataFrame | None  # rows up to that iteration; None for the base
    adapted: bool  # whether it was trained as an adapter
    dtype: str | None  # of the exported weights; None if their config does not say
    precision: str | None = None  # in which the run computed
    machine: Mapping[str, str] = field(default_factory=dict)  # see `runtime.machine`; empty for older runs
    examples: Sequence[Mapping[str, Any]] = ()
    compared: Compared | None = None

    @property
    def measured(self) -> Mapping[str, Any] | None:
        """The row of the evaluation of this very policy, if there was one."""
        if self.history is None or not len(rows := evaluated(self.history)):
            return None
        last = {str(name): value for name, value in rows.iloc[-1].to_dict().items()}
        return last if int(last["iteration"]) == self.iteration else None


def known(data: Any) -> bool:
    """Whether a run's artifacts tell enough for a card."""
    return all(hasattr(data, name) for name in NEEDED)


def of(
    run: str, data: Any, *, adapted: bool, dtype: str | None, examples: int = 0, compared: Compared | None = None
) -> Facts:
    """The facts of a policy.

    Args:
        run: its name.
        data: the artifacts, as attributes, of the step after which the policy is; `known`.
        adapted: whether the policy was trained as an adapter.
        dtype: of the exported weights.
        examples: so many held-out prompts with answers, of those that the run keeps for its report.
        compared: see Facts.
    """
    config = data.branch_config if compared else data.config
    config = dict(config if isinstance(config, dict) else config.to_dict())
    if not compared and hasattr(data, "seed"):
        config["seed"] = data.seed  # `run --seed` has the last word
    return Facts(
        run=run,
        config=config,
        iteration=int(data.iteration),
        history=data.history,
        adapted=adapted,
        dtype=dtype,
        precision=getattr(data, "precision", None),
        machine=getattr(data, "machine", {}),
        examples=list(getattr(data, "examples", []))[:examples],
        compared=compared,
    )
