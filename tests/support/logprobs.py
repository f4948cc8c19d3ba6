"""Log-probs as the code computes them, and plainly from a model's own logits."""

from __future__ import annotations

import numpy as np
import torch

from components.policy.batches import collate
from components.policy.logprobs import response_logprobs

CPU = torch.device("cpu")
VOCABULARY, EOS, PAD = 60, 1, 2  # of the models in support.models.words


def ragged(rng, lengths):
    """Token ids, special ones left out."""
    return [rng.integers(6, VOCABULARY, length) for length in lengths]


def plain(model, prompts, responses):
    """Row by row, unpadded, from log-softmax of the full logits; (B,) in the model's dtype, differentiable."""
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([*prompt, *response])
        logp = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        rows.append(sum((logp[i - 1, ids[i]] for i in range(len(prompt), len(ids))), logp.new_zeros(())))
    return torch.stack(rows)


def ours(policy, prompts, responses, logits_per_chunk=None):
    return response_logprobs(policy, collate(prompts, responses, PAD, CPU), logits_per_chunk)


def gradients(model, value):
    """Gradients of every parameter, in one vector."""
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(model.parameters()))])


def groups():
    """Prompts of unequal length, one of a single token, three responses to each, and a prompt for each response."""
    rng = np.random.default_rng(2)
    prompts = ragged(rng, [4, 1, 9])
    responses = ragged(rng, [3, 0, 9, 1, 5, 5, 2, 12, 1])
    return prompts, responses, [prompt for prompt in prompts for _ in range(3)]
