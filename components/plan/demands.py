"""What a plan is asked for: numbers of the command line, and whether they go together with the config."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence

from components.config.yaml_scalars import plain_number
from components.plan.costs import SMALLEST, Lengths
from components.plan.measured import SHARDS
from components.plan.models import PlanError
from components.run_config import RunConfig

LEAST, LARGEST = 1e-9, 1e15  # of any number: what follows from others is neither 0 nor infinite
SHOWN = 80  # characters of a word in a message
PROMPT_TOKENS = 200.0
# Keys of the laboratory's config, which is read in a room above this one, and those that no run's config has.
LABORATORY_ALONE = frozenset({"methods", "settings", "sampling"})
LABORATORY = LABORATORY_ALONE | {"seeds", "iterations"}


def require_run(values: Mapping[str, object]) -> None:
    """Raises PlanError for the values of a config of the laboratory, whose keys a run does not have."""
    if values.keys() <= LABORATORY and values.keys() & LABORATORY_ALONE:
        raise PlanError(
            f"{min(values.keys() & LABORATORY_ALONE)}: is of a config of flows/bandit_flow.py, which takes no GPU and "
            "needs no plan. Run it, or name the config of a run."
        )


def require_used(given: argparse.Namespace, planned: Sequence[RunConfig]) -> None:
    """Raises PlanError for an option without which the plan of these runs would be the same."""
    in_shards = any(not run.algorithm.on_policy for run in planned)
    if given.history is not None and len(planned) > 1:
        raise PlanError("--history: is of one run, and this config compares several. Plan one of them, or without it.")
    if given.history is None and given.history_shards is not None:
        raise PlanError(f"{SHARDS}: is how the run of --history was split. Give that, too.")
    if given.interruptions is not None and given.spot_price is None:
        raise PlanError("--interruptions: are of spot machines. Give their price with --spot-price, too.")
    if given.spot_price is not None and given.price is None:
        raise PlanError("--spot-price: is for generate and score. Give the price of the others, --price, too.")
    if given.spot_price is not None and not in_shards:
        raise PlanError("--spot-price: is for generate and score, and this run draws in training. Leave it out.")
    if given.network is not None and given.history is not None:
        raise PlanError("--network: the times of --history have the waiting for it in them. Leave one of them out.")
    if given.network is not None and all(run.training.nodes == 1 for run in planned):
        raise PlanError("--network: is between machines, and training.nodes is 1. Leave it out, or raise that.")


def lengths(given: argparse.Namespace, run: RunConfig) -> Lengths:
    """Of prompts and responses. Raises PlanError for a mean that is above what the config allows."""
    most = min(run.policy.max_prompt_tokens, run.prompts.drop_longer or math.inf)
    prompt = min(PROMPT_TOKENS, most) if given.prompt_tokens is None else given.prompt_tokens
    if prompt > most:
        key = "policy.max_prompt_tokens" if most == run.policy.max_prompt_tokens else "prompts.drop_longer"
        raise PlanError(f"--prompt-tokens: {prompt:g} is more than {key}, {most}, allows. Lower it, or raise that.")
    longest = run.generation.max_new_tokens
    response = longest / 2 if given.response_tokens is None else given.response_tokens
    if response > longest:
        raise PlanError(
            f"--response-tokens: {response:g} is more than generation.max_new_tokens, {longest}, allows. Lower it, or "
            "raise that."
        )
    return Lengths(prompt, response)


def counts(given: Sequence[str], policy: str) -> dict[str, float]:
    """Parameters by model. Raises PlanError for what is no number or no model's, and for a model given twice."""
    found: dict[str, float] = {}
    for text in given:
        name, _, count = text.rpartition("=")
        name = name or policy
        if name in found:
            raise PlanError(f"--parameters: the size of {name} is given twice. Give it once.")
        try:
            found[name] = number(count)
        except argparse.ArgumentTypeError as error:
            raise PlanError(f"--parameters {text}: {error}.") from error
        if found[name] < SMALLEST:
            raise PlanError(
                f"--parameters {text}: is a model of {found[name]:g} parameters, and one of a single layer has "
                f"{SMALLEST:,}. Write all of them, for 8 B 8.0e9."
            )
    return found


def number(text: str, *, or_zero: bool = False) -> float:
    """A size, length, price or rate. Raises argparse's error for what is none, in ASCII digits and within bounds.

    Args:
        text: of the command line.
        or_zero: whether it may be 0.
    """
    found = plain_number(text)
    if not (LEAST <= found <= LARGEST or (or_zero and found == 0)):
        none = "neither 0 nor a" if or_zero else "no"
        raise argparse.ArgumentTypeError(
            f"{_shown(text)} is {none} number from {LEAST:g} to {LARGEST:g}. Write it as in 0.5 or 8.0e9"
        )
    return found


def whole(text: str) -> int:
    """How many there are of something. Raises argparse's error for what is no whole number above 0."""
    if not text.isascii() or not text.isdecimal() or len(text) > SHOWN or not 0 < int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is no whole number from 1 to {LARGEST:g}")
    return int(text)


def _shown(text: str) -> str:
    """A word of the command line, for a message."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
