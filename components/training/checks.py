"""Whether training can follow its settings, asked before work starts."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from components.config.errors import ConfigError
from components.config.sections import TrainingConfig
from components.training import shares

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check(settings: TrainingConfig, model: PreTrainedModel | None = None) -> None:
    """Raises ConfigError or PolicyError for settings that cannot be followed here, or not with the model if given."""
    if settings.optimizer == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "training.optimizer: adamw_8bit needs bitsandbytes, which is not installed. "
            "Run pip install bitsandbytes, or use adamw."
        )
    if model is not None and settings.lora is not None:
        from components.policy import lora

        lora.check(model, settings.lora)
    if model is not None:
        _check_layers(settings, model)
    if model is not None and settings.optimizer == "adamw_8bit":
        shares.require_whole_blocks(_trained(model, settings), shares.shares(settings))


def _check_layers(settings: TrainingConfig, model: PreTrainedModel) -> None:
    """Raises PolicyError for a model whose layers are needed one by one and not known."""
    from components.training.gradient_checkpointing import layers

    if settings.gradient_checkpointing:
        layers(model)
    if several := [name for name in ("processes", "nodes") if getattr(settings, name) > 1]:
        layers(model, several[0], f"Train in one process: {' and '.join(f'training.{name}: 1' for name in several)}")


def _trained(model: PreTrainedModel, settings: TrainingConfig) -> Iterator[tuple[str, Sequence[int]]]:
    """Names and shapes of the weights that will be trained, without embeddings."""
    from torch.nn import Embedding

    if settings.lora is not None:
        from components.policy import lora

        yield from lora.shapes(model, settings.lora)
        return
    embeddings = {module.weight for module in model.modules() if isinstance(module, Embedding)}
    yield from ((name, weight.shape) for name, weight in model.named_parameters() if weight not in embeddings)
