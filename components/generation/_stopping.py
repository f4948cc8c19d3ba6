"""Stop strings: where a response ends, the same for every engine, and what of it is its text.

A response ends with the first token after which the text of its tokens holds a stop string. That token may bring more
than the stop string's end; it belongs to the response as EOS does, and is scored and trained on. The text ends before
the stop string that begins first.

Later tokens may take from a text what earlier ones wrote: where tokenizers fall back to bytes, a run of these that is
no UTF-8 is all U+FFFD, be it for the first byte of an emoji behind a line break. So ends are looked for from the front.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.config.errors import EngineError
from components.data.records import TokenIds
from components.data.texts import decode, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNREADABLE = "\ufffd"  # what bytes that are no UTF-8 are shown as; no stop string holds it


def before(text: str, stop: Sequence[str]) -> str:
    """A response's text up to where the first stop string in it begins."""
    return text[: min((place for one in stop if (place := text.find(one)) >= 0), default=len(text))]


class Stopping:
    """Finds stop strings in a tokenizer's tokens; `ids` are the special tokens among them, which texts do not show."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str], shown: Collection[int] = ()) -> None:
        """For texts as `texts.decode` makes them.

        Raises EngineError for a stop string that holds a special token's name and more, which no such text does.
        """
        special = {name: i for name, i in special_tokens(tokenizer).items() if i not in shown}
        self.ids = tuple(sorted(special[text] for text in stop if text in special))
        self.texts = tuple(text for text in stop if text not in special)
        for text in self.texts:
            if names := [name for name in special if name in text]:
                raise EngineError(
                    f"generation.stop: {text!r} holds the special token {names[0]!r}, which texts of responses do not "
                    f"show. Write {names[0]!r} alone, which ends a response at that token, or leave it out."
                )
        self._hidden = sorted(special.values())
        self._decode = partial(decode, tokenizer, shown=shown)
        self._partial: dict[int, bool] = {}  # of each token seen, whether it is no text by itself
        # Each of a text's tokens shows a byte of it, but for those at its edges that bring more.
        self._window = 4 + max((len(text.encode()) for text in self.texts), default=0)

    def completed(self, rows: Sequence[TokenIds]) -> list[bool]:
        """Whether a stop string ends in the last token of each row, as far as its last tokens tell.

        Never true of a row that holds none; `until_stop` finds what this may miss among tokens that show nothing.
        """
        recent = self._decode([row[-self._window :] for row in rows])
        return [
            (self._found(text) or text.startswith(UNREADABLE)) and self._lately(row, self._window)
            for row, text in zip(rows, recent, strict=True)
        ]

    def until_stop(
        self, rows: Sequence[NDArray[Any]], finished: NDArray[np.bool_]
    ) -> tuple[list[NDArray[Any]], NDArray[np.bool_]]:
        """Each row up to the token that completes its first stop string, and whether it is finished.

        Args:
            rows: N token id sequences.
            finished: (N,), whether a row's last token is EOS or one of `ids`, whose text does not count.
        """
        if not self.texts:
            return list(rows), finished
        cut, ended = list(rows), finished.copy()
        for i, row in enumerate(rows):
            text = row[: len(row) - int(finished[i])]
            visible = np.flatnonzero(~np.isin(text, self._hidden))
            if (end := self._end(text[visible])) is not None:
                cut[i], ended[i] = row[: visible[end - 1] + 1], True
        return cut, ended

    def _end(self, row: NDArray[Any]) -> int | None:
        """How many tokens of a row, without hidden ones, it takes to hold a stop string; None where none do."""
        begin = 0
        for mark in [*self._losses(row), len(row)]:
            seen = self._holds(row) if mark == len(row) else self._lately(row[:mark], mark - begin + self._window)
            if seen:  # and was not at `begin`; tokens in between take nothing away
                return bisect_left(range(mark), True, lo=begin + 1, key=lambda length: self._holds(row[:length]))
            begin = mark
        return None

    def _losses(self, row: NDArray[Any]) -> list[int]:
        """Where tokens stand that may take from the text before them: those that are no text by themselves."""
        new = [i for i in np.unique(row).tolist() if i not in self._partial]
        texts = self._decode([[i] for i in new]) if new else []
        self._partial |= {i: UNREADABLE in text for i, text in zip(new, texts, strict=True)}
        return [place for place, i in enumerate(row.tolist()) if place and self._partial[i]]

    def _lately(self, row: TokenIds, width: int) -> bool:
        """Whether a row holds a stop string, and its last `width` tokens do.

        Up to three more where these begin within a character, whose bytes would make a whole run of bytes unreadable.
        """
        for more in range(4):
            text = self._decode([row[-width - more :]])[0]
            if self._found(text):
                return self._holds(row)
            if not text.startswith(UNREADABLE) or width + more >= len(row):
                return False
        return False

    def _holds(self, row: TokenIds) -> bool:
        return self._found(self._decode([row])[0])

    def _found(self, text: str) -> bool:
        return any(one in text for one in self.texts)
