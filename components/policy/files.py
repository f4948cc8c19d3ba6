"""The files that a policy consists of: found or downloaded, checked, and copied without what does not belong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from components.config import strict_json
from components.config.errors import PolicyError
from components.config.sections import PolicyConfig
from components.policy import checks, findings, weight_files
from components.policy.sources import locate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER = "adapter"  # folder of what LoRA adds to the weights; see `components.policy.lora`


def fetch(config: PolicyConfig, key: str = "policy") -> Path:
    """Directory of the configured model, downloaded first if it is a hub id; `key` is its section, for messages.

    Raises PolicyError when it is not available, or holds an adapter, no config, no safetensors weights or two sets,
    or a file that is not inside it.
    """
    directory = locate(config, key)
    if directory.is_file():
        raise PolicyError(
            f"{key}.model: {directory} is a GGUF file, and only policy.model may be one. Name a Hugging Face directory."
        )
    if not directory.is_dir():
        directory = _download(config, key)
    refuse_adapter(directory, key)
    checks.require_files(directory, key)
    if not (directory / weight_files.CONFIG).is_file():
        raise PolicyError(
            f"{key}.model: {config.model} has no config.json. Save the model with `save_pretrained`, which writes one."
        )
    weight_files.of(directory, key=key)
    return directory


def refuse_adapter(directory: Path, key: str = "policy") -> None:
    """Raises PolicyError for a directory with an adapter, which the library would load unasked."""
    if (directory / "adapter_config.json").is_file():
        raise PolicyError(
            f"{key}.model: {directory} holds an adapter. Merge it into its model (in peft, `merge_and_unload`), "
            "and save the whole."
        )


def _download(config: PolicyConfig, key: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError

    code = weight_files.CODE if config.trust_remote_code else ()
    patterns = [*weight_files.OTHERS, *code, weight_files.WEIGHTS, weight_files.INDEX]
    assert config.model is not None
    try:
        directory = Path(snapshot_download(config.model, revision=config.revision, allow_patterns=patterns))
        if not (directory / weight_files.INDEX).is_file():
            return directory
        names = weight_files.listed(directory / weight_files.INDEX, key)  # whatever they are called
        return Path(snapshot_download(config.model, revision=directory.name, allow_patterns=[*patterns, *names]))
    except (HFValidationError, HTTPError, OSError) as error:  # a bad name; no way to the hub; its refusal
        raise PolicyError(
            f"{key}.model: {config.model!r} is neither a directory here nor a model that the hub gave "
            f"({str(error).splitlines()[0]}). Check the path or id, {key}.revision, the network and, for a "
            "gated model, HF_TOKEN."
        ) from error


def copy_files(source: Path, target: Path, *, weights: bool = True, code: bool = False, stored: bool = False) -> Path:
    """Copies the files that make up a policy; without `weights` only config, tokenizer and template.

    `stored` and errors as in `model_files.of`.
    """
    for file in weight_files.of(source, weights=weights, code=code, stored=stored):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return target


def save_model(model: PreTrainedModel, source: Path, target: Path) -> Path:
    """Writes a policy directory with the model's weights and everything else from `source`, a policy of the store."""
    copy_files(source, target, weights=False, code=True, stored=True)
    for stale in [*target.glob("*.safetensors"), *target.glob(weight_files.INDEX)]:  # a loader might take them
        stale.unlink()
    model.save_pretrained(target)
    for name in ("generation_config.json", findings.FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    return target


def require_format(tokenizer: PreTrainedTokenizerBase, config: PolicyConfig) -> None:
    """Raises PolicyError if neither the tokenizer nor the config says how a prompt is written."""
    if not tokenizer.chat_template and config.prompt_format is None:
        raise PolicyError(
            "policy.prompt_format: is required, the tokenizer has no chat template. For example '{prompt}\\n'."
        )


def refuse_code(directory: Path, key: str = "policy") -> None:
    """Raises ValueError if the model brings code of its own, which nobody has allowed."""
    for name in ("config.json", "tokenizer_config.json"):
        file = directory / name
        if file.is_file() and "auto_map" in strict_json.read_object(file):
            raise ValueError(
                f"its {name} names code of its own (auto_map). Read that code and set "
                f"{key}.trust_remote_code: true, or remove auto_map to use the class that transformers has"
            )
