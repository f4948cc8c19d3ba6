"""What the stand-in of the hub accepts as a name and as the metadata of a card."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?")


@dataclass
class RefusedError(Exception):
    """What goes back in place of an answer."""

    status: int
    message: str
    code: str = ""
    more: dict[str, str] = field(default_factory=dict)  # beside the message


def is_id(name: Any) -> bool:
    parts = name.split("/") if isinstance(name, str) else []
    return 1 <= len(parts) <= 2 and all(NAME.fullmatch(part) for part in parts)


def checked_card(content: str) -> dict[str, Any]:
    """The answer to a card whose metadata are right; raises RefusedError."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if not found:
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}
    data = yaml.safe_load(found[1])
    wrong = [name for name in ("license", "pipeline_tag", "library_name") if not isinstance(data.get(name, ""), str)]
    base = data.get("base_model", [])
    wrong += [f"base_model {one}" for one in ([base] if isinstance(base, str) else base) if not is_id(one)]
    wrong += [f"datasets {one}" for one in data.get("datasets", []) if not is_id(one)]
    for model in data.get("model-index", []):
        wrong += [] if model.get("name") else ["model-index[0].name"]
        for result in model["results"]:
            kept = "type" in result["task"] and {"name", "type"} <= result["dataset"].keys()
            wrong += [] if kept and all({"type", "value"} <= m.keys() for m in result["metrics"]) else [str(result)]
    if wrong:
        raise RefusedError(400, json.dumps([f"{name} is not valid" for name in wrong]))
    return {"errors": [], "warnings": []}
