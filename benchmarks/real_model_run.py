"""One training run of a real language model on the task of examples/smollm2: an arm of real_model.py."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from wind_trials import WindTrial

from components import prompts
from components.algorithms import Algorithm, leave_one_out
from components.config import registry
from components.config.sections import PolicyConfig, TrainingConfig
from components.data.records import Prompt, Rollout, Scored
from components.evaluation import metrics
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.judges import preference_from_scores
from components.policy import logprobs
from components.policy import model as policies
from components.policy.model import Policy
from components.stages import sampling
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState

EXAMPLE = Path(__file__).parents[1] / "examples" / "smollm2"
HELD_OUT_TOPICS = 9  # of the training topics, for --search


@dataclass(frozen=True)
class Arm:
    """One training run."""

    name: str
    algorithm: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)
    temperature: float | None = None  # of Bradley-Terry; None: the higher score wins
    prompts: int = 32  # per iteration
    responses: int = 6
    iterations: int = 4
    max_new_tokens: int = 64
    seed: int = 0
    evaluated: int = 2  # responses to each evaluation prompt
    trace: bool = False  # evaluate after each iteration, not only after the last


def judge_function() -> Any:
    """The example's `score`."""
    spec = importlib.util.spec_from_file_location("smollm2_judge", EXAMPLE / "judge.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.score


def load_prompts(search: bool) -> tuple[list[Prompt], list[Prompt]]:
    """Training and evaluation prompts."""
    train, held_out = (
        prompts.load(str(EXAMPLE / f"{name}.jsonl"), split="train", allow_duplicates=True)
        for name in ("train", "evaluation")
    )
    if not search:
        return train, held_out
    topics = list(dict.fromkeys(prompt.metadata["topic"] for prompt in train))[-HELD_OUT_TOPICS:]
    kept = [prompt for prompt in train if prompt.metadata["topic"] not in topics]
    return kept, [prompt for prompt in train if prompt.metadata["topic"] in topics][::2]


class Run:
    """One arm's training."""

    headline: ClassVar[str] = "met"  # of its results, what is said of an arm that has ended

    def __init__(self, arm: Arm, directory: Path, search: bool) -> None:
        self.arm, self.score = arm, judge_function()
        self.train, self.held_out = load_prompts(search)
        config = PolicyConfig(model=str(directory))
        self.policy = policies.load(directory, config)
        self.reference = policies.load(directory, config)
        self.settings = TrainingConfig.model_validate({"batch_size": 8, "micro_batch_size": 8, **arm.training})
        self.algorithm = self.build()
        self.state = TrainingState(self.policy, make_optimizer(self.policy, self.settings), 8)

    def build(self) -> Any:
        """The algorithm."""
        if self.arm.algorithm["name"] == "wind_trial":
            return WindTrial.model_validate(self.arm.algorithm)
        return registry.build("algorithms", self.arm.algorithm, Algorithm)

    def chosen(self, t: int) -> list[Prompt]:
        """The prompts of an iteration."""
        return prompts.choose(self.train, per_iteration=self.arm.prompts, iteration=t, seed=self.arm.seed)

    def schedule(self, t: int) -> Schedule:
        """Where an iteration stands in the run."""
        return Schedule(self.settings, t, self.arm.iterations, self.arm.seed)

    def results(self) -> dict[str, Any]:
        """Figures of each iteration and of the last policy."""
        iterations = []
        for t in range(1, self.arm.iterations + 1):
            figures = self.iterate(t)
            if self.arm.trace:
                figures |= self.evaluate(self.policy, t)
            iterations.append(figures)
        return {"iterations": iterations, **self.evaluate(self.policy, self.arm.iterations)}

    def sample(self, drawn_from: Policy, chosen: Sequence[Prompt], k: int, purpose: str, t: int) -> Rollout:
        """K responses to each prompt."""
        return sampling.generate(
            drawn_from,
            TransformersEngine(batch_size=1024),
            chosen,
            responses=k,
            sampling=Sampling(self.arm.max_new_tokens),
            seed=self.arm.seed,
            purpose=purpose,
            iteration=t,
        )

    def judged(self, chosen: Sequence[Prompt], drawn: Rollout, part: str) -> np.ndarray:
        """A part of the judge's score of each response, (n, K)."""
        return np.array([[float(self.score(text, p)[part]) for text in drawn.group(i)] for i, p in enumerate(chosen)])

    def iterate(self, t: int) -> dict[str, Any]:
        """One iteration; its figures."""
        begin = time.perf_counter()
        chosen = self.chosen(t)
        drawn = self.sample(self.policy, chosen, self.arm.responses, "train", t)
        preference, reward = self.verdicts(chosen, [drawn])
        scored = self.scored(drawn, preference, reward)
        self.state.done, self.state.sums, losses = 0, {}, []
        figures = train(
            self.state,
            scored,
            self.algorithm,
            self.schedule(t),
            progress=lambda done, total, **now: losses.append((round(now["loss"], 4), round(now["grad_norm"], 3))),
        )
        v = leave_one_out(scored.preference)
        moved = logprobs.score_responses(self.policy, drawn.prompt_tokens, drawn.tokens) - scored.logp_old
        return {
            "reward": float(reward.mean()),
            "tied": float((reward.std(1) < 1e-9).mean()),
            "spread": float(v.std()),
            "length": float(drawn.tokens.lengths.mean()),
            "kl": float((scored.logp_old - scored.logp_ref).mean()),
            "winners": float(np.where(v > 0.5, moved, 0).sum() / max(1, (v > 0.5).sum())),
            "losers": float(np.where(v < 0.5, moved, 0).sum() / max(1, (v < 0.5).sum())),
            "losses": losses,
            "steps": self.state.done,
            "grad_norm": figures.get("grad_norm", 0.0),  # none if all responses tied
            "seconds": time.perf_counter() - begin,
        }

    def verdicts(self, chosen: Sequence[Prompt], drawn: Sequence[Rollout]) -> tuple[np.ndarray, np.ndarray]:
        """Preferences, (n, K, K), and scores, (n, K), of K responses to each prompt in some rollouts."""
        reward = np.concatenate([self.judged(chosen, one, "score") for one in drawn], axis=1)
        return preference_from_scores(reward, self.arm.temperature), reward

    def scored(self, drawn: Rollout, preference: np.ndarray, reward: np.ndarray) -> Scored:
        """The responses with their verdicts and log-probs under policy and reference."""
        pair = [(p, drawn.prompt_tokens, drawn.tokens) for p in (self.policy, self.reference)]
        if not self.algorithm.needs_tokens:
            old, ref = (logprobs.score_responses(*one) for one in pair)
            return Scored(drawn, old, ref, preference, reward)
        token_old, token_ref = (logprobs.score_tokens(*one) for one in pair)
        old, ref = (drawn.tokens.sums(a).reshape(drawn.shape) for a in (token_old, token_ref))
        return Scored(drawn, old, ref, preference, reward, token_old, token_ref)

    def evaluate(self, judged: Policy, t: int) -> dict[str, Any]:
        """Shares of constraints met with their half interval over prompts, KL, length, and some texts."""
        drawn = self.sample(judged, self.held_out, self.arm.evaluated, "evaluate", t)
        return figures_of(self, drawn, judged)


def figures_of(run: Run, drawn: Rollout, judged: Policy) -> dict[str, Any]:
    """What `Run.evaluate` gives, of responses to the evaluation prompts."""
    met = run.judged(run.held_out, drawn, "constraint_met").mean(1)
    kinds = np.array([p.metadata["kind"] for p in run.held_out])
    logp, ref = (logprobs.score_responses(p, drawn.prompt_tokens, drawn.tokens) for p in (judged, run.reference))
    known = {p.metadata["kind"] for p in run.train}
    seen = np.isin(kinds, list(known))
    return {
        "met": float(met.mean()),
        "half": float(1.96 * met.std(ddof=1) / np.sqrt(len(met))),
        "met_seen_kinds": float(met[seen].mean()),
        "met_held_out_kinds": float(met[~seen].mean()) if (~seen).any() else None,
        "kinds": {kind: round(float(met[kinds == kind].mean()), 3) for kind in dict.fromkeys(kinds)},
        "score": float(run.judged(run.held_out, drawn, "score").mean()),
        "variety": float(run.judged(run.held_out, drawn, "variety").mean()),
        "kl_to_reference": metrics.kl(logp, ref),
        "length": float(drawn.tokens.lengths.mean()),
        "truncated": float(1 - drawn.finished.mean()),
        "responses": len(drawn.texts),
        "texts": [drawn.group(i)[0] for i in range(0, len(run.held_out), max(1, len(run.held_out) // 14))],
    }
