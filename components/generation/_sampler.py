"""Sampling with the policy's own forward: one prefill per prompt shared by its K responses, a growing KV cache.

Faster than `model.generate` because the prompt is read once instead of K times, the cache is not copied at
every token, finished responses leave the batch, and a token costs one cumulative sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.data.records import Ragged, TokenIds
from components.generation import Samples, Sampling
from components.generation._decoding import decoder
from components.generation._stopping import Stopping
from components.policy.head import head_logits
from components.policy.model import Policy
from components.runtime.progress import Progress, silent, with_token_rate

COMPACT = 0.75  # finished responses leave the batch when this share still runs; a copy of the rest's cache each time


def sample(
    policy: Policy,
    prompts: Sequence[TokenIds],
    seeds: NDArray[np.uint64],
    sampling: Sampling,
    *,
    batch_size: int,
    progress: Progress = silent,
) -> Samples:
    """Samples responses; see `Engine.sample`. `batch_size` is the number of responses sampled at once."""
    n, k = seeds.shape
    rows: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * (n * k)
    figures: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * (n * k)
    finished = np.zeros((n, k), dtype=bool)
    done = tokens = 0
    show = with_token_rate(progress, n * k)
    for indices in _batches(policy, prompts, max(1, batch_size // k)):
        batch = [prompts[i] for i in indices]
        drawn, ended, logp = _sample_batch(
            policy,
            batch,
            seeds[indices],
            sampling,
            lambda ended, more, done=done, tokens=tokens: show(done + ended, tokens + more),
        )
        done, tokens = done + len(drawn), tokens + sum(map(len, drawn))
        for i, group in zip(indices, range(0, len(drawn), k), strict=True):
            rows[i * k : (i + 1) * k] = drawn[group : group + k]
            figures[i * k : (i + 1) * k] = logp[group : group + k]
        finished[indices] = ended.reshape(-1, k)
    own = np.concatenate(figures) if _as_trained(policy, sampling) else None
    return Samples(Ragged.of(rows), finished, token_logp=own)


def _as_trained(policy: Policy, sampling: Sampling) -> bool:
    """Whether tokens are drawn of the distribution that the trainer has, and in arithmetic that gives it to 1e-5."""
    plain = Sampling(sampling.max_new_tokens, policy.temperature, stop=sampling.stop)
    return policy.precision == "fp32" and sampling == plain


def _batches(policy: Policy, prompts: Sequence[TokenIds], size: int) -> Iterator[NDArray[np.int64]]:
    """Indices of prompts of similar length, since equal lengths need no padding; the longest first.

    Of equal length alone where the policy's cache takes no padding.
    """
    lengths = np.array([len(prompt) for prompt in prompts])
    order = np.argsort(-lengths, kind="stable")
    cuts = np.flatnonzero(np.diff(lengths[order])) + 1
    for group in np.split(order, cuts if policy.caching == "equal" else []):
        yield from np.split(group, range(size, len(group), size))


def draw(logits: Tensor, uniforms: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Draws one token per row by inverting the cumulative distribution.

    Args:
        logits: (B, V).
        uniforms: (B,) in [0, 1), float64; the row's only randomness, so a row never depends on its neighbours.
        sampling: temperature, min_p, top_k and top_p; see `_kept`. Of what they keep, the nucleus is the fewest most
            likely tokens whose mass reaches top_p.

    Returns:
        (B,) token ids, never one of probability zero, and (B,) log-probs that they were drawn with, nats, fp32.

    Raises:
        FloatingPointError: logits that are not finite.
    """
    probabilities = torch.softmax(_kept(logits / sampling.temperature, sampling), dim=-1)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        mass = ordered.cumsum(-1, dtype=torch.float64)
        kept = ordered.masked_fill(mass - ordered >= sampling.top_p, 0)
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, kept)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    threshold = (uniforms * cumulative[:, -1]).unsqueeze(-1)
    drawn = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    if drawn.max() == logits.shape[-1]:  # NaN is past every entry
        raise FloatingPointError(
            "the policy's logits are not finite. Use policy.precision: fp32, or check the weights."
        )
    return drawn, probabilities.gather(-1, drawn[:, None]).squeeze(-1).log().float()


def _kept(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits (B, V) with -inf for tokens that min_p and then top_k leave out; as in vLLM, ties at the edge stay."""
    if sampling.min_p > 0:
        probabilities = logits.softmax(-1)
        least = sampling.min_p * probabilities.amax(-1, keepdim=True)
        logits = logits.masked_fill(probabilities < least, -torch.inf)
    if sampling.top_k is not None and sampling.top_k < logits.shape[-1]:
        last = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < last, -torch.inf)
    return logits


def uniforms_of(seeds: NDArray[np.uint64], length: int) -> NDArray[np.float64]:
    """`length` numbers in [0, 1) for each seed, (B, length): multiples of 2^-32, so none rounds up to 1."""
    draws = [np.random.Philox(key=int(seed)).random_raw(length) for seed in seeds]
    uniforms: NDArray[np.float64] = (np.stack(draws) >> np.uint64(32)).astype(np.float64) * 2.0**-32
    return uniforms


@torch.no_grad()  # in inference mode autocast keeps no weights, and casts all of them for each token
def _sample_batch(
    policy: Policy,
    prompts: Sequence[TokenIds],
    seeds: NDArray[np.uint64],
    sampling: Sampling,
    progress: Any,
) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_], list[NDArray[np.float32]]]:
    """K responses per prompt of one batch, which ended with EOS or a stop string, and the log-probs of their tokens."""
    device, limit = policy.device, sampling.max_new_tokens
    uniforms = torch.from_numpy(uniforms_of(seeds.reshape(-1), limit)).to(device)
    stopping = Stopping(policy.tokenizer, sampling.stop, policy.shown)
    eos = torch.tensor(policy.eos_ids + stopping.ids, device=device)
    total = len(uniforms)
    tokens = torch.zeros(total, limit, dtype=torch.int64, device=device)
    logp = torch.zeros(total, limit, device=device)
    rows = torch.arange(total, device=device)  # rows of `tokens` that the batch still holds
    running = torch.ones(total, dtype=torch.bool, device=device)  # which of them have not ended
    lengths = torch.full((total,), limit, device=device)  # up to a stop string that was seen; behind it stands nothing
    left, count = total, 0  # rows that run, and tokens drawn for those that did

    read = decoder(policy, prompts, seeds.shape[1], limit)
    with policy.autocast():  # entered once: it keeps the weights it has cast
        hidden = read.first()
        for step in range(limit):
            logits = head_logits(policy.model, hidden, policy.unused)
            drawn, logp[rows, step] = draw(logits, uniforms[rows, step], sampling)
            tokens[rows, step] = drawn
            running &= ~torch.isin(drawn, eos)
            lengths[rows[_leave_stopped(running, tokens[rows, : step + 1], stopping)]] = step + 1
            count += left
            left = int(running.sum())
            progress(total - left if step < limit - 1 else total, count)
            if left == 0 or step == limit - 1:
                break
            if left <= COMPACT * len(rows):
                read.keep(running)
                rows, drawn, running = rows[running], drawn[running], running[running]
            hidden = read.following(drawn)
    drawn_rows, ended = stopping.until_stop(*_until_eos(tokens, lengths, eos))
    return drawn_rows, ended, [row[: len(kept)] for row, kept in zip(logp.cpu().numpy(), drawn_rows, strict=True)]


def _leave_stopped(running: Tensor, tokens: Tensor, stopping: Stopping) -> Tensor:
    """Marks rows that have completed a stop string as no longer running; (B,) and their tokens so far, (B, L).

    Returns their indices.
    """
    still = running.nonzero()[:, 0]
    if not stopping.texts or not len(still):
        return still[:0]
    completed = stopping.completed(list(tokens[still].cpu().numpy()))
    stopped = still[torch.tensor(completed, device=still.device)]
    running[stopped] = False
    return stopped


def _until_eos(tokens: Tensor, lengths: Tensor, eos: Tensor) -> tuple[list[NDArray[np.int64]], NDArray[np.bool_]]:
    """Each row of that length up to its first EOS, and whether there is one; what stands behind is for nothing."""
    drawn = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    stops = (torch.isin(tokens, eos) & drawn).cpu().numpy()
    ended: NDArray[np.bool_] = np.asarray(stops.any(1))
    ends = np.where(ended, stops.argmax(1) + 1, lengths.cpu().numpy())
    return [row[:end] for row, end in zip(tokens.cpu().numpy(), ends, strict=True)], ended
