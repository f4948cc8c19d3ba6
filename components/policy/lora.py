"""LoRA (Hu et al., arXiv 2106.09685), with peft's layers: the base is frozen, and small matrices beside it are trained.

The files of a policy are then those of its base and, in the folder `adapter`, an adapter in peft's own format.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import Linear, Module, Parameter
from transformers.pytorch_utils import Conv1D

from components.config import strict_json
from components.config.errors import ConfigError, PolicyError
from components.config.sections import LoraConfig
from components.data.seeds import derive_seed
from components.policy.files import ADAPTER, save_model
from components.policy.library import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from components.policy.pretrained import Refusals

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
NAME, PREFIX = "default", "base_model.model."  # peft's, of the adapter in a model and of its weights in a file

FUSED = ("out_proj", "x_proj", "dt_proj")  # within Mamba's layers

logger = logging.getLogger(__name__)


def check(model: PreTrainedModel, settings: LoraConfig) -> None:
    """Raises ConfigError for a target that is none of the model's linear layers; its head is not one of them.

    Where all are meant, a line of the log says which matrices are no such layers, as the experts of a mixture are not.
    """
    names = _linear(model)
    if not names:
        raise ConfigError(f"training.lora: {type(model).__name__} has no linear layer that takes one. Leave it out.")
    if settings.target_modules == "all-linear":
        if left_out := _left_out(model):
            count, total = sum(left_out.values()), sum(parameter.numel() for parameter in model.parameters())
            logger.warning(
                "training.lora: %s of %s weights are in no linear layer that takes an adapter and stay as they are: %s",
                *(f"{count:,}", f"{total:,}", ", ".join(left_out)),
            )
        return
    for target in settings.target_modules:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            known = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
            raise ConfigError(
                f"training.lora.target_modules: {target!r} is no linear layer of {type(model).__name__}. "
                f"Choose from {known}, or write all-linear."
            )


def _linear(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that an adapter has an effect on, without the head.

    Not those that return something else, as Llama 4's routers. Fused kernels of Mamba's layers read the weights of
    their inner ones and would pass an adapter by.
    """
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if module is not head and _is_linear(module)]
    return [
        name
        for name in names
        if name.rpartition(".")[2] not in FUSED
        or "Mamba" not in type(model.get_submodule(name.rpartition(".")[0])).__name__
    ]


@torch.no_grad()
def _is_linear(module: Module) -> bool:
    if not isinstance(module, (Linear, Conv1D)) or type(module).forward in (Linear.forward, Conv1D.forward):
        return isinstance(module, (Linear, Conv1D))
    weight = module.weight
    try:
        output = module(weight.new_zeros(1, weight.shape[1]))
    except (IndexError, RuntimeError, TypeError, ValueError):
        return False
    return isinstance(output, torch.Tensor) and output.shape == (1, weight.shape[0])


def _left_out(model: PreTrainedModel) -> dict[str, int]:
    """Numbers of weights in matrices beside linear layers, embeddings and head, by their names within a layer."""
    head = model.get_output_embeddings()
    embeddings = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Embedding) or m is head}
    known = embeddings | set(_linear(model))
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and name.rpartition(".")[0] not in known:
            within = re.sub(r"^.*\.\d+\.", "", name)
            found[within] = found.get(within, 0) + parameter.numel()
    return found


def add(model: PreTrainedModel, settings: LoraConfig, seed: int) -> None:
    """Freezes the model and gives it a new adapter, which changes nothing yet: one of each two matrices is zero."""
    from peft import LoraConfig as PeftConfig

    targets = settings.target_modules
    config = PeftConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        target_modules=_linear(model) if isinstance(targets, str) else list(targets),
        lora_dropout=0.0,  # with it, the ratio to pi_t would not start at 1
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    _inject(model, config, derive_seed(seed, "adapter"))


def shapes(model: PreTrainedModel, settings: LoraConfig) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and shapes of the matrices that `add` would give the model."""
    targets = settings.target_modules
    for name in _linear(model):
        if targets == "all-linear" or any(f".{name}".endswith(f".{target}") for target in targets):
            layer = model.get_submodule(name)
            inputs, outputs = layer.weight.shape if isinstance(layer, Conv1D) else reversed(layer.weight.shape)
            yield f"{name}.lora_A", (settings.rank, inputs)
            yield f"{name}.lora_B", (outputs, settings.rank)


def load(model: PreTrainedModel, folder: Path) -> None:
    """Freezes the model and gives it the adapter in a folder.

    Raises PolicyError for files that cannot be read or are another model's, KeyError for a missing weight.
    """
    from peft import PeftConfig

    begin = f"policy.model: its adapter in {folder} cannot be loaded"
    with Refusals(begin, f"Check its {CONFIG} and {WEIGHTS}. Copy the adapter anew if they are damaged"):
        strict_json.read_object(folder / CONFIG)
        config, found = PeftConfig.from_pretrained(str(folder)), load_file(folder / WEIGHTS)
        _inject(model, config, 0)
    with torch.no_grad():
        for name, parameter in weights(model).items():
            stored = found[_key(name)]
            if stored.shape != parameter.shape:
                raise PolicyError(
                    f"{begin}: its {_key(name)} is of shape {list(stored.shape)}, and the model takes "
                    f"{list(parameter.shape)}. Use the adapter that belongs to the model."
                )
            parameter.copy_(stored)


def save(model: PreTrainedModel, directory: Path) -> Path:
    """Writes the model's adapter, and nothing of its base, into the folder `adapter` of a directory."""
    folder = directory / ADAPTER
    folder.mkdir(parents=True)
    config = model.peft_config[NAME]
    # What an equal adapter writes is equal: sets have no order, and the base lay in a folder that is gone.
    values = {
        **config.to_dict(),
        "target_modules": sorted(config.target_modules),
        "base_model_name_or_path": None,
    }
    (folder / CONFIG).write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
    save_file({_key(n): p.detach().cpu().contiguous() for n, p in weights(model).items()}, folder / WEIGHTS)
    return directory


def weights(model: PreTrainedModel) -> dict[str, Parameter]:
    """The adapter's weights by name; none without an adapter."""
    return {name: p for name, p in model.named_parameters() if f".{NAME}." in name and ".lora_" in name}


def merge(source: Path, target: Path, dtype: str = "auto") -> Path:
    """Writes a policy whose weights are those of `source`, base and adapter added up; "auto": in the base's dtype."""
    model = _whole(source, "float32" if dtype == "float32" else "auto")
    config = strict_json.read_object(source / ADAPTER / CONFIG)
    found = load_file(source / ADAPTER / WEIGHTS)
    with torch.no_grad():
        for key in [key for key in found if key.endswith(".lora_A.weight")]:
            name = key.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            change = found[key.replace(".lora_A.", ".lora_B.")] @ found[key] * (config["lora_alpha"] / config["r"])
            layer = model.get_submodule(name)
            change = change.T if isinstance(layer, Conv1D) else change
            layer.weight.copy_(layer.weight.float() + change)
    if dtype not in ("auto", str(model.dtype).removeprefix("torch.")):
        model.to(getattr(torch, dtype))
    return _written(model, source, target)


def convert(source: Path, target: Path, dtype: str) -> Path:
    """Writes the policy `source` with weights of another type, but for those that its architecture keeps in fp32."""
    return _written(_whole(source, dtype), source, target)


def _whole(source: Path, dtype: str) -> PreTrainedModel:
    code = any(source.glob("*.py"))  # `start` keeps such files only where the config allows them
    with Refusals(f"{source} cannot be loaded", "Export from a store whose files are whole"):
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, use_safetensors=True, trust_remote_code=code
        )
    return model


def _written(model: PreTrainedModel, source: Path, target: Path) -> Path:
    if (source / "generation_config.json").is_file():  # it is copied; `save_pretrained` refuses contradictory ones
        model.generation_config = GenerationConfig()
    return save_model(model, source, target)


class _Shell(Module):
    """Hides from peft which architecture it is: of some mixtures it would adapt experts in place of what is named."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model


def _inject(model: PreTrainedModel, config: Any, seed: int) -> None:
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, _Shell(model), NAME)
    model.requires_grad_(False)
    for parameter in weights(model).values():
        parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))  # the base may be bf16
        parameter.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False  # autocast does it, and keeps no copy for each matrix
    model.peft_config = {NAME: config}
    model.eval()


def _key(name: str) -> str:
    return PREFIX + name.replace(f".{NAME}.", ".")
