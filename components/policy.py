"""A policy: any Hugging Face causal LM directory, with its tokenizer, chat template and stop tokens."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from components.config import PolicyConfig
from components.errors import PolicyError
from components.records import Prompt, TokenIds

logging.disable_progress_bar()  # a bar of its own for every load and save drowns the run's progress

# All that a policy consists of; optimiser states and training logs of other tools stay behind.
POLICY_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "*.model")
CODE_FILES = ("*.py",)


@dataclass(frozen=True)
class Policy:
    """A loaded model and what is needed to talk to it."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    pad_id: int
    precision: str  # "fp32" or "bf16"; master weights are fp32 in both
    prompt_format: str | None = None
    folder: Path | None = None  # where it was loaded from

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return torch.device(self.model.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """The numerical path of every forward pass: log-probs are comparable only along one path."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt up to where the response begins, special tokens included once.

        The chat template is applied once and straight to ids: its text already holds BOS.
        """
        if self.tokenizer.chat_template:
            return list(
                self.tokenizer.apply_chat_template(
                    list(prompt.messages), add_generation_prompt=True, tokenize=True, return_dict=False
                )
            )
        if self.prompt_format is None:
            raise PolicyError(
                "the tokenizer has no chat template. Set policy.prompt_format, for example '{prompt}\\n'."
            )
        if len(prompt.messages) > 1:
            raise PolicyError(
                f"prompt {prompt.id!r}: {len(prompt.messages)} messages need a chat template, and the "
                "tokenizer has none. Use a model with one, or prompts of a single message."
            )
        return list(self.tokenizer(self.prompt_format.replace("{prompt}", prompt.text))["input_ids"])

    def decode(self, rows: Sequence[TokenIds]) -> list[str]:
        """Texts of responses, special tokens removed."""
        return list(self.tokenizer.batch_decode(rows, skip_special_tokens=True))


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fetch(config: PolicyConfig) -> Path:
    """Directory of the configured model, downloaded first if it is a hub id.

    Raises PolicyError when it holds no safetensors weights or no config.
    """
    assert config.model is not None
    directory = Path(config.model)
    patterns = POLICY_FILES + (CODE_FILES if config.trust_remote_code else ())
    if not directory.is_dir():
        directory = _download(config.model, config.revision, patterns)
    for pattern, what in (("config.json", "config.json"), ("*.safetensors", "safetensors weights")):
        if not any(directory.glob(pattern)):
            raise PolicyError(
                f"policy.model: {config.model} has no {what}. Save the model with `save_pretrained`, "
                "which writes both; pickled weights (.bin) are not loaded."
            )
    return directory


def _download(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError) as error:
        raise PolicyError(
            f"policy.model: {name!r} is neither a directory here nor a model that the hub gave. "
            "Check the path or id, the network and, for a gated model, HF_TOKEN."
        ) from error


def copy_files(source: Path, target: Path, *, weights: bool = True, code: bool = False) -> Path:
    """Copies the files that make up a policy; without `weights` only config, tokenizer and template."""
    target.mkdir(parents=True, exist_ok=True)
    patterns = POLICY_FILES + (CODE_FILES if code else ())
    for file in sorted({f for pattern in patterns for f in source.glob(pattern) if f.is_file()}):
        if weights or ".safetensors" not in file.name:
            shutil.copyfile(file, target / file.name)
    return target


def load(
    directory: Path, config: PolicyConfig, *, precision: str = "fp32", device: torch.device | None = None
) -> Policy:
    """Loads a policy directory with fp32 weights.

    Raises PolicyError when the tokenizer, EOS or a way to format prompts is missing.
    """
    options = {"trust_remote_code": config.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, **options)
        model = AutoModelForCausalLM.from_pretrained(directory, use_safetensors=True, dtype=torch.float32, **options)
    except (OSError, ValueError) as error:
        raise PolicyError(f"policy.model: {config.model or directory} cannot be loaded: {error}") from error
    model.to(device or best_device()).eval()
    eos_ids = _eos_ids(model, tokenizer)
    if not tokenizer.chat_template and config.prompt_format is None:
        raise PolicyError(
            "policy.prompt_format: is required, the tokenizer has no chat template. For example '{prompt}\\n'."
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_ids[0]
    return Policy(model, tokenizer, eos_ids, pad_id, precision, config.prompt_format, directory)


def _eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokens that end a response; chat models often list several in their generation config."""
    listed = getattr(model.generation_config, "eos_token_id", None)
    found = set(listed if isinstance(listed, list) else [listed]) | {tokenizer.eos_token_id}
    eos_ids = tuple(sorted(i for i in found if i is not None))
    if not eos_ids:
        raise PolicyError(
            "the model names no EOS token, so no response could end. "
            "Set eos_token_id in generation_config.json or eos_token in tokenizer_config.json."
        )
    return eos_ids


def save(policy: Policy, directory: Path) -> Path:
    """Writes the policy as a Hugging Face directory; tokenizer and template are the ones it was loaded with."""
    assert policy.folder is not None
    copy_files(policy.folder, directory, weights=False, code=True)
    policy.model.save_pretrained(directory)
    return directory


def check_lengths(policy: Policy, prompts: Sequence[Prompt], *, max_prompt_tokens: int, max_new_tokens: int) -> None:
    """Encodes every prompt once. Raises PolicyError for one that is too long to be answered."""
    lengths = [len(policy.encode(prompt)) for prompt in prompts]
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
        raise PolicyError(
            f"generation.max_new_tokens: {max_new_tokens} tokens after the longest prompt "
            f"({prompts[longest].id!r}, {lengths[longest]} tokens) exceed the model's {limit} positions. "
            f"Use {limit - lengths[longest]} or fewer."
        )
    vocabulary, rows = len(policy.tokenizer), policy.model.get_input_embeddings().weight.shape[0]
    if vocabulary > rows:
        raise PolicyError(
            f"the tokenizer has {vocabulary} tokens, the model's embedding only {rows}. "
            "Use the tokenizer that belongs to the model, or resize the embedding and save it."
        )


def pick_precision(policy: Policy, setting: str) -> str:
    """Resolves policy.precision to "fp32" or "bf16". `start` does it once, so that all steps agree."""
    if setting == "auto":
        return "bf16" if policy.device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if setting == "probe":
        return _faster_precision(policy)
    return setting


def _faster_precision(policy: Policy) -> str:
    """Times a forward and backward pass in both precisions.

    Which one wins depends on the processor (bf16 pays on CPUs with AMX and costs without), not on a flag.
    """
    import time
    from dataclasses import replace

    ids = torch.arange(2048, device=policy.device).remainder(policy.tokenizer.vocab_size).reshape(16, 128)
    seconds = {}
    for precision in ("fp32", "bf16"):
        for _ in range(3):  # the last one counts, the first ones warm up
            begin = time.perf_counter()
            with replace(policy, precision=precision).autocast():
                hidden = policy.model.base_model(input_ids=ids).last_hidden_state
            hidden.float().square().mean().backward()
            policy.model.zero_grad(set_to_none=True)
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[precision] = time.perf_counter() - begin
    return min(seconds, key=seconds.__getitem__)
