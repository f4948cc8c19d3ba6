"""Judges' models: loaded once per process with their own tokenizers, run over batches of similar length."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.config.errors import JudgeError, PolicyError
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.generation import ModelFiles
from components.judges._settings import ModelSettings
from components.policy import pretrained
from components.policy.batches import by_length
from components.policy.chat import Chat, check_generation_prompt
from components.policy.chat import check as check_template
from components.policy.files import fetch
from components.policy.library import PreTrainedModel, PreTrainedTokenizerBase
from components.policy.model import best_device
from components.runtime.progress import Progress

TEXTS_AT_ONCE = 1000  # what a tokenizer returns takes far more memory than the ids that are kept of it


@dataclass(frozen=True)
class Loaded:
    """A judge's model and tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    pad_id: int | None  # the model's own; None where it has none that it embeds
    files: ModelFiles | None = None  # of a model without weights, which an engine reads

    def limit(self, max_tokens: int | None) -> int | None:
        """Most tokens of an input: as configured, else what model and tokenizer are made for. None: any number.

        Raises JudgeError for more than the model has positions.
        """
        config = self.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        if not getattr(config, "position_biased_input", True):  # DeBERTa's relative positions have no end
            positions = None
        if max_tokens and positions and max_tokens > positions:
            raise JudgeError(f"judge.max_tokens: {max_tokens} exceeds the model's {positions} positions. Lower it.")
        limits = [max_tokens] if max_tokens else [positions, self.tokenizer.model_max_length]
        if self.files is not None and positions:
            limits.append(positions - 1)  # an engine counts the token that it draws
        known = [limit for limit in limits if limit and limit < 2**31]  # a tokenizer without one has a huge number
        return min(known, default=None)


def load(settings: ModelSettings, kind: Any) -> Loaded:
    """The model that a judge names, in eval mode on the best device; only the first call loads it.

    Args:
        settings: which model, and its precision.
        kind: class with the `from_pretrained` to use, such as AutoModelForCausalLM.

    Raises:
        JudgeError: the model is not available, needs code that nobody allowed, lacks weights, or its tokenizer has
            tokens that it does not embed.
    """
    return _load(settings.model, settings.revision, settings.trust_remote_code, settings.precision, kind)


@functools.cache
def _load(name: str, revision: str | None, trust_remote_code: bool, precision: str, kind: Any) -> Loaded:
    code, device = trust_remote_code, best_device()
    remedy = "Use a model that was trained for this kind of judge, saved whole with `save_pretrained`."
    options: dict[str, Any] = {"key": "judge", "name": name, "code": code}
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[chosen_precision(precision, device)]
    try:
        directory = fetch(PolicyConfig(model=name, revision=revision, trust_remote_code=code), "judge")
        tokenizer = pretrained.read_tokenizer(directory, **options)
        model = pretrained.read(directory, kind, **options, dtype=dtype, remedy=remedy)
        pretrained.require_embedded(model, tokenizer, "judge")
    except PolicyError as error:
        raise JudgeError(str(error)) from error
    model.config.get_text_config().use_cache = False  # keys and values that nothing reads again
    pad_id = getattr(model.config.get_text_config(), "pad_token_id", None)
    known = pad_id is not None and 0 <= pad_id < model.get_input_embeddings().weight.shape[0]
    return Loaded(model.to(device).eval(), tokenizer, pad_id if known else None)


def chosen_precision(asked: str, device: torch.device) -> str:
    """Which of fp32 and bf16: as asked, or for auto what suits the device."""
    half = asked == "bf16" or (asked == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported())
    return "bf16" if half else "fp32"


def unload() -> None:
    """Forgets all models that `load` gave, and leaves their memory on the GPU to others."""
    _load.cache_clear()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def blank_special(tokenizer: PreTrainedTokenizerBase, *more: str) -> Callable[[str], str]:
    """A function that blanks the names of special tokens in a text.

    Else a response could end its own turn and continue in the judge's name: tokenizers read such names as the tokens
    themselves.
    """
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = sorted({*special, *tokenizer.all_special_tokens, *more}, key=len, reverse=True)
    pattern = re.compile("|".join(re.escape(name) for name in names) or "(?!)")
    return lambda text: pattern.sub(" ", text)


def chat_of(loaded: Loaded, options: Mapping[str, Any], *, answers: bool) -> Chat:
    """The chat template of a judge's model, which answers itself or reads answers.

    Raises JudgeError for one that no judgement could be made with.
    """
    chat = Chat(loaded.tokenizer, options, called="the chat template of the judge's model", key="judge")
    try:
        check_template(chat, "judge")
        if answers:
            check_generation_prompt(chat, "judge")
    except PolicyError as error:
        raise JudgeError(str(error)) from error
    return chat


def templated(chat: Chat, prompt: Prompt, messages: Sequence[dict[str, str]], *, answer: bool) -> str:
    """Messages in the judge's chat template, with the header of an answer to come if `answer`.

    Raises JudgeError, with the prompt's id, when the template refuses them or leaves something out.
    """
    try:
        return chat.write(messages, prompt.id, answer=answer)
    except PolicyError as error:
        raise JudgeError(str(error)) from error


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, add_special_tokens: bool
) -> list[NDArray[np.int32]]:
    """Token ids of texts, with one BOS where tokenizer and text both bring one.

    A chat template writes all special tokens itself: its texts need `add_special_tokens=False`.
    """
    rows = []
    for begin in range(0, len(texts), TEXTS_AT_ONCE):
        chunk = list(texts[begin : begin + TEXTS_AT_ONCE])
        ids = tokenizer(chunk, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
        rows += [np.array(row, dtype=np.int32) for row in ids["input_ids"]]
    twice = [len(row) > 1 and row[0] == row[1] == tokenizer.bos_token_id for row in rows]
    return [row[1:] if bos else row for row, bos in zip(rows, twice, strict=True)]


def right_padded(rows: Sequence[NDArray[np.int32]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows as input_ids and attention mask, both (B, L) int64."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    ids[mask] = np.concatenate(rows)
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask.astype(np.int64)).to(device)


@torch.inference_mode()
def run(
    rows: Sequence[NDArray[np.int32]],
    forward: Callable[[list[NDArray[np.int32]]], Tensor],
    *,
    tokens_per_batch: int,
    progress: Progress,
) -> NDArray[np.float64]:
    """A model's answer to each row, longest rows first; equal rows, common in sharp policies, are read once.

    Args:
        rows: N token id sequences.
        forward: B rows to B numbers, shape (B,).
        tokens_per_batch: padded tokens of one call of `forward`, at least those of one row.
        progress: called with the number of different rows done.

    Returns:
        (N,).
    """
    seen: dict[bytes, int] = {}
    places = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in rows], dtype=np.int64)
    distinct = [rows[i] for i in np.unique(places, return_index=True)[1]]
    answers = np.empty(len(distinct))
    done = 0
    lengths = np.array([len(row) for row in distinct])
    for indices in by_length(lengths, lengths, tokens_per_batch):
        answers[indices] = forward([distinct[i] for i in indices]).double().cpu().numpy()
        done += len(indices)
        progress(done, len(distinct))
    return answers[places]


def limited(
    loaded: Loaded,
    rows: Sequence[NDArray[np.int32]],
    limit: int | None,
    truncate: str,
    place: Callable[[int], str],
    remedy: str,
) -> tuple[list[NDArray[np.int32]], float]:
    """Rows of at most `limit` tokens, and the share of them that lost some.

    Args:
        loaded: whose rows; the first token stays if it is BOS or CLS, which models lean on.
        rows: N token id sequences.
        limit: None for any number.
        truncate: "never", "left" (the beginning goes) or "right" (the end goes).
        place: names the input of a row, for the error message.
        remedy: ends the error message.

    Raises:
        JudgeError: a row without tokens, or one that is too long and must not be truncated.
    """
    lengths = np.array([len(row) for row in rows])
    for i in np.flatnonzero(lengths == 0)[:1]:
        raise JudgeError(f"{place(int(i))}: there is nothing for the judge to read. Remove the prompt.")
    if limit is None or lengths.max() <= limit:
        return list(rows), 0.0
    over = lengths > limit
    if truncate == "never":
        longest = int(lengths.argmax())
        raise JudgeError(
            f"{place(longest)}: {lengths[longest]} tokens for the judge to read, and it reads {limit} at most; so it "
            f"is with {over.sum()} of {len(rows)} inputs. {remedy}"
        )
    begin = {loaded.tokenizer.bos_token_id, loaded.tokenizer.cls_token_id}
    return [_cut(row, limit, truncate, keep_first=int(row[0]) in begin) for row in rows], float(over.mean())


def _cut(row: NDArray[np.int32], limit: int, side: str, *, keep_first: bool) -> NDArray[np.int32]:
    if len(row) <= limit or side == "right":
        return row[:limit]
    head = row[: int(keep_first)]
    return np.concatenate([head, row[len(row) - limit + len(head) :]])
