"""A model's config from what a GGUF file states; what has no place in a config, or in the model, is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.pytorch_utils import Conv1D

from components.config import strict_json
from components.policy.gguf_files.header import ROPE_FREQS, Header
from components.policy.library import AutoConfig, GenerationConfig

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Settings of a config by what a file states of them, for all architectures and for one.
SETTINGS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "feed_forward_length": "intermediate_size",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
MORE = {
    "gemma2": {
        "attention.sliding_window": "sliding_window",
        "attn_logit_softcapping": "attn_logit_softcapping",
        "final_logit_softcapping": "final_logit_softcapping",
    },
    "gpt2": {"feed_forward_length": "n_inner", "attention.layer_norm_epsilon": "layer_norm_epsilon"},
}
HEAD = ("attention.key_length", "attention.value_length", "rope.dimension_count")  # one number in these architectures
SEEN_TO = (*HEAD, "vocab_size", "rope.freq_base")
# What may be stated and changes nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (0.0, 1.0),
    "rope.scaling.finetuned": (False,),
    "rope.scale_linear": (1.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "tensor_data_layout": ("Meta AI original pth",),  # the order that every file of this architecture has
}
ROPE_BASE = 10000.0  # where a file states none
GEMMA2_27B = 46  # layers of the one size whose attention is not scaled by the head's size


def config_of(header: Header) -> PreTrainedConfig:
    """The config of a file's model, with all that the file states and, for the rest, what llama.cpp takes.

    Raises PolicyError for a file that states what the config cannot hold, or contradicts itself.
    """
    settings = SETTINGS | MORE.get(header.architecture, {})
    values: dict[str, Any] = {}
    for stated, value in header.own():
        if stated in settings and isinstance(value, int | float):
            values[settings[stated]] = value
        elif stated not in SEEN_TO and value not in NEUTRAL.get(stated, ()):
            raise header.error(
                f"states {header.architecture}.{stated} = {str(value)[:80]}, which the converted model would not "
                "have. Use the model's Hugging Face directory with safetensors."
            )
    if header.architecture != "gpt2":
        values |= _heads(header)
    for role, named in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        values[f"{role}_token_id"] = header.token_id(named)
    values["tie_word_embeddings"] = "output.weight" not in header.shapes
    try:
        return AutoConfig.for_model(header.architecture, vocab_size=_vocabulary(header), dtype=torch.float32, **values)
    except StrictDataclassError as error:  # a number of the wrong type, heads that do not divide the hidden size
        raise header.error(f"states settings of which no config can be made: {error}") from error


def _heads(header: Header) -> dict[str, Any]:
    """Settings of heads and of their rotation."""
    heads, hidden = header.stated("attention.head_count"), header.stated("embedding_length")
    kv = header.stated("attention.head_count_kv")
    stated = {name: value for name in HEAD if (value := header.stated(name)) is not None}
    size = stated.get("attention.key_length", hidden // heads)
    if other := [name for name, value in stated.items() if value != size]:
        raise header.error(
            f"has heads of {size} numbers and states {header.architecture}.{other[0]} = {stated[other[0]]}: parts of "
            "heads are not converted. Use the model's Hugging Face directory with safetensors."
        )
    base = header.stated("rope.freq_base")
    theta = float(ROPE_BASE if base is None else base)
    scaled = header.rope_divisors is not None
    rope = _llama3(theta, size, header) if scaled else {"rope_type": "default", "rope_theta": theta}
    values = {"num_key_value_heads": heads if kv is None else kv, "head_dim": size, "rope_parameters": rope}
    if header.architecture == "gemma2":
        values["query_pre_attn_scalar"] = hidden // heads if header.stated("block_count") == GEMMA2_27B else size
    return values


def _vocabulary(header: Header) -> int:
    """Rows of the embedding, which all that counts tokens must agree with."""
    rows, stated, tokens = header.shapes["token_embd.weight"][0], header.stated("vocab_size"), len(header.tokens)
    if stated not in (None, rows) or tokens > rows:
        raise header.error(
            f"embeds {rows} tokens, states a vocabulary of {stated or 'unknown size'} and lists {tokens} tokens. "
            "It is damaged; convert the original model anew."
        )
    for name, value in header.fields.items():
        if name.endswith("_token_id") and value >= rows:
            raise header.error(f"states {name} {value}, and embeds {rows} tokens. Convert the original model anew.")
    return rows


def _llama3(theta: float, head: int, header: Header) -> dict[str, Any]:
    """Llama 3's scaling of positions, of which the file holds the result alone, a divisor of each frequency.

    Raises PolicyError if the divisors do not follow from the parameters that all Llamas from 3.1 on share.
    """
    divisors = torch.from_numpy(header.rope_divisors).double()
    wavelengths = 2 * torch.pi * theta ** (torch.arange(0, head, 2, dtype=torch.float64) / head)
    factor, original = float(divisors.max()), 8192
    smooth = ((original / wavelengths - 1) / 3).clamp(0, 1)  # from low_freq_factor 1 to high_freq_factor 4
    expected = 1 / ((1 - smooth) / factor + smooth)
    if expected.shape != divisors.shape or not torch.allclose(expected, divisors, rtol=1e-3):
        raise header.error(f"scales positions ({ROPE_FREQS}) unlike Llama 3. Use the model's Hugging Face directory.")
    return {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }


def generation_config_of(header: Header, beside: Path | None) -> GenerationConfig:
    """What begins, fills and ends a response; a generation_config.json in the folder `beside` adds ends of its own."""
    ends = header.ends()
    if beside is not None and (beside / "generation_config.json").is_file():
        ends |= _ends_beside(header, beside / "generation_config.json")
    return GenerationConfig(
        bos_token_id=header.token_id("bos"), eos_token_id=sorted(ends) or None, pad_token_id=header.token_id("padding")
    )


def _ends_beside(header: Header, file: Path) -> set[int]:
    try:
        listed = strict_json.read_object(file).get("eos_token_id")
    except strict_json.JsonError as error:
        raise header.error(f"lies beside a {file.name} that cannot be read ({error}). Fix it or remove it.") from error
    ids = listed if isinstance(listed, list) else [] if listed is None else [listed]
    if wrong := [i for i in ids if type(i) is not int or not 0 <= i < len(header.tokens)]:
        raise header.error(f"lies beside a {file.name} with eos_token_id {wrong[0]!r}, no token. Fix it or remove it.")
    return set(ids)


def check_tensors(header: Header, model: PreTrainedModel) -> None:
    """Raises PolicyError unless the file holds just the weights of `model`, each in its shape; rope_freqs aside."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = next(kind for kind, name in MODEL_ARCH_NAMES.items() if name == header.architecture)
    names = get_tensor_name_map(kind, model.config.num_hidden_layers)
    expected = {names.get_name(name, try_suffixes=(".weight", ".bias")): name for name, _ in model.named_parameters()}
    given = header.shapes.keys() - {ROPE_FREQS}
    if wrong := sorted(given ^ expected.keys()):
        lacks = wrong[0] in expected
        raise header.error(
            f"{'lacks' if lacks else 'holds'} the tensor {wrong[0]}, which a {type(model).__name__} "
            f"{'needs' if lacks else 'does not have'} (one of {len(wrong)}). Use the model's Hugging Face directory."
        )
    for tensor, name in expected.items():
        owner = model.get_submodule(name.rpartition(".")[0])
        shape = tuple(model.get_parameter(name).shape)
        shape = shape[::-1] if isinstance(owner, Conv1D) else shape
        if header.shapes[tensor] != shape:
            raise header.error(
                f"holds {tensor} as {header.shapes[tensor]}, and its own settings give {shape}. It is damaged; convert "
                "the original model anew."
            )
