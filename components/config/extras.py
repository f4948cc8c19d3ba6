"""Optional parts of the project, and what installs them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(name: str) -> str:
    """The command: by the file of requirements in the project's folder, or by the extra of the installed package."""
    file = ROOT / f"requirements-{name}.txt"
    return f"pip install -r {file.name}" if file.is_file() else f"pip install 'wind-metaflow[{name}]'"
