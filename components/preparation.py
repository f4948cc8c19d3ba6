"""The stage `start`: everything that could fail later is checked here, before hours of work."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components import benchmarks, prompts, rollouts
from components.errors import PromptError
from components.judges import Judge
from components.records import Prompt
from components.store import Manifest
from components.training import update
from components.workspace import Workspace

if TYPE_CHECKING:
    from components.origin import Origin
    from components.policy import Policy


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Started:
    """What `start` hands to the iterations."""

    policy: Manifest  # base policy and reference
    prompts: Manifest  # train.jsonl and evaluation.jsonl
    evaluated: Manifest  # the reference's responses to the evaluation prompts
    reward: float  # their mean score
    precision: str  # resolved: "fp32" or "bf16"


def start(work: Workspace, origin: Origin | None = None) -> Started:
    """Checks everything that could fail later, stores base policy and prompts, samples the reference's responses.

    Of a run to go on from, takes all that instead.
    """
    work.use_threads()
    work.store.check()
    judge = work.config.build_judge()
    judge.check()
    work.config.build_engine().check()
    benchmarks.check(work.config.evaluation)
    update.check(work.config.training)
    if origin is None:
        return _start_anew(work, judge)
    origin.check(work)
    _check_number(work, work.prompts(origin.started.prompts, "train"))
    return origin.started


def _start_anew(work: Workspace, judge: Judge) -> Started:
    import torch

    from components import policy, precision

    config = work.config
    source, sources = _sources(work)
    loaded = _load_prompts(work, sources)
    train, held_out = _split(work, loaded)
    base = _base_policy(work, source)
    assert base.folder is not None
    if config.prompts.drop_longer is not None:
        train, held_out = _split_without_longer(work, base, sources, loaded)
    policy.check_lengths(
        base,
        [*train, *held_out],
        max_prompt_tokens=config.policy.max_prompt_tokens,
        max_new_tokens=config.generation.max_new_tokens,
    )
    update.check(config.training, base.model)
    work = replace(work, precision=precision.pick_precision(base, config.policy.precision))
    policy_manifest = work.store.put(base.folder)
    prompts_folder = work.folder / "prompts"
    prompts_folder.mkdir()
    prompts.save(train, prompts_folder / "train.jsonl")
    prompts.save(held_out, prompts_folder / "evaluation.jsonl")
    if config.training.lora is not None and work.precision == "bf16":
        base.model.to(torch.bfloat16)  # where only the probe told; the other steps load it so
    base, m = replace(base, precision=work.precision), config.evaluation.responses
    if config.build_engine().reads_files:
        judge.unload()  # the engine wants the GPU for itself
    responses = work.sample(base, held_out, responses=m, purpose="evaluate", iteration=0)
    reward = rollouts.judge(judge, held_out, [responses]).reward
    return Started(
        policy=policy_manifest,
        prompts=work.store.put(prompts_folder),
        evaluated=work.keep_rollout(responses, reward),
        reward=float(reward.mean()),
        precision=work.precision,
    )


def _base_policy(work: Workspace, source: Path) -> Policy:
    """The policy as every later step loads it, from a folder with its own files and what is found out about it."""
    from components import policy

    config = work.config
    folder = policy.copy_files(source, work.folder / "policy", code=config.policy.trust_remote_code)
    base = policy.load(
        folder,
        config.policy,
        precision=config.policy.precision,
        frozen=config.training.lora is not None,
        temperature=config.generation.temperature,
    )
    if config.generation.top_p < 1:
        logger.warning(
            "generation.top_p: responses are drawn from the likeliest tokens, log-probs are of the whole distribution: "
            "`kl` is no KL divergence, and win rates are those against what is drawn"
        )
    return _examined(base, folder)


def _examined(base: Policy, folder: Path) -> Policy:
    """The policy with what its cache is good for, which is kept in its folder, as is the end of its turns."""
    from components import caching, findings, logprobs, vocabulary

    vocabulary.keep_turn_end(base, folder)
    logprobs.check_head(base)
    found = findings.Findings(caching=caching.choose(base))
    if found.caching != "shared":
        logger.warning("policy.model: %s %s", type(base.model).__name__, caching.CONSEQUENCES[found.caching])
        findings.write(found, folder)
    return replace(base, caching=found.caching)


def _sources(work: Workspace) -> tuple[Path, list[str]]:
    """Policy directory, and sources of training and evaluation prompts or of both in one: the user's, or the demo's."""
    from components import demo, policy

    config = work.config
    if config.demo is None:
        given = [config.prompts.train, config.prompts.evaluation]
        return policy.fetch(config.policy), [source for source in given if source is not None]
    folder = work.folder / "demo"
    folder.mkdir()
    demo.build(folder, config.demo, seed=config.seed, progress=work.progress("fine-tune the demo policy"))
    return folder / "policy", [str(folder / "train.jsonl"), str(folder / "evaluation.jsonl")]


def _load_prompts(work: Workspace, sources: list[str]) -> list[list[Prompt]]:
    """All prompts of each source."""
    settings = work.config.prompts
    return [
        prompts.load(source, split=settings.split, column=settings.column, allow_duplicates=settings.allow_duplicates)
        for source in sources
    ]


def _split(work: Workspace, loaded: list[list[Prompt]]) -> tuple[list[Prompt], list[Prompt]]:
    """Training and evaluation prompts, none in both, out of one source or two."""
    settings, seed = work.config.prompts, work.config.seed
    if len(loaded) == 1:
        trained, evaluated = prompts.split_held_out(loaded[0], settings.held_out, seed)
    else:
        trained, evaluated = loaded[0], loaded[1][: settings.held_out]
    prompts.refuse_overlap(trained, evaluated)
    _check_number(work, trained)
    return trained, evaluated


def _split_without_longer(
    work: Workspace, base: Policy, sources: list[str], loaded: list[list[Prompt]]
) -> tuple[list[Prompt], list[Prompt]]:
    """As `_split`, of the prompts with at most `prompts.drop_longer` tokens under the policy's chat template."""
    limit = work.config.prompts.drop_longer
    assert limit is not None
    kept = [
        prompts.drop_longer(
            found,
            limit,
            count_tokens=lambda prompt: len(base.encode(prompt)),
            source=source,
            progress=work.progress("count the tokens of prompts"),
        )
        for source, found in zip(sources, loaded, strict=True)
    ]
    try:
        return _split(work, kept)
    except PromptError as error:
        dropped = len(loaded[0]) - len(kept[0])
        raise PromptError(
            f"{error} prompts.drop_longer: {dropped:,} of {len(loaded[0]):,} prompts are longer than {limit:,} tokens "
            "and dropped; a higher limit keeps more."
        ) from error


def _check_number(work: Workspace, trained: list[Prompt]) -> None:
    prompts.choose(trained, per_iteration=work.config.prompts.per_iteration, iteration=1, seed=work.config.seed)
