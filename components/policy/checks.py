"""What the JSON files beside a model must say before a library reads them: their names for a fault are not a user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.config import strict_json
from components.config.errors import PolicyError
from components.policy.weight_files import CONFIG, INDEX, OTHERS, WEIGHTS

VOCABULARIES = ("tokenizer.json", "vocab.json", "tekken.json")  # millions of entries, which are others' to check
ANEW = "Copy or download the model anew"
MOST_LAYERS = 1000  # the library builds them one by one, and would build for hours

# Whole numbers of 1 or more where they are numbers at all; some architectures have a list, one for each layer.
_COUNTS = (
    *("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings", "head_dim", "num_labels"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "n_embd", "n_layer", "n_head", "n_positions"),
)
_LAYERS = ("num_hidden_layers", "n_layer")
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def require_files(directory: Path, key: str) -> None:
    """Raises PolicyError where a folder, a link to nothing or a file that nobody may read has a model file's name."""
    for name in (*(name for name in OTHERS if "*" not in name), WEIGHTS, INDEX):
        file = directory / name
        if not os.path.lexists(file):
            continue
        if not file.is_file():
            kind = "a folder" if file.is_dir() else "a link to nothing" if file.is_symlink() else "no file"
            raise PolicyError(f"{key}.model: {file} is {kind}. Put the file itself there, or remove it.")
        if not os.access(file, os.R_OK):
            raise PolicyError(f"{key}.model: {file} cannot be read (permission denied). Allow it with `chmod u+r`.")


def require_json(directory: Path) -> None:
    """Raises ValueError, with the file's name and the remedy, for JSON that is no object or has a key twice."""
    for name in (*(name for name in OTHERS if name.endswith(".json")), INDEX):
        file = directory / name
        if not file.is_file():
            continue
        try:
            strict_json.read_object(file, unique=name not in VOCABULARIES)
        except strict_json.JsonError as error:
            raise ValueError(f"its {name} cannot be used, {error}. Correct the file, or copy the model anew") from error


def require_settings(directory: Path) -> None:
    """Raises ValueError, with the remedy, for what the library would meet with advice that does not help here."""
    config = strict_json.read_object(directory / CONFIG)
    text = config.get("text_config")
    for settings in (config, text if isinstance(text, dict) else {}):
        _refuse_functions(settings)
        _refuse_quantized(settings)
        _require_counts(settings)
        _require_ids(settings, CONFIG)
    file = directory / "generation_config.json"
    if file.is_file():
        own = text if isinstance(text, dict) and "vocab_size" in text else config
        _require_ids({**strict_json.read_object(file), "vocab_size": own.get("vocab_size")}, file.name)


def _refuse_functions(settings: Mapping[str, Any]) -> None:
    """Of keys that would stand in the place of what the library calls, some of it when a trained policy is saved."""
    from components.policy.library import PreTrainedConfig

    for name in settings:
        if name == "_auto_class" or callable(getattr(PreTrainedConfig, name, None)):
            raise ValueError(f"its {CONFIG} has {name}, which is no setting but the library's own. Remove {name} there")


def _refuse_quantized(settings: Mapping[str, Any]) -> None:
    if quantized := settings.get("quantization_config"):
        how = quantized.get("quant_method", "an unnamed method") if isinstance(quantized, dict) else quantized
        raise ValueError(
            f"its weights are quantised ({how}), and only whole ones can be trained or read exactly. Use the model "
            "that it was made from, in fp32, bf16 or fp16"
        )


def _require_counts(settings: Mapping[str, Any]) -> None:
    for name in _COUNTS:
        value = settings.get(name)
        if not isinstance(value, (bool, int, float, str)):
            continue
        if isinstance(value, (bool, float, str)) or value < 1:
            raise ValueError(f"its {CONFIG} has {name} {value!r}, which must be a whole number of 1 or more. {ANEW}")
        if value >= 2**31 or (name in _LAYERS and value > MOST_LAYERS):
            raise ValueError(f"its {CONFIG} has {name} {value}, more than any model has. {ANEW}")
    if settings.get("return_dict") is False:
        raise ValueError(f"its {CONFIG} has return_dict false, so results have no names. Remove return_dict there")


def _require_ids(settings: Mapping[str, Any], file: str) -> None:
    """Token ids are whole numbers, EOS ids of rows that the model has; a padding id may count from the end."""
    rows = settings.get("vocab_size")
    rows = rows if isinstance(rows, int) else None
    for name in _IDS:
        value = settings.get(name)
        for found in value if isinstance(value, list) else [value]:
            if found is not None and type(found) is not int:
                raise ValueError(f"its {file} has {name} {value!r}. Write the token's id, a whole number, or null")
    pad, eos = settings.get("pad_token_id"), settings.get("eos_token_id")
    if rows is not None and isinstance(pad, int) and not -rows <= pad < rows:
        raise ValueError(
            f"its {file} has pad_token_id {pad}, and the model embeds {rows} tokens. Set it to null, or to the "
            "id of the tokenizer's padding token"
        )
    for found in eos if isinstance(eos, list) else [eos]:
        if found is not None and (found < 0 or (rows is not None and found >= rows)):
            raise ValueError(
                f"its {file} has eos_token_id {found}, and the model embeds {rows or 'no such'} tokens. Set it to "
                "null, or to the ids of the tokens that end a response"
            )
