"""Every setting of a config: as a JSON schema, so that editors complete and check YAML, or as a page to read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.bandit.config import LabConfig
from components.bandit.methods import METHODS
from components.bandit.settings import SETTINGS
from components.cli import reference
from components.config.compare import Arm
from components.config.schema import Section
from components.run_config import RunConfig
from components.runtime.terminal import Parser, command

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SWEEP = {
    "description": "an arm for each choice of a value for each key, such as {training.learning_rate: [1e-6, 1e-5]}",
    "type": "object",
    "minProperties": 1,
    "additionalProperties": {"type": "array", "minItems": 1},
}
HINT = (
    "Write it to a file, and `# yaml-language-server: $schema=FILE` into the first line of a config: editors with the "
    "YAML language server (VS Code, Vim, Emacs …) then complete, describe and check every key."
)


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of a run or a comparison; each plug-in with its own settings.

    It knows keys, types and ranges. What depends on several keys, on files or on models is checked by `parse` and by
    `start` alone.
    """
    found = RunConfig.model_json_schema()
    required = [key for key in found.pop("required", []) if key != "judge"]
    judge = found["properties"]["judge"]
    judge["anyOf"] = [*judge["anyOf"], {"type": "null"}]  # as if it were left out
    given = {"type": "object"}
    either = [{"required": [key], "properties": {key: given}} for key in ("judge", "demo")]  # which brings its own
    found["$defs"] |= _arm(found)
    compare = found["$defs"]["CompareConfig"]
    arms = compare["properties"]["arms"]
    arms |= {"additionalProperties": {"$ref": "#/$defs/Arm"}, "type": ["object", "null"]}  # null: those of a sweep
    some = {"properties": {"arms": {"type": "object", "minProperties": arms.pop("minProperties")}}}
    compare["properties"]["sweep"] = SWEEP
    compare["anyOf"] = [{"required": ["arms"], **some}, {"required": ["sweep"]}]
    del compare["required"]
    return {"$schema": DIALECT, **found, "required": required, "anyOf": either}


def _arm(run: dict[str, Any]) -> dict[str, Any]:
    """Definitions of an arm, whose sections are those of a run that may differ; its config holds them unread."""
    arm = Arm.model_json_schema()
    definitions: dict[str, Any] = {**arm.pop("$defs"), "Arm": arm}
    arm["properties"]["algorithm"] = run["properties"]["algorithm"]
    arm["properties"]["training"] = {"$ref": "#/$defs/TrainingConfig"}
    engine = run["$defs"]["Generation"]["properties"]["engine"]
    definitions["ArmGeneration"]["properties"]["engine"] = engine
    return definitions


def laboratory() -> dict[str, Any]:
    """The same of a config of bandit_flow.py."""
    found = LabConfig.model_json_schema()
    found["properties"]["methods"] |= _labelled(METHODS)
    found["properties"]["settings"] |= _labelled(SETTINGS)
    return {"$schema": DIALECT, **found}


def _labelled(known: Mapping[str, type[Section]]) -> dict[str, Any]:
    """What stands behind labels of one's own: sections with a name, which may be left out where the label is one."""
    own = {name: section.model_json_schema() for name, section in known.items()}
    named = [{**one, "required": ["name", *one.get("required", [])]} for one in own.values()]
    labels = {label: {"anyOf": [one, *named]} for label, one in own.items()}
    return {"properties": labels, "additionalProperties": {"anyOf": named}}


@command
def main(arguments: list[str] | None = None, prog: str = "wind schema") -> None:
    """The command line."""
    parser = Parser(prog=prog, description="Prints every setting of a config.", epilog=HINT)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--markdown", action="store_true", help="as docs/configuration.md, and not as a JSON schema")
    which.add_argument("--bandit", action="store_true", help="the JSON schema of a config of bandit_flow.py")
    given = parser.parse_args(arguments)
    if given.markdown:
        print(reference.page(), end="")
    else:
        print(json.dumps(laboratory() if given.bandit else schema(), indent=2))
