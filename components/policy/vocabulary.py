"""Which of a model's ids a response may hold, and which end it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from components.config import strict_json
from components.config.errors import PolicyError
from components.policy import chat
from components.policy.library import PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def unused(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> torch.Tensor | None:
    """Ids of a padded vocabulary that are no token's and no EOS, as a mask: drawn, they would decode to nothing."""
    mask = torch.ones(model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
    tokens = torch.tensor(sorted({*tokenizer.get_vocab().values(), *ends}))
    mask[tokens[tokens < len(mask)]] = False
    return mask.to("cpu" if model.device.type == "meta" else model.device) if mask.any() else None


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Tokens that end a response: chat models often list several in their generation config, and some no turn's end.

    Raises PolicyError for none, and for a template that no run could use.
    """
    listed = getattr(model.generation_config, "eos_token_id", None)
    found = {*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id}
    ids = tuple(sorted(i for i in found if i is not None))
    if not ids:
        raise PolicyError(
            "the model names no EOS token, so no response could end. "
            "Set eos_token_id in generation_config.json or eos_token in tokenizer_config.json."
        )
    if not tokenizer.chat_template:
        if options:
            raise PolicyError(
                f"policy.template_options: the tokenizer has no chat template to read {', '.join(sorted(options))}. "
                "Remove them."
            )
        return ids
    template = chat.Chat(tokenizer, options, ids)
    chat.check(template)
    chat.check_generation_prompt(template)
    end = chat.turn_end(template)
    return ids if end is None else tuple(sorted({*ids, end}))


def unknown_share(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Share of the texts' tokens that stand for what the vocabulary does not hold; 0 without such a token."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return 0.0
    rows: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return sum(row.count(unknown) for row in rows) / max(sum(map(len, rows)), 1)


def keep_turn_end(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]
) -> None:
    """Lists `ends`, all that end a response, in generation_config.json, for whoever loads the files."""
    file = folder / "generation_config.json"
    settings = strict_json.read_object(file) if file.is_file() else {}
    listed = settings.get("eos_token_id", getattr(model.config.get_text_config(), "eos_token_id", None))
    known = {*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id}
    added = [i for i in ends if i not in known]
    if not added:
        return
    names = ", ".join(repr(name) for name in tokenizer.convert_ids_to_tokens(added))
    logger.warning("policy.model: its chat template ends a turn with %s, so responses end there too", names)
    file.write_text(json.dumps({**settings, "eos_token_id": list(ends)}, indent=2) + "\n", "utf-8")
