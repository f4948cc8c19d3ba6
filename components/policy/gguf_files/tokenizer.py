"""The tokenizer of a GGUF file: made anew from its vocabulary, or taken from beside it and compared with that.

transformers can make one too, which adds tokens to a vocabulary without <|endoftext|>, leaves others unmarked, and
overlooks add_bos_token, the space before a text and some ways to cut it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import AddedToken

from components.config.errors import PolicyError
from components.policy.files import copy_files, refuse_adapter, refuse_code
from components.policy.gguf_files import backends
from components.policy.gguf_files.backends import ADVICE, CONTROL, UNUSED, USER_DEFINED
from components.policy.gguf_files.header import Header
from components.policy.library import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from components.policy.pretrained import Refusals

ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # transformers' names and the file's
FAULTS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # of a template's own
SAMPLE = "The quick brown fox, 1234.5 km; l'été über Māori\n\n  x = f(y) != 'z'… 你好 🙂 unbelievable tokenizers"
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def build(header: Header, target: Path) -> PreTrainedTokenizerBase:
    """Writes the tokenizer inside a file to the directory `target`, which has the config, and loads it from there.

    Raises PolicyError if it does not give each token the id, spelling and role that the file states.
    """
    backend = backends.build(header)
    types = header.fields.get("tokenizer.ggml.token_type") or ()
    for token, kind in zip(header.tokens, types, strict=False):
        if kind in (CONTROL, USER_DEFINED):
            backend.add_tokens([AddedToken(token, normalized=False, special=kind == CONTROL)])
    ids = {role: header.token_id(named) for role, named in ROLES.items()}
    if wrong := [role for role, i in ids.items() if i is not None and i >= len(header.tokens)]:
        raise header.error(f"states {ROLES[wrong[0]]}_token_id {ids[wrong[0]]}, which is no token of it. {ADVICE}")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=chat_template(header),
        add_bos_token=adds_bos(header),
        add_eos_token=bool(header.fields.get("tokenizer.ggml.add_eos_token", False)),
        **{f"{role}_token": None if i is None else header.tokens[i] for role, i in ids.items()},
    )
    tokenizer.save_pretrained(target)
    _write_absent_roles(target, ids)
    stored = AutoTokenizer.from_pretrained(target)
    _check_backend(stored, tokenizer, header)
    _check_tokens(stored, header)
    _check_roles(stored, header)
    return stored


def _write_absent_roles(target: Path, ids: dict[str, int | None]) -> None:
    """A class that the library picks by the config would fill roles that are not there with tokens of its own."""
    file = target / "tokenizer_config.json"
    absent = {f"{role}_token": None for role, i in ids.items() if i is None}
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **absent}, indent=2), "utf-8")


def _check_backend(stored: Any, built: Any, header: Header) -> None:
    parts: list[Any] = []
    for tokenizer in (stored, built):
        values = json.loads(tokenizer.backend_tokenizer.to_str())
        model = values["model"]
        parts.append([values[key] for key in ("normalizer", "pre_tokenizer", "post_processor", "added_tokens")])
        parts[-1] += [model["vocab"], model["merges"], model["ignore_merges"], model["byte_fallback"]]
    if parts[0] != parts[1]:
        raise header.error(
            f"has a tokenizer that transformers, for this architecture, replaces by a {type(stored).__name__}. "
            "Use a file whose tokenizer is of that kind."
        )


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

    Raises PolicyError if it is another model's: tokens or BOS differ from what the file states.
    """
    refuse_adapter(folder)
    config = (target / "config.json").read_text("utf-8")
    copy_files(folder, target, weights=False)
    (target / "config.json").write_text(config, "utf-8")
    (target / "generation_config.json").unlink(missing_ok=True)
    with Refusals(str(header.error("lies beside a tokenizer that cannot be loaded")), ADVICE.rstrip(".")):
        refuse_code(target)
        tokenizer = AutoTokenizer.from_pretrained(target)
    _check_spellings(tokenizer, header)
    advice = "Use the tokenizer that belongs to the model, or name the .gguf file itself to take the one inside it."
    _check_cuts(tokenizer, header, advice)
    bos, adds = header.token_id("bos"), header.fields.get("tokenizer.ggml.add_bos_token")
    if bos not in (None, tokenizer.bos_token_id):
        raise header.error(f"states BOS {bos}, and the tokenizer beside it {tokenizer.bos_token_id}. {advice}")
    if adds not in (None, tokenizer.encode("a")[:1] == [bos]):
        raise header.error(f"states add_bos_token {adds}, and the tokenizer beside it {not adds}. {advice}")
    if not tokenizer.chat_template and chat_template(header):
        tokenizer.chat_template = chat_template(header)
        tokenizer.save_pretrained(target)
    return tokenizer


def _check_cuts(tokenizer: Any, header: Header, advice: str) -> None:
    """Raises PolicyError if a text becomes other tokens than by the file's own tokenizer, where that can be made."""
    try:
        own = backends.build(header)
    except PolicyError:  # of a kind that is not known here: the reason to put one beside it
        return
    pieces = own.encode(SAMPLE, add_special_tokens=False).ids, tokenizer.encode(SAMPLE, add_special_tokens=False)
    if pieces[0] != pieces[1]:
        raise header.error(f"cuts a text into {len(pieces[0])} tokens, the tokenizer beside it into others. {advice}")


def chat_template(header: Header) -> str | dict[str, str] | None:
    """The file's chat template; by name, "default" among them, where it has several.

    Raises PolicyError for a file with several and no default.
    """
    begin = "tokenizer.chat_template"
    default: str | None = header.fields.get(begin)
    named = {key.removeprefix(f"{begin}."): text for key, text in header.fields.items() if key.startswith(f"{begin}.")}
    if named and not default:
        raise header.error(f"has chat templates named {', '.join(sorted(named))}, and none to use as it is. {ADVICE}")
    return {"default": default, **named} if default and named else default


def check_template(tokenizer: Any, header: Header) -> None:
    """Raises PolicyError for a chat template that is none."""
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except FAULTS as error:
        raise header.error(f"has a chat template that writes no prompt ({error}). {ADVICE}") from error


def adds_bos(header: Header) -> bool:
    """Whether a text begins with BOS: as the file states, else as llama.cpp does for such a tokenizer."""
    usual = backends.begins_with_bos(header) and header.token_id("bos") is not None
    return bool(header.fields.get("tokenizer.ggml.add_bos_token", usual))


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
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    for i, kind in enumerate(types):
        if kind not in (CONTROL, USER_DEFINED):
            continue
        ids = tokenizer.encode(header.tokens[i], add_special_tokens=False)
        if ids != [i] or (kind == CONTROL) != (i in special):
            raise header.error(f"has the added token {header.tokens[i]!r}, which would be cut into pieces. {ADVICE}")


def _check_roles(tokenizer: Any, header: Header) -> None:
    for role, stated in ROLES.items():
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
