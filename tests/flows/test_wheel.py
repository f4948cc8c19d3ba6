"""The project as a wheel in an environment of its own: what an install brings is all that the commands need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def run(*command: object, cwd: Path, **env: str) -> str:
    """Standard output of a command that must end well, started without this process's paths and settings."""
    own = ("PYTHON", "METAFLOW_", "COVERAGE_", "COV_", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=clean | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def constraints(tmp_path: Path) -> Path:
    """The versions that are tested together, without the project itself."""
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines(keepends=True)
    file = tmp_path / "constraints.txt"
    file.write_text("".join(line for line in lines if not line.startswith("-e")), "utf-8")
    return file


@pytest.fixture
def wheel(tmp_path: Path, constraints: Path) -> Path:
    """Built of a copy, as a build leaves files behind that the next one would take in; a skip without a registry."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    small = [*pip, "download", "--no-deps", "-d", str(tmp_path / "small"), "-c", str(constraints), "tqdm"]
    reached = subprocess.run(small, capture_output=True, text=True, check=False)
    if reached.returncode:
        pytest.skip(f"needs a package registry: {reached.stderr.strip().splitlines()[-1]}")
    source = tmp_path / "source"
    for name in ("components", "flows"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", ".metaflow"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    run(*pip, "wheel", "--no-deps", "-w", tmp_path, source, cwd=tmp_path)
    (found,) = tmp_path.glob("*.whl")
    return found


def test_the_commands_of_a_wheel(tmp_path: Path, wheel: Path, constraints: Path) -> None:
    """An iteration of the wheel's own smoke preset in an empty folder, its policy exported, the config's schema."""
    environment, home = tmp_path / "environment", tmp_path / "home"
    home.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=home)
    python, wind = environment / "bin" / "python", environment / "bin" / "wind"
    # Most of the modules are never imported, and those that are Python compiles then.
    install = ["--python", python, "install", "--quiet", "--no-compile"]
    run(sys.executable, "-m", "pip", *install, "-c", constraints, wheel, cwd=home)
    user = {"HOME": str(home), "USERNAME": "tester"}
    flows = (
        Path(run(python, "-c", "import components; print(components.__path__[0])", cwd=home).strip()).parent / "flows"
    )
    assert flows.is_relative_to(environment)

    preset = yaml.safe_load((flows / "configs" / "smoke.yaml").read_text("utf-8"))
    preset |= {"iterations": 1, "prompts": {**preset["prompts"], "shards": 1}, "live_cards": []}
    (home / "config.yaml").write_text(yaml.safe_dump(preset), "utf-8")
    run(wind, "run", "--config", "config.yaml", "--run-id-file", "id", cwd=home, **user)
    run(wind, "export", f"WindFlow/{(home / 'id').read_text()}", "policy", cwd=home, **user)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in (home / "policy").iterdir()}
    schema = json.loads(run(wind, "schema", cwd=home, **user))
    assert {"policy", "prompts", "training"} <= schema["properties"].keys()
