"""Measures what an iteration's training does to some of its own responses: forward passes without a gradient.

One after each pass over the prompts. Before the first step pi_theta is pi_t, whose log-probs are known.

Those came from other batches: in bf16 a single response's move is off by the rounding that this makes, the mean is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from components.algorithms import Algorithm
from components.data.records import Scored
from components.data.seeds import generator
from components.training import sharding
from components.training.groups import Selection, group_of, length_for, selected
from components.training.learning import Seen
from components.training.loop import Schedule
from components.training.off_policy import shares
from components.training.state import TrainingState

FEW = 8  # prompts that are all monitored
SHARE = 4  # else at most one in four: a forward pass is about a third of a training step, so a twelfth of the time


def monitored(prompts: NDArray[np.int64], most: int, *, seed: int, iteration: int) -> NDArray[np.int64]:
    """Which of an iteration's trained prompts to monitor, in order; a function of its arguments only.

    Args:
        prompts: indices of those trained on.
        most: `training.monitor_prompts`.
        seed: of the run.
        iteration: 1-based.
    """
    count = min(most, max(FEW, len(prompts) // SHARE))
    return np.sort(generator(seed, "monitor", iteration).permutation(prompts)[:count])


@dataclass(frozen=True)
class Monitor:
    """The monitored prompts of an iteration, their responses and how often they are measured."""

    data: Scored
    algorithm: Algorithm
    selection: Selection
    prompts: NDArray[np.int64]  # (n,), monitored
    steps: int  # optimiser steps of one pass

    @classmethod
    def of(cls, data: Scored, algorithm: Algorithm, schedule: Schedule) -> Monitor:
        """For an iteration of `off_policy.train` with the same arguments."""
        settings = schedule.settings
        selection = selected(data, algorithm)
        trained = np.flatnonzero(algorithm.informative(selection.win_rate))
        chosen = monitored(trained, settings.monitor_prompts, seed=schedule.seed, iteration=schedule.iteration)
        return cls(data, algorithm, selection, chosen, math.ceil(len(trained) / settings.batch_size))

    def around(self, saved: Callable[[TrainingState], None]) -> Callable[[TrainingState], None]:
        """Called after each optimiser step: measures at the end of a pass, then saves if it is time."""

        def step_done(state: TrainingState) -> None:
            if len(self.prompts) and state.done % self.steps == 0:
                state.measured.append(self.measure(state).tolist())
            saved(state)

        return step_done

    @torch.no_grad()
    def measure(self, state: TrainingState) -> NDArray[np.float64]:
        """What `seen` needs of one pass, (n, 2 + 2m), the same in all processes.

        Columns: mean loss under pi_t, mean loss now, the m responses' moves, the moves at which the loss is least.
        Raises FloatingPointError for log-probs that are not finite.
        """
        m = self.selection.indices.shape[1]
        found = np.zeros((len(self.data.logp_old), 2 + 2 * m))
        mean_length = length_for(self.algorithm, self.data, self.selection, self.prompts)
        for micro, weight in shares(self.data, self.prompts, state.micro_batch_size):
            group = group_of(state.policy, self.data, self.selection, micro, mean_length=mean_length)
            target = self.algorithm.target(group)
            losses = [self.algorithm.loss(g).mean(1, keepdim=True) for g in (group.at_start(), group)]
            wanted = torch.full_like(group.logp, math.nan) if target is None else target - group.logp_old
            if weight:
                parts = torch.cat([*losses, group.logp - group.logp_old, wanted], 1)
                found[micro] = parts.double().cpu().numpy()
        sharding.reshard(state.policy)
        measured = np.array(sharding.summed(found[self.prompts].ravel().tolist())).reshape(-1, 2 + 2 * m)
        if not np.isfinite(measured[:, : 2 + m]).all():
            raise FloatingPointError(
                "log-probs under the trained policy are not finite: training diverged. "
                "Lower training.learning_rate or algorithm.eta, or use policy.precision: fp32."
            )
        return measured

    def seen(self, state: TrainingState) -> Seen | None:
        """What training did by the end of its last pass; None if nothing is monitored."""
        if not state.measured:
            return None
        measured, chosen = np.array(state.measured), self.selection.indices[self.prompts]
        n, k = self.data.rollout.shape
        lengths = self.data.rollout.tokens.lengths.reshape(n, k)[self.prompts]
        m = chosen.shape[1]
        last = measured[-1]
        return Seen(
            risk=np.stack([last[:, 0], *measured[:, :, 1]]),
            moved=last[:, 2 : 2 + m],
            target=last[:, 2 + m :],
            win_rate=self.selection.win_rate[self.prompts],
            tokens=np.take_along_axis(lengths, chosen, 1),
            sample=m == k,
        )
