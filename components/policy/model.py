"""A policy: any Hugging Face causal LM directory, with its tokenizer, chat template and stop tokens."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.data import texts
from components.data.records import Prompt, TokenIds
from components.policy import attention, findings, lora, pretrained, vocabulary
from components.policy.chat import Chat
from components.policy.files import (
    ADAPTER,
    copy_files,
    fetch,
    require_format,
    save_model,
)
from components.policy.findings import Caching
from components.policy.library import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

__all__ = ["Policy", "best_device", "check_lengths", "copy_files", "fetch", "load", "save"]

END = 32  # tokens that are enough to see with what mark a template lets a response begin

logging.disable_progress_bar()  # a bar of its own for every load and save drowns the run's progress


@dataclass(frozen=True)
class Policy:
    """A loaded model and what is needed to talk to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    pad_id: int
    precision: str  # "fp32" or "bf16"; weights that are trained are fp32 in both
    prompt_format: str | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)  # for the chat template
    temperature: float = 1.0  # of the distribution that all log-probs are of, the one that responses are drawn from
    folder: Path | None = None  # where it was loaded from
    gradient_checkpointing: bool = False  # layers are computed again in the backward pass, so none may fill a cache
    caching: Caching = "shared"  # what the architecture's cache is good for; see `components.generation._caching`
    unused: torch.Tensor | None = None  # (V,) bool, ids of the model that the tokenizer has no token for; None: none
    shown: tuple[int, ...] = ()  # special tokens that texts of responses show all the same
    sharded: torch.nn.Module | None = None  # gives a batch's log-probs where each process has a share of the weights

    @property
    def shares_prompts(self) -> bool:
        """Whether training may read a prompt once for all its responses."""
        return self.caching == "shared" and not self.gradient_checkpointing and self.sharded is None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return torch.device(self.model.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """The numerical path of every forward pass: log-probs are comparable only along one path."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def body(self) -> PreTrainedModel:
        """The model without its head."""
        base: PreTrainedModel = self.model.base_model
        # Llama 4's text model calls its body by another name than the one that the library looks for.
        return base if base is not self.model else getattr(base, "model", base)

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt up to where the response begins, special tokens included once.

        A chat template's text already holds BOS. What a user wrote holds no control tokens, whatever it says.

        Raises PolicyError for a prompt that the template refuses or leaves something out of, and for several messages
        without a template.
        """
        if self.tokenizer.chat_template:
            return self.chat.encode(prompt)
        if self.prompt_format is None:
            raise PolicyError(
                "the tokenizer has no chat template. Set policy.prompt_format, for example '{prompt}\\n'."
            )
        if len(prompt.messages) > 1:
            raise PolicyError(
                f"prompt {prompt.id!r}: {len(prompt.messages)} messages need a chat template, and the "
                "tokenizer has none. Use a model with one, or prompts of a single message."
            )
        return self._after_bos(self.chat.plain(self.prompt_format, prompt.text, prompt))

    @cached_property
    def chat(self) -> Chat:
        """The way from turns to token ids."""
        return Chat(self.tokenizer, self.template_options, self.eos_ids)

    def _after_bos(self, ids: list[int]) -> list[int]:
        """Ids after what the tokenizer puts before a text (BOS), without what it would put behind it (EOS)."""
        inner = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        whole = list(self.tokenizer("a")["input_ids"])
        before = whole[: next(i for i in range(len(whole) + 1) if whole[i : i + len(inner)] == inner)]
        return ids if ids[: len(before)] == before else before + ids  # the text may begin with BOS itself

    def end(self, prompt: TokenIds) -> str:
        """How the text of a prompt's tokens ends, special tokens and what the template wrote included."""
        text: str = self.tokenizer.decode(prompt[-END:], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def decode(self, rows: Sequence[TokenIds]) -> list[str]:
        """Texts of responses, the EOS that ends one and special tokens but the `shown` removed; else unchanged."""
        ended = [row[:-1] if len(row) and int(row[-1]) in self.eos_ids else row for row in rows]
        return texts.decode(self.tokenizer, ended, self.shown)


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def automatic_precision(device: torch.device) -> str:
    """bf16 on GPUs that have it, else fp32."""
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def load(
    directory: Path,
    config: PolicyConfig,
    *,
    precision: str = "fp32",
    device: torch.device | None = None,
    frozen: bool = False,
    temperature: float = 1.0,
    marks: Collection[str] = (),
) -> Policy:
    """Loads a policy directory with fp32 weights; on the meta device it has none, for engines that read the files.

    `frozen` weights, beside which at most an adapter is trained, are bf16 if `precision` is. Log-probs are those at
    `temperature`, and comparable only among policies that are loaded alike. `precision` may be "auto" too.
    Texts of responses show special tokens that `marks` are made of.

    Raises PolicyError for files that do not make up a whole model, for code that nobody allowed, and when the
    tokenizer, EOS or a way to format prompts is missing.
    """
    name = config.model or str(directory)
    precision = automatic_precision(device or best_device()) if precision == "auto" else precision
    dtype = torch.bfloat16 if frozen and precision == "bf16" else torch.float32
    tokenizer = pretrained.read_tokenizer(directory, key="policy", name=name, code=config.trust_remote_code)
    without = device is not None and device.type == "meta"
    model = _read_model(directory, name, config.trust_remote_code, None if without else dtype)
    model.to(device or best_device()).eval()
    if precision == "bf16" and model.device.type == "cpu":
        attention.use_precise(model)
    eos_ids = vocabulary.eos_ids(model, tokenizer, config.template_options)
    require_format(tokenizer, config)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_ids[0]
    # Published defaults of sampling have no say here, and `save_pretrained` refuses contradictory ones.
    model.generation_config = GenerationConfig(eos_token_id=list(eos_ids), pad_token_id=pad_id)
    return Policy(
        *(model, tokenizer, eos_ids, pad_id, precision),
        prompt_format=config.prompt_format,
        template_options=config.template_options,
        temperature=temperature,
        folder=directory,
        caching=findings.read(directory).caching,
        unused=vocabulary.unused(model, tokenizer, eos_ids),
        shown=texts.shown_tokens(tokenizer, marks),
    )


def _read_model(directory: Path, name: str, code: bool, dtype: torch.dtype | None) -> PreTrainedModel:
    """The model with its adapter if it has one, its weights in a dtype; None: without weights."""
    if dtype is None:
        return pretrained.without_weights(directory, code=code)
    remedy = "Save the whole causal language model with `save_pretrained`."
    options: dict[str, Any] = {"key": "policy", "name": name, "code": code, "dtype": dtype, "remedy": remedy}
    model = pretrained.read(directory, AutoModelForCausalLM, **options)
    if (directory / ADAPTER).is_dir():
        lora.load(model, directory / ADAPTER)
    return model


def save(policy: Policy, directory: Path) -> Path:
    """Writes the policy as a Hugging Face directory; only weights differ from the files it was loaded from."""
    assert policy.folder is not None
    return save_model(policy.model, policy.folder, directory)


def check_lengths(policy: Policy, prompts: Sequence[Prompt], *, max_prompt_tokens: int, max_new_tokens: int) -> None:
    """Encodes every prompt once.

    Raises PolicyError for a prompt that is empty or too long to be answered, and for a tokenizer with more tokens
    than the model embeds.
    """
    pretrained.require_embedded(policy.model, policy.tokenizer, "policy")
    lengths = [len(policy.encode(prompt)) for prompt in prompts]
    if 0 in lengths:
        raise PolicyError(
            f"prompt {prompts[lengths.index(0)].id!r} has no tokens, so nothing predicts a first one. "
            "Remove it, or put a word into policy.prompt_format."
        )
    longest = max(range(len(prompts)), key=lengths.__getitem__)
    over = sum(length > max_prompt_tokens for length in lengths)
    if over:
        raise PolicyError(
            f"policy.max_prompt_tokens: {over} of {len(prompts)} prompts are longer than {max_prompt_tokens} "
            f"tokens; the longest, {prompts[longest].id!r}, has {lengths[longest]}. "
            "Raise the limit or remove these prompts."
        )
    limit = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    if limit is not None and lengths[longest] + max_new_tokens > limit:
        room = limit - lengths[longest]
        raise PolicyError(
            f"generation.max_new_tokens: {max_new_tokens} tokens after the longest prompt "
            f"({prompts[longest].id!r}, {lengths[longest]} tokens) exceed the model's {limit} positions. "
            + (f"Use {room} or fewer." if room > 0 else "Remove prompts that long.")
        )
