"""Stop strings: the token at which a response ends, what of it is text, and the same in the transformers engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.config.errors import ConfigError, EngineError
from components.data.records import Prompt, Ragged
from components.generation import Sampling, _sampler
from components.generation._stopping import Stopping, before
from components.generation.transformers import TransformersEngine
from components.policy.logprobs import score_responses
from components.policy.model import Policy
from components.run_config import parse
from components.stages import sampling
from support.models.bytewise import BOS, END, EOS, PAD, bytes_of, first_stop, text_of, tokenizer

TOKENIZER = tokenizer()
TABLE = bytes_of(TOKENIZER)
IDS = {text_of([i], TABLE): i for i in TABLE if i > END}


def ids(*pieces):
    """Token ids of pieces of text; bytes of a character that is not whole are given as bytes, special ones as ids."""
    raw = {text: i for i, text in TABLE.items()}
    return np.array([p if isinstance(p, int) else raw[p] if isinstance(p, bytes) else IDS[p] for p in pieces])


def cut(row, *stop, finished=False):
    """(Tokens kept, text, finished) of one response."""
    rows, ended = Stopping(TOKENIZER, stop).until_stop([row], np.array([finished]))
    return len(rows[0]), before(text_of(rows[0], TABLE), stop), bool(ended[0])


# Where a response ends


@pytest.mark.parametrize(
    ("pieces", "stop", "expected"),
    [
        (("x", "\n\n", "y"), ["\n\n"], (2, "x", True)),
        (("x", "\n\n", "y"), ["\n"], (2, "x", True)),  # the first half of a token
        (("xa", "by", "c"), ["ab"], (2, "x", True)),  # from the middle of a token to the middle of the next
        (("x", "a", "b", "c", "y"), ["abc"], (4, "x", True)),  # over three tokens
        (("x", "a", "b", "d"), ["abc"], (4, "xabd", False)),
        (("a", "a", "a", "b"), ["aab"], (4, "a", True)),  # begins again within itself
        (("aa", "aa"), ["a"], (1, "", True)),
        (("a", "b", "c"), ["bc", "abc"], (3, "", True)),  # both end here, and this one begins first
        (("a", "b", "c"), ["b", "abc"], (2, "a", True)),  # this one ends first
        (("abbc",), ["b", "abb"], (1, "", True)),  # in one token: again what begins first
        (("a", "b"), ["x", "y", "b"], (2, "a", True)),
        ((b"\xc3", b"\xa9", "a"), ["é"], (2, "", True)),  # a character of two tokens
        ((b"\xc3", b"\xa9", "a"), ["a"], (3, "é", True)),
        (("é", "x"), ["é"], (1, "", True)),
        ((b"\xe2", b"\x80", b"\xa6", "x"), ["…x"], (4, "", True)),
        ((b"\xf0", b"\x9f", b"\x98", b"\x80"), ["😀"], (4, "", True)),
        ((b"\xf0", b"\x9f", b"\x98", b"\x80"), ["😁"], (4, "😀", False)),  # three of its four bytes
        (("a", PAD, "b"), ["ab"], (3, "", True)),  # special tokens are no text
        (("x", "y"), [], (2, "xy", False)),
    ],
)
def test_a_response_ends_with_the_token_that_completes_a_stop_string(pieces, stop, expected):
    assert cut(ids(*pieces), *stop) == expected


def test_eos_ends_a_response_before_any_stop_string():
    assert cut(ids("x", "a", EOS), "b", finished=True) == (3, "xa", True)
    assert cut(ids("x", "a", "b", EOS), "a", finished=True) == (2, "x", True)


def random_rows(n, seed=0):
    """Rows of the pieces and bytes that stop strings below are made of, special ones among them."""
    rng = np.random.default_rng(seed)
    some = [*"abcxy\n", "ab", "bc", "xa", "by", "\n\n", "aa", "abbc", "é", b"\xc3", b"\xa9", b"\xe2", b"\x80", b"\xa6"]
    pool = ids(*some, PAD, BOS)
    return [rng.choice(pool, rng.integers(1, 40)) for _ in range(n)]


STOPS = [("ab",), ("\n\n", "abab"), ("é", "xab"), ("…", "bcb", "yy"), ("aab", "aabx", "b\n"), ("cab" * 3,)]


@pytest.mark.thorough(but=["stop0", "stop4"])
@pytest.mark.parametrize("stop", STOPS)
def test_ends_are_those_of_a_search_byte_by_byte(stop):
    """And `completed`, told of one token after another, sees each of them when it comes."""
    stopping, rows = Stopping(TOKENIZER, stop), random_rows(300)
    expected = [first_stop(row, stop, TABLE) for row in rows]
    kept, ended = stopping.until_stop(rows, np.zeros(len(rows), dtype=bool))
    assert [len(row) if end else None for row, end in zip(kept, ended, strict=True)] == expected
    for row, end in zip(rows, expected, strict=True):
        told = [stopping.completed([row[:length]])[0] for length in range(1, len(row) + 1)]
        assert (told.index(True) + 1 if True in told else None) == end


def test_a_window_full_of_special_tokens_hides_nothing_in_the_end():
    row = ids("a", *[PAD] * 50, "b", "c")
    assert not any(Stopping(TOKENIZER, ["ab"]).completed([row[:52]]))
    assert cut(row, "ab") == (52, "", True)


def test_a_special_token_ends_a_response_by_its_id():
    stopping = Stopping(TOKENIZER, ["<end>", "a"])
    assert (stopping.ids, stopping.texts) == ((END,), ("a",))
    with pytest.raises(EngineError, match=r"generation\.stop: '<end>\\n' holds the special token '<end>'"):
        Stopping(TOKENIZER, ["<end>\n"])


# In the engine


@pytest.fixture(scope="module")
def policy(make_model):
    """Random weights, with more of a mind for letters than for single bytes."""
    model = make_model("llama", vocab_size=len(TABLE), num_attention_heads=2)
    likely = {EOS, END, *ids(*"abcxy\n", "ab", "bc", "xa", "by", "\n\n", "aa", "é", b"\xc3", b"\xa9").tolist()}
    unused = torch.tensor([i not in likely for i in range(len(TABLE))])
    return Policy(model, TOKENIZER, (EOS,), PAD, "fp32", unused=unused)


PROMPTS = [Prompt(name, ({"role": "user", "content": text},)) for name, text in [("1", "ab"), ("2", "x"), ("3", "yyy")]]


def draw(policy, *stop, k=40, limit=30, **changed):
    run = {"responses": k, "sampling": Sampling(limit, stop=stop), "seed": 0, "purpose": "train", "iteration": 1}
    return sampling.generate(policy, TransformersEngine(), PROMPTS, **run | changed)


def rows_of(rollout):
    return [rollout.tokens[i].tolist() for i in range(len(rollout.tokens))]


@pytest.mark.thorough(but=["stop0", "stop3"])
@pytest.mark.parametrize("stop", [("ab",), ("\n\n", "bca"), ("é",), ("<end>",), ("<end>", "xab", "y")])
def test_responses_are_those_without_stop_strings_up_to_there(policy, stop):
    texts, special = [one for one in stop if one != "<end>"], {"<end>"} & set(stop)
    rollout, whole = draw(policy, *stop), draw(policy)
    stopped = 0
    for i, row in enumerate(rows_of(whole)):
        end = first_stop(row[:-1] if row[-1] == EOS else row, texts, TABLE)
        if special and END in row[:end]:
            end = row.index(END) + 1
        kept = row[:end]
        assert rollout.tokens[i].tolist() == kept
        assert rollout.finished.reshape(-1)[i] == (end is not None or row[-1] == EOS)
        shown = text_of(kept, TABLE)
        assert rollout.texts[i] == shown[: min([p for t in texts if (p := shown.find(t)) >= 0], default=None)]
        stopped += end is not None
    assert 20 < stopped <= 120
    assert rollout.texts != whole.texts


def test_responses_with_stop_strings_depend_on_nothing_else(policy):
    together = draw(policy, "ab", "\n")
    again = TransformersEngine(batch_size=7)
    run = {"responses": 40, "sampling": Sampling(30, stop=("\n", "ab")), "seed": 0, "purpose": "train", "iteration": 1}
    for prompts in (PROMPTS, PROMPTS[::-1]):
        other = sampling.generate(policy, again, prompts, **run)
        order = [PROMPTS.index(prompt) for prompt in prompts]
        assert rows_of(other) == [rows_of(together)[i * 40 + k] for i in order for k in range(40)]
        np.testing.assert_array_equal(other.finished, together.finished[order])


def test_a_batch_ends_when_all_have_stopped(policy, monkeypatch):
    steps = []
    monkeypatch.setattr(_sampler, "draw", lambda *a: steps.append(0) or draw_token(*a))
    lengths = draw(policy, "a", "b", "c", "x", "y", limit=400).tokens.lengths
    assert len(steps) == lengths.max() < 100


draw_token = _sampler.draw


def test_log_probs_add_up_to_one_over_all_responses(policy):
    """Of a policy of few tokens: those that end with a stop string, EOS or after two tokens are all there are."""
    few = [EOS, *ids("a", "b", "ab").tolist()]
    narrow = replace(policy, unused=torch.tensor([i not in few for i in range(len(TABLE))]))
    stop = ("b",)  # ends the first token in `b` and `ab`
    responses = [[EOS], *([IDS[t]] for t in ("b", "ab")), *([IDS["a"], last] for last in few)]
    logp = score_responses(narrow, Ragged.of([[BOS]]), Ragged.of(responses))
    assert np.exp(logp).sum() == pytest.approx(1, abs=1e-5)
    drawn = TransformersEngine().sample(narrow, [[BOS]], np.arange(400, dtype=np.uint64)[None], Sampling(2, stop=stop))
    found = [drawn.tokens[i].tolist() for i in range(400)]
    assert {tuple(row) for row in found} == {tuple(row) for row in responses}
    expected = 400 * np.exp(logp[0])
    counts = np.array([found.count(row) for row in responses])
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected) + 1).all()


# In the config

CONFIG = "policy: {model: m}\nprompts: {train: p.jsonl}\njudge: {name: verifier, function: 'a:b'}\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("stop: ['']", "generation.stop: '' is in every text. Remove it"),
        ("stop: [a, '']", "generation.stop: '' is in every text. Remove it"),
        ("stop: [a, b, a]", "generation.stop: 'a' is given twice."),
        (
            f"stop: [{', '.join(f's{i}' for i in range(1000))}]",
            "generation.stop: 1000 stop strings are too many. Use 64",
        ),
        (f"stop: [{'a' * 201}]", "generation.stop: 'aaaaaaaaaaaaaaaaaaaa'… has 201 characters. Use 200 or fewer."),
        ('stop: ["\\uFFFD"]', "generation.stop: '\ufffd' holds U+FFFD"),
        ("stop: a", "generation.stop: 'a' cannot be used. Input should be a valid list."),
        ("stop: [1]", "generation.stop.0: 1 cannot be used. Input should be a valid string."),
        ("stop: null", "generation.stop: None cannot be used. Input should be a valid list."),
        ("top_k: 0", "generation.top_k: 0 cannot be used. Input should be greater than 0."),
        ("top_k: -1", "generation.top_k: -1 cannot be used."),
        ("top_k: 2.5", "generation.top_k: 2.5 cannot be used."),
        ("min_p: 1", "generation.min_p: 1 cannot be used. Input should be less than 1."),
        ("min_p: -0.1", "generation.min_p: -0.1 cannot be used."),
        ("min_p: .nan", "generation.min_p: nan cannot be used."),
    ],
)
def test_values_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError) as caught:
        parse(f"{CONFIG}generation: {{{settings}}}")
    assert str(caught.value).startswith(message)
    assert len(str(caught.value)) < 200


def test_values_that_can():
    text = f'{CONFIG}generation: {{stop: ["\\n\\n", "###", "…"], top_k: 1, min_p: 0.99}}'
    generation = parse(text)["generation"]
    assert (generation["stop"], generation["top_k"], generation["min_p"]) == (["\n\n", "###", "…"], 1, 0.99)
    assert parse(CONFIG)["generation"]["stop"] == []
