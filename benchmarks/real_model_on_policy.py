"""An arm of real_model.py whose algorithm draws responses inside its training step, as J-BOND does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from real_model_run import Arm, Run

from components.algorithms import OnPolicyAlgorithm
from components.config import registry
from components.data.records import Prompt, Rollout
from components.judges import Judgement
from components.training.loop import run_steps
from components.training.on_policy import OnPolicyTrainer, make_anchor


class OnPolicyRun(Run):
    """Of an arm with three responses, as many as a step draws to each prompt, and one pass: it has its budget so."""

    def __init__(self, arm: Arm, *arguments: Any) -> None:
        assert arm.responses == 3, f"{arm.name}: a step draws 3 responses to a prompt, so count them as `responses: 3`"
        assert arm.training.get("epochs", 1) == 1, f"{arm.name}: each pass draws anew and would double the budget"
        super().__init__(arm, *arguments)
        self.state.anchor = make_anchor(self.policy)

    def build(self) -> Any:
        """The algorithm."""
        return registry.build("algorithms", self.arm.algorithm, OnPolicyAlgorithm)

    def iterate(self, t: int) -> dict[str, Any]:
        """One iteration; its figures."""
        begin = time.perf_counter()
        chosen = self.chosen(t)
        rewards: list[float] = []

        def compare(asked: Sequence[Prompt], drawn: Sequence[Rollout]) -> Judgement:
            preference, reward = self.verdicts(asked, drawn)
            rewards.append(float(reward.mean()))
            return Judgement(preference, reward)

        trainer = OnPolicyTrainer(
            self.state,
            self.algorithm,
            chosen,
            draw=lambda policy, some, count, purpose: self.sample(policy, some, count, purpose, t),
            compare=compare,
        )
        self.state.done, self.state.sums = 0, {}
        figures = run_steps(
            trainer,
            self.state,
            self.schedule(t),
            np.arange(len(chosen)),
            of=len(chosen),
        )
        return {
            "reward": float(np.mean(rewards)),
            "steps": self.state.done,
            "grad_norm": figures.get("grad_norm", 0.0),
            "kl_anchor": figures.get("kl_anchor", 0.0),
            "seconds": time.perf_counter() - begin,
        }
