"""What `start` finds out about a policy and every later step must know: a file beside its config, copied as that is.

So it holds for the policies trained from it too, after a resume and in runs that continue from it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from components.config import strict_json

FILE = "wind.json"

# What the cache of an architecture is good for. shared: prompts of any length in one batch, and several responses after
# a prompt that is read once. equal: prompts of one length, and then a token at a time. none: nothing.
Caching = Literal["shared", "equal", "none"]


@dataclass(frozen=True)
class Findings:
    """The contents of the file; without one, the defaults."""

    caching: Caching = "shared"


def read(directory: Path) -> Findings:
    """What the file in a policy's directory says."""
    file = directory / FILE
    return Findings(**strict_json.read_object(file)) if file.is_file() else Findings()


def write(findings: Findings, directory: Path) -> None:
    """Puts the file into a policy's directory, in place of an earlier one."""
    (directory / FILE).write_text(json.dumps(asdict(findings), indent=2, sort_keys=True) + "\n", "utf-8")
