"""The tokenizer of a GGUF file: transformers builds it, and what the file states beyond that is added and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from components.errors import PolicyError
from components.gguf_files.header import Header
from components.policy_files import copy_files, refuse_code

BYTE_LEVEL, SENTENCEPIECE = "gpt2", "llama"  # llama.cpp's names of the two kinds, in `tokenizer.ggml.model`
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # of `tokenizer.ggml.token_type`
# How llama.cpp cuts text before it merges, by `tokenizer.ggml.pre`, where transformers has no entry of its own.
AS_GPT2 = ("gpt-2", "phi-2")
DIGITS_FIRST = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
# Those whose vocabulary is taken whole before any merge, and whose texts begin with BOS unless the file says otherwise.
AS_LLAMA3 = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")
ADVICE = "Put its original tokenizer (tokenizer.json, tokenizer_config.json) beside it, and name the folder."


def build(header: Header, folder: Path, name: str, target: Path) -> PreTrainedTokenizerBase:
    """Writes the tokenizer inside the file `name` of `folder` to `target`, and loads it from there.

    Raises PolicyError if it does not give each token the id, spelling and role that the file states.
    """
    _check_kind(header)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise header.error(f"has a tokenizer that cannot be read ({error}). {ADVICE}") from error
    _cut_as_stated(tokenizer, header)
    tokenizer.add_bos_token = adds_bos(header)
    tokenizer.add_eos_token = bool(header.fields.get("tokenizer.ggml.add_eos_token", False))
    tokenizer.chat_template = chat_template(header)
    tokenizer.save_pretrained(target)
    stored = AutoTokenizer.from_pretrained(target)
    _check_tokens(stored, header)
    _check_roles(stored, header)
    return stored


def lies_beside(folder: Path) -> bool:
    """Whether a folder holds a whole tokenizer. Raises PolicyError for one without its vocabulary."""
    if any((folder / name).is_file() for name in VOCABULARIES):
        return True
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        if (folder / name).is_file():
            raise PolicyError(
                f"policy.model: {folder} holds {name} beside its GGUF file, and no vocabulary. Add the tokenizer's "
                "other files, or name the .gguf file itself to take the tokenizer inside it."
            )
    return False


def take(header: Header, folder: Path, target: Path) -> PreTrainedTokenizerBase:
    """Copies the tokenizer that lies beside the file to `target`, and loads it from there.

    It keeps what it says of itself, a chat template too; the file's is taken where it has none.

    Raises PolicyError if it is another model's: tokens or BOS differ from those that the file states.
    """
    config = (target / "config.json").read_text("utf-8")
    copy_files(folder, target, weights=False)
    (target / "config.json").write_text(config, "utf-8")
    (target / "generation_config.json").unlink(missing_ok=True)
    try:
        refuse_code(target)
        tokenizer = AutoTokenizer.from_pretrained(target)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise header.error(f"lies beside a tokenizer that cannot be loaded: {error}") from error
    _check_spellings(tokenizer, header)
    if header.token_id("bos") not in (None, tokenizer.bos_token_id):
        raise header.error(
            f"states BOS {header.token_id('bos')}, and the tokenizer beside it {tokenizer.bos_token_id}. Use the "
            "tokenizer that belongs to the model, or name the .gguf file itself to take the one inside it."
        )
    if not tokenizer.chat_template and chat_template(header):
        tokenizer.chat_template = chat_template(header)
        tokenizer.save_pretrained(target)
    return tokenizer


def chat_template(header: Header) -> str | dict[str, str] | None:
    """The file's chat template; by name, "default" among them, where it has several."""
    begin = "tokenizer.chat_template"
    default = header.fields.get(begin)
    named = {key.removeprefix(f"{begin}."): text for key, text in header.fields.items() if key.startswith(f"{begin}.")}
    return {"default": default, **named} if default and named else default


def adds_bos(header: Header) -> bool:
    """Whether a text begins with BOS: as the file states, else as llama.cpp does for such a tokenizer."""
    usual = header.fields.get("tokenizer.ggml.model") == SENTENCEPIECE
    usual |= header.fields.get("tokenizer.ggml.pre") in AS_LLAMA3
    return bool(header.fields.get("tokenizer.ggml.add_bos_token", usual and header.token_id("bos") is not None))


def _check_kind(header: Header) -> None:
    kind = header.fields.get("tokenizer.ggml.model")
    if kind not in (BYTE_LEVEL, SENTENCEPIECE) or not header.tokens:
        raise header.error(f"has a tokenizer of the kind {kind!r}, which is not converted. {ADVICE}")
    needed = "merges" if kind == BYTE_LEVEL else "scores"
    if f"tokenizer.ggml.{needed}" not in header.fields:
        raise header.error(f"has a tokenizer without {needed}. {ADVICE}")
    pre = header.fields.get("tokenizer.ggml.pre")
    if kind == BYTE_LEVEL and pre not in (*GGUF_PRE_TOKENIZER_SPLITS, *AS_GPT2, *DIGITS_FIRST):
        raise header.error(
            f"cuts text in a way (tokenizer.ggml.pre = {pre!r}) that is not known, so it would get other tokens than "
            f"in training. {ADVICE}"
        )
    if header.fields.get("tokenizer.ggml.add_bos_token") and header.token_id("bos") is None:
        raise header.error(f"states that texts begin with BOS, and no BOS. {ADVICE}")


def _cut_as_stated(tokenizer: Any, header: Header) -> None:
    """Sets what transformers leaves at some default: how text is cut, and whether a space is put before it."""
    backend, pre = tokenizer.backend_tokenizer, header.fields.get("tokenizer.ggml.pre")
    if header.fields["tokenizer.ggml.model"] == SENTENCEPIECE:
        if header.fields.get("tokenizer.ggml.add_space_prefix", True) is False:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
            backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        return
    if pre in DIGITS_FIRST:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(r"\p{N}"), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    backend.model.ignore_merges = pre in AS_LLAMA3


def _check_spellings(tokenizer: Any, header: Header) -> None:
    types = header.fields.get("tokenizer.ggml.token_type") or [1] * len(header.tokens)
    spellings = tokenizer.convert_ids_to_tokens(list(range(min(len(header.tokens), len(tokenizer)))))
    spellings += [None] * (len(header.tokens) - len(spellings))
    wrong = [
        i
        for i, (stated, found, kind) in enumerate(zip(header.tokens, spellings, types, strict=True))
        if kind != UNUSED and stated.replace(" ", "▁") != (found or "").replace(" ", "▁")
    ]
    if wrong:
        i = wrong[0]
        raise header.error(
            f"calls token {i} {header.tokens[i]!r}, and its tokenizer {spellings[i]!r} (one of {len(wrong)}). {ADVICE}"
        )


def _check_tokens(tokenizer: Any, header: Header) -> None:
    _check_spellings(tokenizer, header)
    if len(tokenizer) != len(header.tokens):
        raise header.error(f"lists {len(header.tokens)} tokens, and its tokenizer has {len(tokenizer)}. {ADVICE}")
    types = header.fields.get("tokenizer.ggml.token_type") or ()
    special = set(tokenizer.all_special_ids)
    for i, kind in enumerate(types):
        if kind not in (CONTROL, USER_DEFINED):
            continue
        ids = tokenizer.encode(header.tokens[i], add_special_tokens=False)
        if ids != [i] or (kind == CONTROL) > (i in special):
            raise header.error(f"has the added token {header.tokens[i]!r}, which would be cut into pieces. {ADVICE}")


def _check_roles(tokenizer: Any, header: Header) -> None:
    for role, stated in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if getattr(tokenizer, f"{role}_token_id") != header.token_id(stated):
            raise header.error(
                f"states {stated}_token_id {header.token_id(stated)}, and its tokenizer has "
                f"{getattr(tokenizer, f'{role}_token_id')}. {ADVICE}"
            )
    if tokenizer.chat_template != chat_template(header):
        raise header.error(f"has a chat template that is not kept. {ADVICE}")
    first = tokenizer.encode("a")[:1]
    if (first == [header.token_id("bos")]) != adds_bos(header):
        raise header.error(f"states add_bos_token {adds_bos(header)}, and its tokenizer begins with {first}. {ADVICE}")
