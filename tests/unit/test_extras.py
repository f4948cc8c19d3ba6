"""What installs an optional part, from the project's folder and from a wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

from components.config import extras

ROOT = Path(__file__).parents[2]
PARTS = ("vllm", "eval", "openai", "trackers")


def test_in_the_projects_folder_by_its_files():
    for part in PARTS:
        assert extras.install(part) == f"pip install -r requirements-{part}.txt"
        assert (ROOT / f"requirements-{part}.txt").is_file()


def test_elsewhere_by_extras_that_the_package_has(monkeypatch, tmp_path):
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for part in PARTS:
        assert extras.install(part) == f"pip install '{project['name']}[{part}]'"
        assert part in project["optional-dependencies"]
