"""Which of the names in a config the hub may know, and what the base model's own card says of its license."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from components.config.errors import PolicyError
from components.config.paths import user_path
from components.policy.sources import PACKAGE

LICENSE = ("license", "license_name", "license_link")  # as a card's metadata has them
FILE = re.compile(r"(?i)[*?\[]|\.(jsonl?|parquet|gz|gguf|csv|txt)$")


def on_hub(name: str) -> bool:
    """Whether a model's or dataset's name is an id on the hub: shaped like one, and no path that is here."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if FILE.search(name) or name.startswith(PACKAGE):
        return False
    try:
        validate_repo_id(name)
        return not user_path(name, "model", PolicyError).exists()
    except (HFValidationError, PolicyError):
        return False


def base_on_hub(config: Mapping[str, Any]) -> str | None:
    """The hub id of a run's base model; None for one from elsewhere."""
    model = config["policy"]["model"]
    return model if model and on_hub(model) else None


def datasets_on_hub(config: Mapping[str, Any]) -> list[str]:
    """The hub ids among the run's prompts, for training and for evaluation."""
    return [name for name in dict.fromkeys([*_names(config, "train"), *_names(config, "evaluation")]) if on_hub(name)]


def held_out_name(config: Mapping[str, Any]) -> tuple[str, str]:
    """Of the held-out prompts, an id and a name for a card's metadata."""
    names = _names(config, "evaluation") or _names(config, "train")
    known = [name for name in names if on_hub(name)]
    return (known[0], f"held-out prompts of {known[0]}") if known else ("held-out-prompts", "held-out prompts")


def local_license(config: Mapping[str, Any]) -> dict[str, str]:
    """The license that a base model's directory names in its card; empty where there is none, or no directory."""
    model = config["policy"]["model"]
    if not model or model.startswith(PACKAGE):
        return {}
    card = user_path(model, "policy.model", PolicyError) / "README.md"
    return license_of(card.read_text("utf-8", "replace")) if card.is_file() else {}


def license_of(card: str) -> dict[str, str]:
    """The license that a card's metadata name; empty where they name none or cannot be read."""
    from huggingface_hub import ModelCard
    from yaml import YAMLError

    try:
        found = ModelCard(card, ignore_metadata_errors=True).data.to_dict()
    except (ValueError, YAMLError):
        return {}
    return {name: str(found[name]) for name in LICENSE if isinstance(found.get(name), str)}


def _names(config: Mapping[str, Any], which: str) -> list[str]:
    given = config["prompts"][which]
    return [given] if isinstance(given, str) else list(given or [])
