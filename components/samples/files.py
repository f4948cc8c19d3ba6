"""Which files of the store hold a run's samples, finished or not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from components.config.errors import UserError
from components.stages import runs
from components.store import Manifest

NEEDED = {"evaluated_reference", "prompts", "store_root"}  # artifacts of `start`


class SamplesError(UserError):
    """A run without the samples that are wanted, or a file that cannot take them."""


@dataclass(frozen=True)
class Drawn:
    """What an iteration trained on, by shards."""

    iteration: int
    shards: Sequence[Manifest]  # of prompts
    scored: Sequence[Manifest]  # their scored rollouts; empty ones where training drew its own responses

    @property
    def kept(self) -> bool:
        """Whether there are responses to show."""
        return all(self.scored)


@dataclass(frozen=True)
class Answered:
    """The answers to the held-out prompts after an iteration."""

    iteration: int  # 0: the reference
    rollout: Manifest


@dataclass(frozen=True)
class RunFiles:
    """All that is there of a run."""

    run: str  # FLOW/RUN
    store_root: str
    prompts: Manifest
    drawn: Sequence[Drawn]
    answered: Sequence[Answered]  # the reference's first
    group_by: str | None = None  # the field by which the run groups its evaluation prompts

    def only(self, iterations: Collection[int] | Literal["last"]) -> RunFiles:
        """Those of some iterations, and the reference's answers; "last": the last drawn and the last evaluated.

        Raises SamplesError for an iteration that is not there.
        """
        drawn, (reference, *answered) = self.drawn, self.answered
        if iterations == "last":
            return replace(self, drawn=drawn[-1:], answered=[reference, *answered[-1:]])
        known = {one.iteration for one in drawn} | {one.iteration for one in answered}
        if unknown := sorted(set(iterations) - known):
            names = ", ".join(map(str, sorted(known))) or "none"
            raise SamplesError(
                f"--iterations: {self.run} has no samples of {unknown[0]}, but of: {names}. Name some of these."
            )
        chosen = [one for one in answered if one.iteration in iterations]
        return replace(self, drawn=[one for one in drawn if one.iteration in iterations], answered=[reference, *chosen])


def of_run(pathspec: str) -> RunFiles:
    """The files of the run `pathspec`, "FLOW/RUN", finished, failed or still running, of every step that ended well.

    Metaflow's namespace becomes None. Raises RunError for a run that does not exist, SamplesError for one without
    samples.
    """
    done = runs.succeeded(pathspec, ("start", "gather", "evaluate"))
    begun = next(iter(done["start"].values()), None)
    if begun is None or not begun._artifacts.keys() >= NEEDED:
        if pathspec.startswith("CompareFlow/"):
            raise SamplesError(
                f"{pathspec}: is a comparison, and an arm's samples are not shown. Run the arm's settings by WindFlow, "
                f"and name that run; `wind export {pathspec}/ARM/SEED DIR` writes an arm's policy."
            )
        raise SamplesError(
            f"{pathspec}: has no samples, as it has no finished step `start` of WindFlow. Wait for it, resume the run, "
            "or name a run of WindFlow."
        )
    evaluated = [_last_evaluated(begun.history, begun.evaluated)] if begun.iteration else []
    evaluated += [_last_evaluated(data.history, data.evaluated) for _, data in sorted(done["evaluate"].items())]
    # Where no evaluation was due, the last policy's answers stay, at first the reference's.
    once = {one.iteration: one for one in evaluated if one.iteration}
    return RunFiles(
        run=pathspec,
        store_root=begun.store_root,
        prompts=begun.prompts,
        drawn=[Drawn(t, data.shards, data.rollouts) for t, data in sorted(done["gather"].items())],
        answered=[Answered(0, begun.evaluated_reference), *once.values()],
        group_by=begun.config.get("evaluation", {}).get("group_by"),
    )


def of_end(run: str, data: Any) -> RunFiles:
    """The last iteration's files in the artifacts of a step after it, and the reference's answers."""
    return RunFiles(
        run=run,
        store_root=data.store_root,
        prompts=data.prompts,
        drawn=[Drawn(data.iteration, data.shards, data.rollouts)],
        answered=[Answered(0, data.evaluated_reference), _last_evaluated(data.history, data.evaluated)],
        group_by=data.settings.evaluation.group_by,
    )


def _last_evaluated(history: Any, rollout: Manifest) -> Answered:
    """The last policy that was evaluated, 0 for none but the reference, and its answers."""
    known = history.loc[history["win_rate"].notna(), "iteration"]
    return Answered(int(known.max()) if len(known) else 0, rollout)
