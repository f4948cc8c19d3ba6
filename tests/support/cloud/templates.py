"""What stands in a compiled Argo WorkflowTemplate: who waits for whom, and places to be filled."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from hera.workflows.models import WorkflowTemplate

ENCODED = re.compile(r"=toBase64\(workflow\.parameters\['([\w-]+)'\]\)")  # the one expression that Metaflow writes
PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}")


class UnsupportedError(AssertionError):
    """The template uses what this executor does not know."""


def needs(task: dict[str, Any]) -> set[str]:
    """The tasks that must have succeeded before this one."""
    depends = task.get("depends", "")
    names = [part.strip() for part in depends.split("&&") if part.strip()]
    if not all(re.fullmatch(r"[\w-]+\.Succeeded", name) for name in names):
        raise UnsupportedError(f"{task['name']}: depends {depends}")
    return {name.removesuffix(".Succeeded") for name in names}


def filled(text: str, scope: Mapping[str, str]) -> str:
    """`text` with its `{{…}}` replaced; AssertionError for one that has no value."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if encoded := ENCODED.fullmatch(name):
            name = f"workflow.parameters.{encoded[1]}"
        assert name in scope, f"{found[0]} is not resolved in {text[:200]}"
        return base64.b64encode(scope[name].encode()).decode() if encoded else scope[name]

    return PLACEHOLDER.sub(value, text)


def accepted(workflow: dict[str, Any]) -> None:
    """Raises ValidationError for a field that Argo or Kubernetes does not know, even if nothing is in it."""
    WorkflowTemplate.model_validate(workflow, extra="forbid", by_alias=True, by_name=False)


def without_nulls(value: Any) -> Any:
    """As the cluster stores it: keys without a value are none."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def compact(template: dict[str, Any]) -> str:
    """The template as small as JSON gets."""
    return json.dumps(without_nulls(template), separators=(",", ":"))
