"""Texts of responses: what a tokenizer's tokens say, without the special ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from components.data.records import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Names and ids of the tokens that a text does not show."""
    special = {token.content: i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return special | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


def shown_tokens(tokenizer: PreTrainedTokenizerBase, marks: Collection[str]) -> tuple[int, ...]:
    """Special tokens that some marks are made of, which texts must show all the same."""
    special = special_tokens(tokenizer)
    return tuple(sorted({i for name, i in special.items() if any(name in mark for mark in marks)}))


def decode(tokenizer: PreTrainedTokenizerBase, rows: Sequence[TokenIds], shown: Collection[int] = ()) -> list[str]:
    """Texts of token ids, without special tokens but those in `shown`, and with nothing else changed."""
    if shown:
        hidden = set(special_tokens(tokenizer).values()).difference(shown)
        rows = [[int(i) for i in row if int(i) not in hidden] for row in rows]
    return list(tokenizer.batch_decode(rows, skip_special_tokens=not shown, clean_up_tokenization_spaces=False))
