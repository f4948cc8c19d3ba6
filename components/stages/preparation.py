"""The stage `start`: everything that could fail later is checked here, before hours of work."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from components import prompts
from components.config.errors import PromptError
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.evaluation import benchmarks, groups, similarity
from components.judges import Judge
from components.plan import space
from components.policy import sources
from components.prompts import Source
from components.stages import first_verdicts, tracking
from components.stages.context import Workspace
from components.stages.handover import Started
from components.store import Manifest
from components.training import checks

if TYPE_CHECKING:
    from components.policy.model import Policy
    from components.stages.origin import Origin

logger = logging.getLogger(__name__)
PARTS = 4  # of the work on the base policy: loaded and examined, checked, precision chosen, stored
MOST_UNKNOWN = 0.1  # share of the prompts' tokens, from which a user must hear of it


def start(work: Workspace, origin: Origin | None = None) -> Started:
    """Checks everything that could fail later, stores base policy and prompts, samples the reference's responses.

    Of a run to continue from, takes all that instead.
    """
    work.use_threads()
    work.store.check()
    judge = work.config.judge
    judge.check()
    work.config.generation.engine.check()
    benchmarks.check(work.config.evaluation)
    similarity.check(work.config.evaluation.similarity)
    checks.check(work.config.training)
    tracking.check(work.config, work.store.root)
    return _start_anew(work, judge) if origin is None else origin.begin(work)


def _start_anew(work: Workspace, judge: Judge) -> Started:
    import torch

    from components.training import precision

    config = work.config
    source, sources = _sources(work)
    loaded = _load_prompts(work, sources)
    train, held_out = _split(work, loaded)
    folder = _policy_folder(work, source)
    progress = work.progress("check and store the base policy")
    progress(0, PARTS)
    base = _base_policy(work, folder)
    progress(1, PARTS)
    if (limit := config.prompts.drop_longer) is not None:
        train, held_out = _split_without_longer(work, base, sources, loaded, limit)
    _check_base(work, base, [*train, *held_out], folder)
    progress(2, PARTS)
    work = replace(work, precision=precision.pick_precision(base, config, train))
    progress(3, PARTS)
    policy_manifest = work.keep_files(folder)
    progress(PARTS, PARTS)
    kept = _keep_prompts(work, train=train, evaluation=held_out)
    held_out = work.prompts(kept, "evaluation")  # a judge must see now what it will see in later steps
    if config.training.lora is not None and work.precision == "bf16":
        base.model.to(torch.bfloat16)  # where only the probe told; the other steps load it so
    base, m = replace(base, precision=work.precision), config.evaluation.responses
    if config.generation.engine.reads_files:
        judge.unload()  # the engine wants the GPU for itself
    responses = work.sample(base, held_out, responses=m, purpose="evaluate", iteration=0)
    del base  # so may the judge
    judgement = first_verdicts.judge(work, held_out, responses)
    return Started(
        policy=policy_manifest,
        prompts=kept,
        evaluated=work.keep_rollout(responses, judgement.reward, judgement.parts),
        reward=float(judgement.reward.mean()),
        precision=work.precision,
    )


def _keep_prompts(work: Workspace, **by_name: list[Prompt]) -> Manifest:
    folder = work.new_folder()
    for name, some in by_name.items():
        prompts.save(some, folder / f"{name}.jsonl")
    return work.keep_files(folder)


def _check_base(work: Workspace, base: Policy, asked: list[Prompt], folder: Path) -> None:
    """Raises UserError for a base policy, with its files in `folder`, that these prompts or the training cannot use."""
    from components.generation import _stopping as stopping
    from components.policy import model as policies
    from components.policy import vocabulary

    config = work.config
    policies.check_lengths(
        base,
        asked,
        max_prompt_tokens=config.policy.max_prompt_tokens,
        max_new_tokens=config.generation.max_new_tokens,
    )
    unknown = vocabulary.unknown_share(base.tokenizer, [turn["content"] for p in asked for turn in p.messages])
    if unknown > MOST_UNKNOWN:
        logger.warning(
            "policy.model: its tokenizer knows no word for %.0f%% of the prompts' tokens: the policy reads them all as "
            "%r. See whether the tokenizer is the model's, and the prompts are in its language.",
            *(100 * unknown, base.tokenizer.unk_token),
        )
    stopping.Stopping(base.tokenizer, config.generation.stop, base.shown)  # raises what is wrong with them
    checks.check(config.training, base.model)
    space.check(config, work.store, space.of_base(config, base, folder))


def _base_policy(work: Workspace, folder: Path) -> Policy:
    """The policy as every later step loads it, from its folder, which then tells what is found out about it too."""
    from components.policy import model as policies

    config = work.config
    base = policies.load(
        folder,
        config.policy,
        precision=config.policy.precision,
        frozen=config.training.lora is not None,
        temperature=config.generation.temperature,
        marks=config.judge.marks(),
    )
    if filters := config.generation.filters():
        logger.warning(
            "generation.%s: responses are drawn from the likeliest tokens, log-probs are of the whole distribution: "
            "`kl` is no KL divergence, and win rates are those against what is drawn",
            " and generation.".join(filters),
        )
    return _examined(base, folder)


def _examined(base: Policy, folder: Path) -> Policy:
    """The policy with what its cache is good for, which is kept in its folder, as is the end of its turns."""
    from components.generation import _caching
    from components.policy import findings, logprobs, pretrained, vocabulary, whole

    pretrained.require_embedded(base.model, base.tokenizer, "policy")
    whole.require_finite(base.model, "policy", type(base.model).__name__)
    vocabulary.keep_turn_end(folder, base.model, base.tokenizer, base.eos_ids)
    logprobs.check_head(base)
    found = findings.Findings(caching=_caching.choose(base))
    if found.caching != "shared":
        logger.warning("policy.model: %s %s", type(base.model).__name__, _caching.CONSEQUENCES[found.caching])
        findings.write(found, folder)
    return replace(base, caching=found.caching)


def _sources(work: Workspace) -> tuple[Path, list[Source]]:
    """Where the policy lies, and sources of training and evaluation prompts or of both in one; the demo's are made."""
    if (config := work.config).demo is None:
        sources = prompts.configured(config.prompts)  # refused before a policy is downloaded
        return _find_policy(config.policy), sources
    from components import demo

    folder = work.new_folder()
    demo.build(folder, config.demo, seed=config.seed, progress=work.progress("fine-tune the demo policy"))
    return folder / "policy", [Source((str(folder / f"{name}.jsonl"),)) for name in ("train", "evaluation")]


def _find_policy(config: PolicyConfig) -> Path:
    """Directory or GGUF file of the configured policy, downloaded first if it is a hub id."""
    from components.policy import model as policies

    path = sources.locate(config)
    if unused := sources.unused_gguf(path):
        print(f"policy.model: takes the safetensors in {path}, which are exact; not {', '.join(unused)} beside them.")
    return path if path.is_file() else policies.fetch(config)


def _policy_folder(work: Workspace, source: Path) -> Path:
    """The policy's files in the scratch folder: made there, converted, or a copy of what belongs to a policy."""
    from components.policy import gguf_files
    from components.policy import model as policies

    config, folder = work.config.policy, work.folder / "policy"
    if source.is_file():
        return gguf_files.convert(source, folder, config, work.progress(f"convert {source.name} to safetensors"))
    if source.is_relative_to(work.folder):
        return source
    return policies.copy_files(source, folder, code=config.trust_remote_code)


def _load_prompts(work: Workspace, sources: list[Source]) -> list[list[Prompt]]:
    """All prompts of each source."""
    settings = work.config.prompts
    columns = prompts.Columns(settings.column, settings.leave_out)
    return [prompts.load_source(source, columns, allow_duplicates=settings.allow_duplicates) for source in sources]


def _split(work: Workspace, loaded: list[list[Prompt]]) -> tuple[list[Prompt], list[Prompt]]:
    """Training and evaluation prompts, none in both, out of one source or two."""
    config = work.config
    settings, seed = config.prompts, config.seed
    if len(loaded) == 1:
        trained, evaluated = prompts.split_held_out(loaded[0], settings.held_out, seed)
    else:
        trained, evaluated = loaded[0], loaded[1][: settings.held_out]
    prompts.refuse_overlap(trained, evaluated)
    _check_number(work, trained)
    groups.split(evaluated, config.evaluation.group_by)
    return trained, evaluated


def _split_without_longer(
    work: Workspace, base: Policy, sources: list[Source], loaded: list[list[Prompt]], limit: int
) -> tuple[list[Prompt], list[Prompt]]:
    """As `_split`, of the prompts with at most `prompts.drop_longer` tokens under the policy's chat template."""
    kept = [
        prompts.drop_longer(
            found,
            limit,
            count_tokens=lambda prompt: len(base.encode(prompt)),
            source=str(source),
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
