"""One iteration of an on-policy algorithm: each optimiser step draws its own responses and has them judged.

They come from the policy as it is at that step and from an anchor, a moving average of the policy, which runs on from
iteration to iteration as the optimiser does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.algorithms import FreshGroup, OnPolicyAlgorithm
from components.data.records import Prompt, Ragged, Rollout, TokenIds
from components.judges import Judgement
from components.policy.batches import collate
from components.policy.logprobs import response_logprobs
from components.policy.model import Policy
from components.training import ties
from components.training.loop import Part, nothing
from components.training.optimizer import trainable_parameters
from components.training.state import TrainingState, anchor_weights

Draw = Callable[[Policy, Sequence[Prompt], int, str], Rollout]  # (policy, prompts, how many each, purpose)
Compare = Callable[[Sequence[Prompt], Sequence[Rollout]], Judgement]


def make_anchor(policy: Policy, path: Path | None = None) -> Policy:
    """A copy of the policy, with the weights that `save_anchor` wrote if there are any; frozen ones are shared."""
    shared = {id(parameter): parameter for parameter in policy.model.parameters() if not parameter.requires_grad}
    anchor = replace(policy, model=deepcopy(policy.model, shared).requires_grad_(False))
    if path is not None:
        found = load_file(path)
        with torch.no_grad():
            for name, parameter in anchor_weights(policy, anchor):
                parameter.copy_(found[name])
    return anchor


def save_anchor(policy: Policy, anchor: Policy, path: Path) -> None:
    """Writes the anchor's own weights as safetensors."""
    save_file({name: p.detach().contiguous() for name, p in anchor_weights(policy, anchor)}, path)


@dataclass
class OnPolicyTrainer:
    """The optimiser step of an on-policy algorithm, for `loop.run_steps`."""

    state: TrainingState  # with an anchor
    algorithm: OnPolicyAlgorithm
    prompts: Sequence[Prompt]
    draw: Draw
    compare: Compare

    @property
    def policy(self) -> Policy:
        """pi_theta."""
        return self.state.policy

    @property
    def anchor(self) -> Policy:
        """The moving average of pi_theta."""
        assert self.state.anchor is not None
        return self.state.anchor

    def gradient(self, chosen: NDArray[np.int64], part: Part = nothing) -> tuple[float, dict[str, float]]:
        """See `loop.Trainer`: draws y from the policy and y1, y2 from the anchor for each chosen prompt."""
        prompts = [self.prompts[i] for i in chosen]
        fresh = self._draw(self.policy, prompts, 1, "policy")
        part(drawn=len(prompts))
        rivals = self._draw(self.anchor, prompts, 2, "anchor")
        part(drawn=3 * len(prompts))
        preference = self.compare(prompts, [fresh, rivals]).preference
        part(judged=len(prompts))
        rows = [fresh.tokens[i] for i in range(len(prompts))]
        at_once = len(prompts) <= self.state.micro_batch_size
        with torch.set_grad_enabled(at_once):  # then this pass serves the gradient too
            logp = self._logprobs(self.policy, fresh.prompt_tokens, rows)
        with torch.no_grad():
            logp_anchor = self._logprobs(self.anchor, fresh.prompt_tokens, rows)
        known = FreshGroup(logp.detach(), logp_anchor, torch.as_tensor(preference, device=logp.device))
        weights = self.algorithm.weights(known) / len(prompts)
        if at_once:
            torch.autograd.backward((weights[:, 0] * logp).sum())
        else:
            self._descend(fresh.prompt_tokens, rows, weights[:, :1])
        self._descend(rivals.prompt_tokens, [rivals.tokens[i] for i in range(2 * len(prompts))], weights[:, 1:])
        # Only now: a step that runs out of memory is done again, and draws the same responses.
        for rollout in (fresh, rivals):
            self._count("responses", len(rollout.tokens))
            self._count("tokens_generated", len(rollout.tokens.values))
        return weights.sum().item(), {
            "beaten": float((preference[:, 0, 1:] < 0.5).all(-1).mean()),
            "tied": ties.share(preference),
            "kl_anchor": (known.logp - logp_anchor).mean().item(),
        }

    def _draw(self, policy: Policy, prompts: Sequence[Prompt], count: int, name: str) -> Rollout:
        return self.draw(policy, prompts, count, f"{name} {self.state.done}")

    def _count(self, what: str, count: int) -> None:
        self.state.drawn[what] = self.state.drawn.get(what, 0) + count

    def _logprobs(self, policy: Policy, prompts: Ragged, rows: Sequence[TokenIds]) -> Tensor:
        """log pi of one response to each prompt, (n,)."""
        size = self.state.micro_batch_size
        parts = []
        for i in range(0, len(rows), size):
            batch = [prompts[j] for j in range(i, min(i + size, len(rows)))]
            parts.append(response_logprobs(policy, collate(batch, rows[i : i + size], policy.pad_id, policy.device)))
        return torch.cat(parts)

    def _descend(self, prompts: Ragged, rows: Sequence[TokenIds], weights: Tensor) -> None:
        """Adds Σ weights·∇log pi_theta to the gradient; `rows` are the (n, m) responses that the weights belong to."""
        used = weights.reshape(-1).nonzero()[:, 0].tolist()
        flat, m = weights.reshape(-1), weights.shape[1]
        for begin in range(0, len(used), self.state.micro_batch_size):
            part = used[begin : begin + self.state.micro_batch_size]
            pairs = [prompts[i // m] for i in part], [rows[i] for i in part]
            logp = response_logprobs(self.policy, collate(*pairs, self.policy.pad_id, self.policy.device))
            torch.autograd.backward((flat[part] * logp).sum())

    @torch.no_grad()
    def updated(self) -> None:
        """See `loop.Trainer`: anchor <- (1 - e)·anchor + e·policy."""
        anchor = tuple(parameter for _, parameter in anchor_weights(self.policy, self.anchor))
        policy = tuple(parameter for _, parameter in trainable_parameters(self.policy))
        torch._foreach_lerp_(anchor, policy, self.algorithm.anchor_rate)
