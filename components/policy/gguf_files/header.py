"""What a GGUF file says about itself, read and checked before any of its weights is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.config.errors import PolicyError
from components.policy.gguf_files.fields import wrong
from components.policy.sources import MAGIC

# Those whose conversion the tests compare with an independent model. Each lists what its files must state, where a
# loader would else fall back to the values of some published checkpoint.
SHAPE = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
RMS = (*SHAPE, "attention.layer_norm_rms_epsilon")
ARCHITECTURES = {
    "llama": RMS,
    "qwen2": RMS,
    "qwen3": RMS,
    "gemma2": RMS,
    "gpt2": (*SHAPE, "attention.layer_norm_epsilon"),
}
ROPE_FREQS = "rope_freqs.weight"  # of Llama 3.1 and later; no weight, but a part of the config
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


@dataclass(frozen=True)
class Header:
    """Metadata and tensors' shapes of a GGUF file."""

    path: Path
    fields: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]  # of tensors by the file's names, rows first as in torch
    rope_divisors: NDArray[np.float32] | None = None  # what each frequency is divided by, (head_dim / 2,)

    @property
    def architecture(self) -> str:
        """Such as "llama", which many families share."""
        return str(self.fields["general.architecture"])

    @property
    def tokens(self) -> list[str]:
        """Spellings by token id; empty for a file without a tokenizer."""
        return list(self.fields.get("tokenizer.ggml.tokens", ()))

    def own(self) -> Iterator[tuple[str, Any]]:
        """What the file states about its architecture, without the architecture's name before it."""
        begin = f"{self.architecture}."
        return ((name.removeprefix(begin), value) for name, value in self.fields.items() if name.startswith(begin))

    def stated(self, name: str) -> Any:
        """One of `own`; None if the file does not state it."""
        return self.fields.get(f"{self.architecture}.{name}")

    def token_id(self, role: str) -> int | None:
        """Id of the token with a role, such as "eos"; None if the file does not name one."""
        found = self.fields.get(f"tokenizer.ggml.{role}_token_id")
        return None if found is None else int(found)

    def ends(self) -> set[int]:
        """Ids that end a response: the file's tokens of end of text, of turn and of message."""
        return {found for role in ("eos", "eot", "eom") if (found := self.token_id(role)) is not None}

    def error(self, text: str) -> PolicyError:
        """What is wrong with the file and how to fix it, after its name."""
        return PolicyError(f"policy.model: {self.path} {text}")


def read(path: Path) -> Header:
    """The header of a file that holds a whole model of a kind that can be converted.

    Raises PolicyError for any other, and where the package gguf is missing.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise PolicyError(f"policy.model: to read {path}, the package gguf is needed: pip install gguf") from error
    _check_magic(path)
    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError, OSError) as error:
        raise PolicyError(
            f"policy.model: {path} cannot be read ({error}). It was cut off or damaged on its way here, or is of a "
            "kind that the package gguf does not know. Fetch it again, and compare its size with the original's."
        ) from error
    shapes = {tensor.name: tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors}
    divisors = next((np.array(tensor.data, np.float32) for tensor in reader.tensors if tensor.name == ROPE_FREQS), None)
    header = Header(path, fields, shapes, divisors)
    if reader.byte_order != "I":
        raise header.error("is written in the other byte order. Use a file made for this kind of machine.")
    if name := wrong(fields):
        raise header.error(
            f"states {name} = {str(fields[name])[:80]}, which cannot be. Convert the original model anew."
        )
    _check_kind(header)
    _check_types(header, {tensor.tensor_type for tensor in reader.tensors})
    return header


def _check_magic(path: Path) -> None:
    with path.open("rb") as file:
        begin = file.read(40)
    if begin[:4] != MAGIC:
        hint = " It is a pointer of Git LFS: fetch the file itself with `git lfs pull`." if b"git-lfs" in begin else ""
        raise PolicyError(
            f"policy.model: {path} is no GGUF file, it begins with {begin[:4]!r}.{hint or ' Fetch it again.'}"
        )


def _check_kind(header: Header) -> None:
    fields = header.fields
    if fields.get("split.count", 1) > 1 or PART.search(header.path.name):
        raise header.error(
            "is one part of a model that was split into several files. Put them together with llama.cpp: "
            "llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf, and name the whole."
        )
    kind, architecture = fields.get("general.type", "model"), fields.get("general.architecture")
    if kind != "model":
        raise header.error(f"holds no model but a file of type {kind!r}. Name the .gguf file of the model itself.")
    if architecture not in ARCHITECTURES:
        raise header.error(
            f"is of the architecture {architecture!r}; those that can be converted are "
            f"{', '.join(ARCHITECTURES)}. Use the model's Hugging Face directory with safetensors."
        )
    if missing := [name for name in ARCHITECTURES[architecture] if header.stated(name) in (None, 0)]:
        raise header.error(f"does not state {architecture}.{missing[0]}. Convert the original model anew.")
    layers = len({name.split(".")[1] for name in header.shapes if name.startswith("blk.")})
    if layers != header.stated("block_count"):
        raise header.error(
            f"states {header.stated('block_count')} layers and holds tensors of {layers}. It is damaged, or a part of "
            "a model; use a whole one."
        )
    for name in ("token_type", "scores"):
        number = len(fields.get(f"tokenizer.ggml.{name}", header.tokens))
        if number != len(header.tokens):
            raise header.error(
                f"lists {len(header.tokens)} tokens and {number} {name}. Convert the original model anew."
            )
    if "token_embd.weight" not in header.shapes:
        raise header.error(
            f"has {len(header.shapes)} tensors and no token_embd.weight, so it is no whole model. Use one that is."
        )


def _check_types(header: Header, types: set[Any]) -> None:
    from gguf.constants import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    for kind in sorted(types):
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError as error:
            raise header.error(
                f"holds tensors of the type {kind.name}, which the package gguf cannot dequantise. Use the model in "
                "another quantisation, such as Q8_0, Q4_K_M or F16."
            ) from error
