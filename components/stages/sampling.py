"""Sampling and judging as the stages need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from components.data.records import Prompt, Ragged, Rollout
from components.data.seeds import derive_seed
from components.generation import Engine, Sampling
from components.generation._stopping import before
from components.judges import Answers, Judge, Judgement
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:  # `gather` and `end` need no torch
    from components.policy.model import Policy


def generate(
    policy: Policy,
    engine: Engine,
    prompts: Sequence[Prompt],
    *,
    responses: int,
    sampling: Sampling,
    seed: int,
    purpose: str,
    iteration: int,
    progress: Progress = silent,
) -> Rollout:
    """K responses to each prompt.

    Each response has a seed of its own, from run seed, purpose ("train" or "evaluate"), iteration, prompt id
    and k: a shard that runs again, alone or among others, draws the same responses.
    """
    tokens = [policy.encode(prompt) for prompt in prompts]
    seeds = [[derive_seed(seed, purpose, iteration, p.id, k) for k in range(responses)] for p in prompts]
    samples = engine.sample(policy, tokens, np.array(seeds, dtype=np.uint64), sampling, progress)
    rows = [samples.tokens[i] for i in range(len(samples.tokens))]
    ids, texts = [p.id for p in prompts], [before(text, sampling.stop) for text in policy.decode(rows)]
    engine_logp = samples.logp if sampling.temperature == 1 else None  # ours are at the temperature of sampling
    ends = [policy.end(row) for row in tokens]
    return Rollout(
        prompt_ids=ids,
        prompt_tokens=Ragged.of(tokens),
        tokens=samples.tokens,
        texts=texts,
        finished=samples.finished,
        logp_engine=engine_logp,
        token_logp=samples.token_logp,
        prompt_ends=ends,
    )


def judge(
    judge: Judge, prompts: Sequence[Prompt], rollouts: Sequence[Rollout], progress: Progress = silent
) -> Judgement:
    """One judgement over the responses of several rollouts to the same prompts, in the order given."""
    n = len(prompts)
    answers = Answers(
        texts=[[text for r in rollouts for text in r.group(i)] for i in range(n)],
        truncated=~np.concatenate([r.finished for r in rollouts], axis=1),
        prompt_ends=next((r.prompt_ends for r in rollouts if r.prompt_ends is not None), [""] * n),
        policies=len(rollouts),
    )
    return judge.verdict(prompts, answers, progress)
