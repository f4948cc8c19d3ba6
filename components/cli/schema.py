"""The JSON schema of a run's config, so that editors complete and check YAML."""

from __future__ import annotations

import argparse
import json
from typing import Any

from components.run_config import RunConfig

HINT = (
    "Write it to a file, and `# yaml-language-server: $schema=FILE` into the first line of a config: editors with the "
    "YAML language server (VS Code, Vim, Emacs …) then complete, describe and check every key."
)


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12; each plug-in with its own settings."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunConfig.model_json_schema()}


def main(arguments: list[str] | None = None, prog: str = "wind schema") -> None:
    """The command line."""
    argparse.ArgumentParser(prog=prog, description="Prints the JSON schema of a config.", epilog=HINT).parse_args(
        arguments
    )
    print(json.dumps(schema(), indent=2))
