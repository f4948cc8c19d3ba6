"""What an evaluation says of judged responses: of what the judge thinks of them, and of their text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.data.records import Prompt, Rollout
from components.evaluation import groups, guards, metrics, similarity
from components.judges import Judgement
from components.stages.context import Workspace


def measured(
    work: Workspace,
    held_out: Sequence[Prompt],
    answers: Sequence[Rollout],
    judgement: Judgement,
    logp: NDArray[np.float64],
    logp_ref: NDArray[np.float64],
) -> metrics.Evaluated:
    """An evaluation without benchmarks; keeps the policy's responses.

    Args:
        work: the step's.
        held_out: n prompts.
        answers: M responses to each, of the policy, of the reference and of the last policy evaluated.
        judgement: on all of them, in this order.
        logp: (n, M), of the policy's responses.
        logp_ref: the same under the reference.
    """
    responses, reference, _ = answers
    m, settings = responses.shape[1], work.config.evaluation
    ours, theirs, previous = (slice(i * m, (i + 1) * m) for i in range(3))
    by_group = groups.split(held_out, settings.group_by)
    seen = guards.compare(
        [responses, reference],
        judgement,
        [ours, theirs],
        logp - logp_ref,
        _similarity(work, held_out, [responses, reference]),
    )
    return metrics.Evaluated(
        rollout=work.keep_rollout(
            responses, judgement.reward[:, ours], {name: values[:, ours] for name, values in judgement.parts.items()}
        ),
        against_reference=metrics.win_rate(judgement.preference, ours, theirs),
        against_previous=metrics.win_rate(judgement.preference, ours, previous),
        kl=metrics.kl(logp, logp_ref),
        reward=float(judgement.reward[:, ours].mean()),
        response_length=float(responses.tokens.lengths.mean()),
        truncated=float(1 - responses.finished.mean()),
        measures=metrics.measure(judgement, by_group, ours, theirs),
        usage=judgement.usage,
        at_equal_length=seen.controlled,
        text=guards.columns(seen),
        text_warnings=guards.warnings(seen, work.config.algorithm),
    )


def _similarity(
    work: Workspace, held_out: Sequence[Prompt], answers: Sequence[Rollout]
) -> Sequence[NDArray[np.float64] | None]:
    settings = work.config.evaluation.similarity
    if settings is None:
        return [None for _ in answers]
    return similarity.measured(settings, held_out, answers, work.progress("similarity to the prompts"))
