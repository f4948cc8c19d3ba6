"""What a model card tells of using its policy and of making it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from components.config.yaml_text import dump_yaml
from components.export.facts import Facts
from components.export.markdown import block, code, table
from components.export.metadata import Told
from components.export.public import HIDDEN, public, public_text

METHOD = {  # settings that make the policy what it is; of the algorithm all
    "generation": ("responses", "max_new_tokens", "temperature", "top_p", "top_k", "min_p", "stop"),
    "training": (
        *("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "warmup_ratio", "max_grad_norm"),
        *("weight_decay", "lora"),
    ),
    "prompts": ("per_iteration",),
}
# Of the machine and of whoever follows the run there; `compare` holds other arms.
ASIDE = ("resources", "cluster", "trackers", "live_cards", "compare")
CONFIG = "config.yaml"


def use(facts: Facts, told: Told, directory: Path) -> Iterator[str]:
    """How the policy is loaded and sampled."""
    # A long name is a text of its own: the line stays whole, as Python needs it.
    trusted = ", trust_remote_code=True" if any(directory.glob("*.py")) else ""
    name = repr(public_text(told.name))
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f"tokenizer = AutoTokenizer.from_pretrained({name}{trusted})",
        f"model = AutoModelForCausalLM.from_pretrained({name}{trusted})",
    ]
    yield "## Use"
    yield block("\n".join(lines), "python")
    sampled = facts.config["generation"]
    stop = f", stop strings {code(repr(public(sampled['stop'])))}" if sampled.get("stop") else ""
    form = facts.config["policy"].get("prompt_format")
    written = f" Prompts were written as {code(public_text(repr(form)))}." if form else ""
    yield f"It was trained and evaluated at temperature {sampled['temperature']:g}{stop}.{written}"


def method(facts: Facts) -> Iterator[str]:
    """The algorithm with its hyper-parameters."""
    config = facts.config
    rows = [("algorithm", name, value) for name, value in config["algorithm"].items()]
    rows += [(part, name, config[part].get(name)) for part, names in METHOD.items() for name in names]
    rows = [("", "iterations", facts.iteration), ("", "seed", config["seed"]), *rows]
    told = [[code(".".join(filter(None, (part, name)))), code(_said(value))] for part, name, value in rows]
    yield "## Method"
    yield (
        f"{code(public_text(config['algorithm']['name']))}: in each iteration the policy draws responses to prompts, "
        "the judge compares them, and the policy is trained on its win rates."
    )
    yield table(["setting", "value"], told)


def made_with(facts: Facts) -> Iterator[str]:
    """Machine and versions, as far as they are known, config and command."""
    machine = {name: text for name, text in facts.machine.items() if text}
    rows = [[code(name), code(public_text(text))] for name, text in machine.items()]
    rows += [["precision", code(facts.precision)]] if facts.precision else []
    yield "## Hardware and versions"
    yield table(["what", "of the last training step"], rows) if rows else "The run did not record them."
    yield "## How to make it again"
    yield f"{block(settings(facts.config), 'yaml')}\n\n{block(f'wind run --config {CONFIG}', 'bash')}"
    yield _difference(facts)


def settings(config: Mapping[str, Any]) -> str:
    """The config as YAML, without what concerns the machine, secrets and places on it."""
    shown = {name: value for name, value in config.items() if name not in ASIDE and value is not None}
    return dump_yaml(public(shown))


def _difference(facts: Facts) -> str:
    whole = [f"This is {CONFIG} of the run {code(facts.run)}, without what concerns only its machine."]
    if HIDDEN in settings(facts.config):
        whole.append(f"“{HIDDEN}” stands for what is not told: folders of its machine, and secrets.")
    if facts.config.get("start_from"):
        whole.append("The run continued from another, which is not part of this card.")
    if facts.iteration < int(facts.config["iterations"]):
        whole.append(f"The policy is the one after iteration {facts.iteration}.")
    return " ".join(whole)


def _said(value: Any) -> str:
    """As YAML writes it, in one line."""
    return dump_yaml(public(value), flow=True, width=10_000).removesuffix("...\n").strip()
