"""Which shortcuts an architecture allows: `start` compares each with the model's own forward of one row at a time.

Recurrent and hybrid models keep a state in place of keys and values. Padding may leak into it, and some take further
tokens one at a time only, or ignore the cache that they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from components.config.errors import PolicyError
from components.generation._decoding import decoder
from components.policy.batches import collate
from components.policy.findings import Caching
from components.policy.head import head_logits
from components.policy.logprobs import REFUSALS, response_logprobs
from components.policy.model import Policy

LENGTHS, STEPS, K = (3, 7, 12), 5, 2  # tokens of the prompts and of each of their K responses
ALIKE = 1e-4, 1e-2  # difference per token over the largest logit, of weights in fp32 and in less

CONSEQUENCES = {
    "equal": "takes no padding into its cache: responses are drawn for prompts of one length at a time, and scored and "
    "trained with their prompts read again for each.",
    "none": "has no cache that could be trusted: all tokens are read again for each that is drawn, which is slow.",
}

Rows = list[list[int]]


@torch.no_grad()
def choose(policy: Policy) -> Caching:
    """The most that the policy's architecture allows.

    Raises PolicyError for a model whose log-probs of right-padded rows are not those of each row alone, and for one
    that draws otherwise than it scores even without a cache.
    """
    exact = policy.model.dtype == torch.float32
    policy = replace(policy, precision="fp32" if exact else policy.precision, caching="none", temperature=1.0)
    prompts, responses = _sequences(policy)
    name = type(policy.model).__name__
    expected, largest = _alone(policy, prompts, responses)
    tolerance = ALIKE[0 if exact else 1] * STEPS * largest

    def agrees(found: Callable[[], Tensor]) -> bool:
        return _difference(policy, found, expected) <= tolerance

    difference = _difference(policy, partial(_scored, policy, prompts, responses, share=False), expected)
    if difference > tolerance:
        raise PolicyError(
            f"policy.model: {name} gives a response in a padded batch another log-prob than alone, by "
            f"{difference:.3g} nats, and training would be wrong. Use another model."
        )
    shares = agrees(partial(_scored, policy, prompts, responses, share=True))
    choices: tuple[Caching, ...] = ("shared", "equal", "none") if shares else ("equal", "none")
    for caching in choices:
        if agrees(partial(_drawn, replace(policy, caching=caching), prompts, responses)):
            return caching
    raise PolicyError(
        f"policy.model: {name} gives a token other log-probs when responses are drawn than when they are scored. "
        "Use another model."
    )


def _sequences(policy: Policy) -> tuple[Rows, Rows]:
    """Token ids without meaning, none of them padding or EOS."""
    known = set(policy.tokenizer.get_vocab().values()) - {policy.pad_id, *policy.eos_ids}
    rows = policy.model.get_input_embeddings().weight.shape[0]
    ids = np.array(sorted(i for i in known if i < rows), dtype=np.int64)
    generator = np.random.default_rng(0)
    lengths = [*LENGTHS, *[STEPS] * (K * len(LENGTHS))]
    sequences = [generator.choice(ids, length).tolist() for length in lengths]
    return sequences[: len(LENGTHS)], sequences[len(LENGTHS) :]


def _alone(policy: Policy, prompts: Rows, responses: Rows) -> tuple[Tensor, float]:
    """Log-probs of the responses by the model's own forward of one row, (R,), and the largest of its logits."""
    sums, largest = [], 0.0
    for i, response in enumerate(responses):
        prompt = prompts[i // K]
        ids = torch.tensor([prompt + response], device=policy.device)
        with policy.autocast():
            logits: Tensor = policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        largest = max(largest, logits.abs().max().item())
        if policy.unused is not None:
            logits = logits.masked_fill(policy.unused, -torch.inf)
        sums.append(logits.log_softmax(-1).gather(-1, ids[0, len(prompt) :, None]).sum())
    return torch.stack(sums), largest


def _scored(policy: Policy, prompts: Rows, responses: Rows, *, share: bool) -> Tensor:
    """The same as scoring and training have them."""
    return response_logprobs(policy, collate(prompts, responses, policy.pad_id, policy.device, share_prompts=share))


def _drawn(policy: Policy, prompts: Rows, responses: Rows) -> Tensor:
    """The same as the sampler has them, which drops rows on the way."""
    if policy.caching != "equal":
        return _drawn_together(policy, prompts, responses)
    parts = [_drawn_together(policy, [p], responses[i * K : (i + 1) * K]) for i, p in enumerate(prompts)]
    return torch.cat(parts)


def _drawn_together(policy: Policy, prompts: Rows, responses: Rows) -> Tensor:
    """Of each prompt's K + 1 rows the first, a copy of the second, is dropped after two tokens."""
    groups = [responses[i : i + K] for i in range(0, len(responses), K)]
    tokens = torch.tensor([row for group in groups for row in [group[0], *group]], device=policy.device)
    running = torch.tensor([False, *[True] * K] * len(prompts), device=policy.device)
    read = decoder(policy, prompts, K + 1, STEPS)
    logp = torch.zeros(len(tokens), device=policy.device)
    with policy.autocast():
        hidden = read.first()
        for step in range(STEPS):
            likely = head_logits(policy.model, hidden, policy.unused).log_softmax(-1)
            logp = logp + likely.gather(-1, tokens[:, step, None])[:, 0]
            if step == 1:
                read.keep(running)
                tokens, logp = tokens[running], logp[running]
            if step < STEPS - 1:
                hidden = read.following(tokens[:, step])
    return logp


def _difference(policy: Policy, found: Callable[[], Tensor], expected: Tensor) -> float:
    """The largest difference from what is expected; infinite where the model refuses the attempt.

    Of weights in bf16 the second, as rounding sends a token to other experts now and then.
    """
    try:
        differences = (found() - expected).abs()
    except REFUSALS:
        return float("inf")
    difference = differences.sort().values[-1 if policy.model.dtype == torch.float32 else -2].item()
    return difference if np.isfinite(difference) else float("inf")
