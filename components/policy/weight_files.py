"""Which files of a Hugging Face directory make up a model: known names, the weights that its index lists, no others.

What else lies beside a model may be anything: states of its training, credentials, links to other places.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.config import strict_json
from components.config.errors import PolicyError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
# Of configs, tokenizers and chat templates, as the library writes and reads them.
OTHERS = (
    *(CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "bpe.codes", "tekken.json"),
    *("processor_config.json", "preprocessor_config.json", "*.model", "*.tiktoken"),
    *("chat_template.json", "chat_template.jinja", "additional_chat_templates/*.jinja"),
)
CODE = ("*.py",)


def of(
    directory: Path, *, weights: bool = True, code: bool = False, stored: bool = False, key: str = "policy"
) -> list[Path]:
    """The files of the model in a directory, without its weights or with, and with code that it brings or without.

    Raises PolicyError as `weight_names` does, and for a file that is a link out of the directory, unless that is a view
    of the project's own store (`stored`), where large files are such links.
    """
    patterns = (*OTHERS, *(CODE if code else ()))
    found = [file for pattern in patterns for file in directory.glob(pattern) if not file.name.startswith(".")]
    if weights:
        names = weight_names(directory, key)
        found += [directory / name for name in names]
        found += [directory / INDEX] if (directory / INDEX).is_file() else []
    for file in [] if stored else found:
        _require_inside(file, directory, key)
    return sorted(file for file in set(found) if file.is_file())


def weight_names(directory: Path, key: str = "policy") -> list[str]:
    """Names of the safetensors files that hold the weights.

    Raises PolicyError for none, for two sets, and for an index that cannot be read, names what is no file beside it or
    one that is not there.
    """
    if not (directory / INDEX).is_file():
        if not (directory / WEIGHTS).is_file():
            raise PolicyError(
                f"{key}.model: {directory} has no safetensors weights, neither {WEIGHTS} nor {INDEX} with what it "
                "lists. Save the model with `save_pretrained`; pickled weights (.bin) are not loaded."
            )
        return [WEIGHTS]
    names = listed(directory / INDEX, key)
    if (directory / WEIGHTS).is_file() and WEIGHTS not in names:
        raise PolicyError(
            f"{key}.model: {directory} holds weights twice, {WEIGHTS} and the shards that {INDEX} lists. "
            "Remove the stale ones."
        )
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise PolicyError(
            f"{key}.model: {directory} lacks {missing[0]}, which its {INDEX} lists. Copy or download the model whole."
        )
    return names


def listed(index: Path, key: str = "policy") -> list[str]:
    """The files that an index lists, in order. Raises PolicyError for an index that cannot be read or is not to be."""
    try:
        weight_map: Any = strict_json.read_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise strict_json.JsonError("its weight_map names no weight's file")
        names = sorted(set(weight_map.values()), key=str)
    except (strict_json.JsonError, TypeError) as error:
        raise PolicyError(f"{key}.model: {index} is not an index of weights ({error}). Copy the model anew.") from error
    for name in names:
        plain = isinstance(name, str) and name.endswith(".safetensors") and name == Path(name).name and name[0] != "."
        if not plain or "\\" in name:
            raise PolicyError(
                f"{key}.model: {index} lists {name!r}, which is not the name of a safetensors file beside it. "
                "Use a model from a source that you trust."
            )
    return names


def _require_inside(file: Path, directory: Path, key: str) -> None:
    root = directory.resolve()
    if root.parent.name == "snapshots":  # of the hub's cache, whose files are links to its blobs
        root = root.parent.parent
    if not file.resolve().is_relative_to(root):
        raise PolicyError(
            f"{key}.model: {file} is a link to {file.resolve()}, outside the model's directory. "
            "Put the file itself there."
        )
