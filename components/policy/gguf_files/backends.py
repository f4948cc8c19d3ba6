"""How a GGUF file's tokenizer cuts text, as the library tokenizers does it: without special tokens and roles."""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.tokenization_utils_base import generate_merges

from components.policy.gguf_files.header import Header

BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"  # llama.cpp's names of the two kinds, in `tokenizer.ggml.model`
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # of `tokenizer.ggml.token_type`
# How llama.cpp cuts text before it merges, by `tokenizer.ggml.pre`, where transformers has no pattern of its own.
AS_GPT2 = ("gpt-2", "phi-2")
DIGITS_FIRST = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
AS_QWEN2 = ("qwen2", "deepseek-r1-qwen")  # in Unicode's composed form, as the models were trained
# Those that take a word of the vocabulary whole before any merge, and whose texts begin with BOS.
AS_LLAMA3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
ADVICE = "Put its original tokenizer (tokenizer.json, tokenizer_config.json) beside it, and name the folder."


def build(header: Header) -> Tokenizer:
    """The tokenizer without added tokens. Raises PolicyError for one of another kind, or that lacks a part."""
    fields, kind = header.fields, header.fields.get("tokenizer.ggml.model")
    if kind not in (BYTE_LEVEL, SENTENCEPIECE) or not header.tokens:
        raise header.error(f"has a tokenizer of the kind {kind!r}, which is not converted. {ADVICE}")
    needed = "merges" if kind == BYTE_LEVEL else "scores"
    if f"tokenizer.ggml.{needed}" not in fields:
        raise header.error(f"has a tokenizer without {needed}. {ADVICE}")
    if fields.get("tokenizer.ggml.add_bos_token") and header.token_id("bos") is None:
        raise header.error(f"states that texts begin with BOS, and no BOS. {ADVICE}")
    return _byte_level(header) if kind == BYTE_LEVEL else _sentencepiece(header)


def begins_with_bos(header: Header) -> bool:
    """Whether llama.cpp puts BOS before a text if the file does not say."""
    fields = header.fields
    return fields.get("tokenizer.ggml.model") == SENTENCEPIECE or fields.get("tokenizer.ggml.pre") in AS_LLAMA3


def _byte_level(header: Header) -> Tokenizer:
    """BPE on bytes, each of which is written as one character."""
    pre = header.fields.get("tokenizer.ggml.pre")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cut: list[Any]
    if pre in AS_GPT2:
        cut = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif pre in DIGITS_FIRST:
        cut = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif pre in GGUF_PRE_TOKENIZER_SPLITS:
        cut = [pre_tokenizers.Split(Regex(GGUF_PRE_TOKENIZER_SPLITS[pre]), "isolated"), bytes_only]
    else:
        raise header.error(
            f"cuts text in a way that is not known here (tokenizer.ggml.pre = {pre!r}), so prompts would get other "
            f"tokens than in training. {ADVICE}"
        )
    vocabulary = {token: i for i, token in enumerate(header.tokens)}
    merges = [tuple(merge.split(" ")) for merge in header.fields["tokenizer.ggml.merges"]]
    for merge in merges:
        if len(merge) != 2 or not {*merge, "".join(merge)} <= vocabulary.keys():
            raise header.error(f"merges {merge}, of which its vocabulary lacks a part. {ADVICE}")
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre in AS_LLAMA3))
    backend.normalizer = normalizers.NFC() if pre in AS_QWEN2 else None
    backend.pre_tokenizer = pre_tokenizers.Sequence(cut)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(header: Header) -> Tokenizer:
    """BPE on characters with a space written as ▁; what the vocabulary lacks is spelled in bytes."""
    tokens, scores = header.tokens, header.fields["tokenizer.ggml.scores"]
    if header.architecture == "gemma2":
        raise header.error(f"has Gemma's tokenizer, whose order of merges the file does not hold. {ADVICE}")
    vocabulary = {token: i for i, token in enumerate(tokens)}
    types = header.fields.get("tokenizer.ggml.token_type") or [NORMAL] * len(tokens)
    never_merged = {token for token, kind in zip(tokens, types, strict=True) if kind not in (NORMAL, USER_DEFINED)}
    merges = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)), never_merged)
    unknown = header.token_id("unknown")
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaced = header.fields.get("tokenizer.ggml.add_space_prefix", True)  # after each special token too
    before = [normalizers.Prepend("▁")] if spaced else []
    backend.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    after = [decoders.Strip(" ", 1, 0)] if spaced else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *after])
    return backend
