"""Models and tokenizers out of a Hugging Face directory: whole and as they were trained, or refused with the remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from components.errors import PolicyError
from components.model_files import CONFIG
from components.policy_files import refuse_code

# What the library raises for files that it cannot make a model of.
UNLOADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, IndexError, KeyError, OSError, RuntimeError),
    *(SafetensorError, StrictDataclassError, TypeError, ValueError),
)


def read_tokenizer(directory: Path, *, key: str, name: str, code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory, whose model may be run. Raises PolicyError as `read` does."""
    try:
        if not code:
            refuse_code(directory, key)
        _refuse_unusable(directory)
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, trust_remote_code=code)
    except UNLOADABLE as error:
        raise _unloadable(error, key, name) from error
    return tokenizer


def read(
    directory: Path, kind: Any, *, key: str, name: str, code: bool, dtype: torch.dtype, remedy: str
) -> PreTrainedModel:
    """The model of a directory with all its weights.

    Args:
        directory: that holds it.
        kind: class with the `from_pretrained` to use, such as AutoModelForCausalLM.
        key: its section of the config, for messages.
        name: as the config has it, for messages.
        code: whether code that it brings may run.
        dtype: of the weights.
        remedy: ends the message about missing weights.

    Raises:
        PolicyError: files that do not make up a whole model, or quantised weights.
    """
    try:
        model, report = kind.from_pretrained(
            directory, use_safetensors=True, dtype=dtype, output_loading_info=True, trust_remote_code=code
        )
    except UNLOADABLE as error:
        raise _unloadable(error, key, name) from error
    if missing := sorted(report["missing_keys"]):  # the library fills them with random numbers
        raise PolicyError(
            f"{key}.model: {name} lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} among "
            f"them. {remedy}"
        )
    loaded: PreTrainedModel = model
    return loaded


def _unloadable(error: Exception, key: str, name: str) -> PolicyError:
    said = f"{type(error).__name__}: {error}" if isinstance(error, (AssertionError, IndexError, KeyError)) else error
    return PolicyError(f"{key}.model: {name} cannot be loaded: {said}")


def _refuse_unusable(directory: Path) -> None:
    """Raises ValueError, with the remedy, for what the library would meet with advice that does not help here."""
    config = json.loads((directory / CONFIG).read_text("utf-8"))
    text = config.get("text_config") or {}
    quantized = config.get("quantization_config") or text.get("quantization_config")
    if quantized:
        how = quantized.get("quant_method", "an unnamed method") if isinstance(quantized, dict) else quantized
        raise ValueError(
            f"its weights are quantised ({how}), and only whole ones can be trained or read exactly. Use the model "
            "that it was made from, in fp32, bf16 or fp16"
        )
    for settings in (config, text):
        pad, rows = settings.get("pad_token_id"), settings.get("vocab_size")
        if isinstance(pad, int) and isinstance(rows, int) and not -rows <= pad < rows:
            raise ValueError(
                f"its {CONFIG} has pad_token_id {pad}, and the model embeds {rows} tokens. Set it to null, or to the "
                "id of the tokenizer's padding token"
            )
