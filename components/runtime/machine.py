"""What a step ran on and with, for whoever reads of its result later."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "transformers", "peft", "vllm", "metaflow")
CPUS = Path("/proc/cpuinfo")


def described() -> dict[str, str]:
    """`hardware`, `python` and the versions of those of PACKAGES that are installed; no name of a machine or a user.

    Starts CUDA where there is a GPU: call it when the GPUs are claimed.
    """
    import torch

    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    gpus = [f"{names.count(name)} × {name}" for name in dict.fromkeys(names)]
    cores = len(os.sched_getaffinity(0))
    hardware = ", ".join(gpus) or f"{cores} core{'s' * (cores > 1)} of {_processor()}"
    installed = {name: version for name in PACKAGES if (version := _version(name))}
    return {"hardware": hardware, "python": platform.python_version(), **installed}


def compiles_for() -> list[str] | None:
    """Which machines run what is compiled here: their models of GPUs or, without one, a processor's instructions.

    None where there are GPUs and nvidia-smi does not tell which. Does not start CUDA.
    """
    import torch

    if not torch.cuda.is_available():
        telling = ("model name", "flags", "Features", "CPU part")  # the last two on ARM
        lines = CPUS.read_text("utf-8", "replace").splitlines() if CPUS.is_file() else []
        return [platform.machine(), *sorted({line for line in lines if line.startswith(telling)})]
    command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return sorted(set(said.splitlines())) or None


def _processor() -> str:
    """Its model, where Linux tells; else the architecture."""
    lines = CPUS.read_text("utf-8", "replace").splitlines() if CPUS.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
