"""Stop strings where tokenizers fall back to bytes, as SentencePiece's: those that are no UTF-8 hide text."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from components.generation import Sampling
from components.generation._sampler import sample
from components.generation._stopping import Stopping
from components.policy.model import Policy

SPECIAL = ["<unk>", "<s>", "</s>"]
EOS = 2
BYTES = len(SPECIAL)  # the first of 256
WORDS = ["▁", "▁Hello", "a", "b", ":"]
EMOJI = "🙂".encode()


def make_tokenizer():
    vocabulary = {name: i for i, name in enumerate([*SPECIAL, *(f"<0x{b:02X}>" for b in range(256)), *WORDS])}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    pieces = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(pieces)
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


TOKENIZER = make_tokenizer()


def ids(*pieces):
    """Token ids of words and of bytes."""
    place = {word: BYTES + 256 + i for i, word in enumerate(WORDS)}
    return np.array([i for p in pieces for i in ([place[p]] if isinstance(p, str) else [BYTES + byte for byte in p])])


def text_of(row):
    """A row's text by the rule itself: runs of bytes are UTF-8, or nothing that can be read."""
    text = ""
    visible = [int(i) for i in row if i >= BYTES]
    for is_byte, group in groupby(visible, lambda i: i < BYTES + 256):
        run = list(group)
        if not is_byte:
            text += "".join(WORDS[i - BYTES - 256] for i in run).replace("▁", " ")
            continue
        try:
            text += bytes(i - BYTES for i in run).decode()
        except UnicodeDecodeError:
            text += "\ufffd" * len(run)
    return text.removeprefix(" ")


def first_stop(row, stop):
    return next((n for n in range(1, len(row) + 1) if any(one in text_of(row[:n]) for one in stop)), None)


@pytest.mark.parametrize(
    ("pieces", "stop", "length"),
    [
        (("▁Hello", b"\n", EMOJI[:2]), "\n", 2),  # an emoji that was cut off
        (("▁Hello", b"\n", EMOJI), "\n", 2),  # one that is whole: the stop string comes, goes and comes again
        (("▁Hello", b"\n", b"\xff", *"ab" * 40), "\n", 2),  # gone for good, and long ago
        (("a", b"\n\n", EMOJI[:1], "b", b"\n\n", "a"), "\n\n", 3),
        (("a", "…".encode() * 9, b"\n", b"\xe2"), "\n", 29),  # behind more bytes than are looked at
        (("a", "é".encode(), b"\xf0", "b"), "é", 3),
        (("a", b"\xff\n", "b"), "\n", None),  # never there
        (("a", b"\xff\n", "b", b"\n", "a"), "\n", 5),
    ],
)
def test_a_stop_string_that_later_bytes_hide_ends_a_response(pieces, stop, length):
    row = ids(*pieces)
    assert first_stop(row, [stop]) == length
    kept, ended = Stopping(TOKENIZER, [stop]).until_stop([row], np.array([False]))
    assert (len(kept[0]), bool(ended[0])) == (length or len(row), length is not None)


def test_eos_behind_hidden_stop_strings():
    row = np.append(ids("a", b"\n", EMOJI[:2]), EOS)
    kept, ended = Stopping(TOKENIZER, ["\n"]).until_stop([row], np.array([True]))
    assert (len(kept[0]), bool(ended[0])) == (2, True)


@pytest.mark.parametrize("stop", [("\n",), ("\n\n", "a\n"), ("é",), ("🙂", ": "), ("…\n",)])
def test_ends_are_those_of_a_search_prefix_by_prefix(stop):
    """And `completed`, told of one token after another, sees each of them when it comes."""
    rng = np.random.default_rng(0)
    pool = np.append(ids(*WORDS, b"\n", b"\n", b"\xff", *(c.encode() for c in "é…🙂")), SPECIAL.index("<s>"))
    stopping = Stopping(TOKENIZER, stop)
    rows = [rng.choice(pool, rng.integers(1, 30)) for _ in range(150)]
    kept, ended = stopping.until_stop(rows, np.zeros(len(rows), dtype=bool))
    expected = [first_stop(row, stop) for row in rows]
    assert [len(row) if end else None for row, end in zip(kept, ended, strict=True)] == expected
    for row, end in zip(rows, expected, strict=True):
        told = (n for n in range(1, len(row) + 1) if stopping.completed([row[:n]])[0])
        assert next(told, None) == end


def test_no_response_goes_beyond_its_stop_string_whatever_the_batch(make_model):
    """Of random weights, most of whose tokens are bytes that are no UTF-8."""
    model = make_model("llama", vocab_size=len(TOKENIZER), num_attention_heads=2)
    policy = Policy(model, TOKENIZER, (EOS,), 0, "fp32")
    prompts, seeds = [[1, 5, 6], [1, 9]], np.arange(24, dtype=np.uint64).reshape(2, 12)
    stopped = 0
    for stop in ("\n", "a"):
        one, all_at_once = (sample(policy, prompts, seeds, Sampling(40, stop=(stop,)), batch_size=b) for b in (12, 24))
        np.testing.assert_array_equal(one.tokens.values, all_at_once.tokens.values)
        for i, finished in enumerate(one.finished.ravel()):
            row = one.tokens[i]
            end = first_stop(row, [stop])
            assert end in (None, len(row))
            assert finished == (end is not None or row[-1] == EOS)
            stopped += end is not None
    assert stopped > 2
