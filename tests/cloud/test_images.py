"""Images: Dockerfiles by a linter, and what a container has and does when it starts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from metaflow.metaflow_environment import MetaflowEnvironment

from support.cloud.infra import INFRA, ROOT

pytestmark = pytest.mark.thorough

IMAGES = sorted((INFRA / "images").glob("*.Dockerfile"))


def hadolint(dockerfile: str) -> str:
    """What hadolint finds; empty if nothing."""
    command = [str(Path(sys.executable).with_name("hadolint")), "--no-color", "-"]
    done = subprocess.run(command, input=dockerfile, capture_output=True, text=True, timeout=300, check=False)
    assert bool(done.returncode) == bool(done.stdout), done.stderr
    return done.stdout


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(name, arguments) of each instruction, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.M).replace("\\\n", "")
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line]


def environment(dockerfile: Path) -> dict[str, str]:
    """What the image's ENV instructions set."""
    words = [word for name, arguments in instructions(dockerfile) if name == "ENV" for word in arguments.split()]
    return dict(word.split("=", 1) for word in words)


def test_images_pass_the_linter() -> None:
    for image in IMAGES:
        text = image.read_text()
        assert hadolint(text) == "", image
        unpinned = re.sub(r"^(FROM \S+):\S+", r"\1:latest", text, count=1, flags=re.M)
        assert "DL3007" in hadolint(unpinned), f"{image}: the linter sees nothing"


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_a_pod_is_somebody_and_installs_nothing_when_it_starts(image: Path, tmp_path: Path) -> None:
    users = [arguments for name, arguments in instructions(image) if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])

    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    install = MetaflowEnvironment(None)._get_install_dependencies_cmd("s3")

    def started(env: dict[str, str]) -> str:
        path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        return subprocess.run(["bash", "-c", install], env={**env, **path}, stdout=-1, text=True, check=True).stdout

    assert started(environment(image)) == ""
    assert "pip install" in started({})  # what Metaflow does elsewhere


def test_images_hold_all_requirements(tmp_path: Path) -> None:
    requirements = (ROOT / "requirements.txt").read_text()
    (tmp_path / "requirements.txt").write_text(requirements)
    pinned = set(re.findall(r"^[\w-]+==\S+", requirements, flags=re.M))
    held = {}
    for image in IMAGES:
        runs = [part for kind, arguments in instructions(image) if kind == "RUN" for part in arguments.split("&&")]
        lists = [part.strip() for part in runs if " requirements.txt > " in part]
        subprocess.run(["bash", "-c", " && ".join(lists)], cwd=tmp_path, check=True)
        lines = [line for part in lists for line in (tmp_path / part.split()[-1]).read_text().splitlines()]
        held[image.stem] = {line.split()[0] for line in lines if not line.startswith("#")}
    assert held["cpu"] == pinned
    vllm = re.search(r"^vllm==(\S+)", (ROOT / "requirements-vllm.txt").read_text(), flags=re.M)
    assert vllm
    assert ("FROM", f"vllm/vllm-openai:v{vllm[1]}") in instructions(INFRA / "images" / "gpu.Dockerfile")
    # vLLM requires these itself.
    vllms = {"numpy", "pydantic", "PyYAML", "safetensors", "torch", "tqdm", "transformers"}
    assert {line.split("==")[0] for line in pinned - held["gpu"]} == vllms
    assert held["gpu"] < pinned


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_what_an_image_copies_is_sent_to_the_build(image: Path) -> None:
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for kind, arguments in instructions(image) if kind == "COPY" for name in arguments.split()[:-1]]
    assert copied
    assert set(copied) <= set(sent)
    assert all((ROOT / name).is_file() for name in sent)
