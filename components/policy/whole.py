"""Whether weights are whole: none is lacking, none is left over, and each lies in the one file that the index names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from components.config import strict_json
from components.config.errors import PolicyError
from components.policy.checks import ANEW
from components.policy.library import PreTrainedModel
from components.policy.weight_files import CONFIG, INDEX

WHOLE = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")

# What no model of text computes with: tables that older versions of the library kept, what reads images and sound, and
# layers that only foretell further tokens. Classes declare some of it themselves, but not for all checkpoints.
_IDLE = (
    *(r"(^|\.)position_ids$", r"(^|\.)(original_)?inv_freq$", r"\.(cos|sin)_cached$", r"\.causal_mask$"),
    *(r"(^|\.)(attn|attention|crossattention)(\.attention)?\.(masked_)?bias$", r"(^|\.)version$"),
    *(r"(^|\.)(embed_)?(vision|visual|image|audio|speech|video)", r"(^|\.)(multi_?modal|mm_projector)"),
    r"(^|\.)mtp",
)
# Heads for something else on the same body.
_HEADS_OF_TEXT = (r"^(lm_head|embed_out|cls|lm_predictions|mask_predictions|(generator|discriminator)_predictions)\.",)
_HEADS_OF_VALUES = (r"^v_head\.",)


def require_numbers(file: Path) -> list[str]:
    """The names of a file's weights, by its header, which must fit its length.

    Raises ValueError for weights that are whole or complex numbers, or floats of 8 bits and fewer.
    """
    with safe_open(file, "pt") as header:
        names = list(header.keys())
        for name in names:
            kind = header.get_slice(name).get_dtype()
            if name.endswith(".weight") and kind in WHOLE:
                raise ValueError(f"{name} holds whole numbers ({kind}), which are no trained weights")
            if kind.startswith("C"):
                raise ValueError(f"{name} holds complex numbers ({kind}), of which only the real parts would be read")
            if re.match(r"F[468](_|$)", kind):
                raise ValueError(
                    f"{name} is quantised ({kind}), and {CONFIG} does not say how. Use the model that it was made "
                    "from, in fp32, bf16 or fp16"
                )
    return names


def require_one_place(directory: Path, held: Mapping[str, Sequence[str]], begin: str) -> None:
    """Raises PolicyError for a weight in two files, and for one in another file than the index says.

    Args:
        directory: that holds the files.
        held: names of the weights in each file.
        begin: of the message.
    """
    index = directory / INDEX
    listed = strict_json.read_object(index)["weight_map"] if index.is_file() else {}
    place: dict[str, str] = {}
    for file, names in held.items():
        for name in names:
            if name in place:
                raise PolicyError(f"{begin}: its weight {name} is both in {place[name]} and in {file}. {ANEW}.")
            place[name] = file
            if listed.get(name, file) != file:
                raise PolicyError(f"{begin}: its {INDEX} has {name} in {listed[name]}, and it is in {file}. {ANEW}.")


def require_whole(
    model: PreTrainedModel, report: Mapping[str, Any], *, key: str, name: str, begin: str, remedy: str
) -> None:
    """Raises PolicyError where files and model do not have the same weights, by what the library reports of a load.

    `remedy` ends the message about missing weights; the others as in `pretrained.read`.
    """
    if wrong := sorted(report["mismatched_keys"], key=lambda found: str(found[0])):
        weight, stored, made = wrong[0]
        raise PolicyError(
            f"{begin}: its weight {weight} is of shape {list(stored)}, and by its {CONFIG} it has {list(made)}; so it "
            f"is with {len(wrong)} weights. Use the {CONFIG} that belongs to them."
        )
    if missing := sorted(report["missing_keys"]):  # the library fills them with random numbers
        raise PolicyError(
            f"{key}.model: {name} lacks {len(missing)} weights of a {type(model).__name__}, {missing[0]} among "
            f"them. {remedy}"
        )
    if unused := left_over(model, report["unexpected_keys"]):  # the library drops them
        raise PolicyError(
            f"{begin}: a {type(model).__name__} of its {CONFIG} has no place for {len(unused)} of its weights, "
            f"{unused[0]} among them, and would compute without. Use the {CONFIG} that belongs to them: its "
            "model_type, number of layers and biases."
        )


def require_finite(model: PreTrainedModel, key: str, name: str) -> None:
    """Raises PolicyError for a weight with a number that is none, or with an infinite one in a matrix."""
    for weight, values in model.named_parameters():
        # A bias may rule a token out for good.
        found = values.isnan() if values.dim() < 2 else ~values.isfinite()
        if found.any():
            raise PolicyError(
                f"{key}.model: {name} has NaN or infinity in {int(found.sum())} of the {values.numel()} numbers of "
                f"{weight}, its weights are damaged. Download it anew."
            )


def left_over(model: PreTrainedModel, unexpected: Sequence[str]) -> list[str]:
    """Of the weights that a model does not take, sorted, those that something was computed with in training."""
    idle = [*_IDLE, *(_HEADS_OF_TEXT if model.get_output_embeddings() is None else _HEADS_OF_VALUES)]
    config = model.config.get_text_config()
    layers, more = getattr(config, "num_hidden_layers", None), getattr(config, "num_nextn_predict_layers", None)
    if isinstance(layers, int) and isinstance(more, int) and more:  # those that foretell further tokens come last
        idle.append(rf"(^|\.)layers\.({'|'.join(str(layers + i) for i in range(more))})\.")
    return sorted(name for name in unexpected if not re.search("|".join(idle), name))
