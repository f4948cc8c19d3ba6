"""A tokenizer of bytes and pieces of text: characters and stop strings begin and end within its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<s>", "</s>", "<pad>", "<end>"]
BOS, EOS, PAD, END = range(4)
# Built of two of the pieces before them, or of bytes.
PIECES = ["ab", "bc", "xa", "by", "\n\n", "aa", "abbc", "é", "\u2026"]


def tokenizer(template: str | None = "{{ bos_token }}{{ messages[-1]['content'] }}") -> PreTrainedTokenizerFast:
    """256 bytes behind the special tokens, then the pieces."""
    vocabulary = {name: i for i, name in enumerate(SPECIAL)}
    vocabulary |= {_shown(bytes([byte])): len(SPECIAL) + byte for byte in range(256)}
    merges = []
    for piece in PIECES:
        parts = [_shown(bytes([byte])) for byte in piece.encode()]
        while len(parts) > 1:  # the longest known beginning with what follows it
            vocabulary.setdefault(parts[0] + parts[1], len(vocabulary))
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
    backend = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges))))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **names)


def _shown(piece: bytes) -> str:
    """How a byte-level vocabulary writes bytes: printable ones as they are, others as characters from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return "".join(table[byte] for byte in piece)


def bytes_of(found: PreTrainedTokenizerFast) -> dict[int, bytes]:
    """What each id stands for; special tokens for nothing."""
    back = {_shown(bytes([byte])): byte for byte in range(256)}
    return {
        i: b"" if i < len(SPECIAL) else bytes(back[character] for character in name)
        for name, i in found.get_vocab().items()
    }


def text_of(row: Sequence[int], table: dict[int, bytes]) -> str:
    """The text of token ids, bytes that make no character yet as U+FFFD."""
    return b"".join(table[int(i)] for i in row).decode("utf-8", "replace")


def first_stop(row: Sequence[int], stop: Sequence[str], table: dict[int, bytes]) -> int | None:
    """How many tokens of a row it takes to hold a stop string, looking at each beginning of it in turn."""
    texts = [text_of(row[:length], table) for length in range(len(row) + 1)]
    found = [any(one in text for one in stop) for text in texts]
    assert all(later or not earlier for earlier, later in pairwise(found))
    return found.index(True) if True in found else None
