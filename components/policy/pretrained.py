"""Models and tokenizers out of a Hugging Face directory: whole and as they were trained, or refused with the remedy."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from components.config.errors import PolicyError, UserError
from components.policy import checks, whole
from components.policy.checks import ANEW
from components.policy.files import refuse_code
from components.policy.library import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from components.policy.weight_files import CONFIG, INDEX, weight_names

# What the library raises for files that it cannot make a model of.
UNLOADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, IndexError, KeyError, MemoryError, OSError),
    *(RuntimeError, SafetensorError, StrictDataclassError, TypeError, ValueError),
)
GENERATION = "generation_config.json"
UNHEARD_OF = "\U0010fffd"  # a character that no vocabulary holds, as some word of a prompt may be
MOST_SAID = 500  # characters of a library's own message


class Refusals:
    """Around a call of the library: what it raises for bad files becomes a PolicyError.

    Only the types in UNLOADABLE, and bare `Exception`, which is all that the library tokenizers ever raises.

    Args:
        begin: of the message, up to what the library said.
        remedy: ends the message; "" where what is raised has one.
    """

    def __init__(self, begin: str, remedy: str = "") -> None:
        self.begin, self.remedy = begin, remedy

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> Literal[False]:
        """Raises PolicyError from what the library raised."""
        known = isinstance(error, UNLOADABLE) or kind is Exception
        if error is not None and known and not isinstance(error, UserError):
            raise PolicyError(f"{self.begin}: {said(error)}.{self.remedy and f' {self.remedy}.'}") from error
        return False


def said(error: BaseException) -> str:
    """What a library said, in one line and without the stop at its end; with the error's type where that tells more."""
    named = isinstance(error, (AssertionError, AttributeError, IndexError, KeyError, MemoryError, TypeError))
    text = " ".join((f"{type(error).__name__}: {error}" if named else str(error)).split()).rstrip(". ")
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]}…"


def read_tokenizer(directory: Path, *, key: str, name: str, code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory, whose model may be run. Raises PolicyError as `read` does."""
    begin = f"{key}.model: {name} cannot be loaded"
    checks.require_files(directory, key)
    with Refusals(begin):
        checks.require_json(directory)
        if not code:
            refuse_code(directory, key)
        checks.require_settings(directory)
    with Refusals(begin, f"Check its {CONFIG}. {ANEW} if it is damaged"):
        AutoConfig.from_pretrained(directory, trust_remote_code=code)
    with Refusals(begin, f"Check its tokenizer.json and tokenizer_config.json. {ANEW} if they are damaged"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, trust_remote_code=code)
        _require_use(tokenizer)
    return tokenizer


def _require_use(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises ValueError, or what the library does, for a tokenizer that reads no text."""
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, (int, float)) or longest < 1:
        raise ValueError(f"its tokenizer_config.json has model_max_length {longest!r}. Write a number of 1 or more")
    if tokenizer.vocab_size < 1:
        raise ValueError("its tokenizer.json has no tokens but added ones")
    for name, token in tokenizer.special_tokens_map.items():
        if str(token) == "" and "" not in tokenizer.get_vocab():
            raise ValueError(f"its tokenizer_config.json has {name} '', which is no token. Write the token, or null")
    for text in ("a", UNHEARD_OF):
        tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]


def without_weights(directory: Path, *, code: bool) -> PreTrainedModel:
    """The model that a directory's config describes, on the meta device: no weights are read and none take memory."""
    model = skeleton(AutoConfig.from_pretrained(directory, trust_remote_code=code), code=code)
    if (directory / GENERATION).is_file():
        model.generation_config = GenerationConfig.from_pretrained(directory)
    return model


def skeleton(config: PreTrainedConfig, kind: Any = AutoModelForCausalLM, *, code: bool = False) -> PreTrainedModel:
    """The model of a config on the meta device; `kind` is an Auto class or the model's own."""
    with torch.device("meta"):
        model: PreTrainedModel = (
            kind.from_config(config, trust_remote_code=code) if hasattr(kind, "from_config") else kind(config)
        )
    return model


def require_embedded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, key: str) -> None:
    """Raises PolicyError for a tokenizer with more tokens than the model embeds."""
    rows, tokens = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    if tokens > rows:
        raise PolicyError(
            f"{key}.model: the tokenizer has {tokens} tokens, the model's embedding only {rows}. "
            "Use the tokenizer that belongs to the model, or resize the embedding and save it."
        )


def _weights(directory: Path, key: str, begin: str) -> list[str]:
    try:
        return weight_names(directory, key)
    except PolicyError as error:
        raise PolicyError(f"{begin}: {str(error).removeprefix(f'{key}.model: ')}") from error


def read(
    directory: Path, kind: Any, *, key: str, name: str, code: bool, dtype: torch.dtype, remedy: str
) -> PreTrainedModel:
    """The model of a directory with all its weights.

    Args:
        directory: that holds it.
        kind: class with the `from_pretrained` to use, such as AutoModelForCausalLM.
        key: its section of the config, for messages.
        name: as the config has it, for messages.
        code: whether code that it brings may run.
        dtype: of the weights.
        remedy: ends the message about missing weights.

    Raises:
        PolicyError: files that do not make up a whole model or hold more than it takes, or quantised weights.
    """
    begin = f"{key}.model: {name} cannot be loaded"
    held = {}
    for file in _weights(directory, key, begin):
        with Refusals(f"{begin}: its {file} is damaged", ANEW):
            held[file] = whole.require_numbers(directory / file)
    whole.require_one_place(directory, held, begin)
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": code, "use_safetensors": True}
    if (directory / GENERATION).is_file():
        with Refusals(begin, f"Check its {GENERATION}, or remove it"):
            GenerationConfig.from_pretrained(directory)
    with Refusals(begin, f"Check its {CONFIG} and, if it has one, {INDEX}. {ANEW} if they are damaged"):
        model, report = kind.from_pretrained(
            directory, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    whole.require_whole(model, report, key=key, name=name, begin=begin, remedy=remedy)
    for settings in (model.config, model.config.get_text_config()):  # nothing here reads them, and no save takes them
        settings.output_attentions = settings.output_hidden_states = False
    loaded: PreTrainedModel = model
    return loaded
