"""Gradient checkpointing: a layer keeps only its inputs, and backward computes what else it needs again.

Chen et al., arXiv 1604.06174. The switch that transformers has asks for layers in training mode, in which some drop
units out, and takes the cache from them, which responses drawn while training need. So the forward of each layer is
wrapped here, whatever its mode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from components.config.errors import PolicyError
from components.policy.library import GradientCheckpointingLayer, PreTrainedModel
from components.policy.model import Policy


def checkpointed(policy: Policy) -> Policy:
    """The policy, its model changed in place. Raises PolicyError as `layers` does."""
    for layer in layers(policy.model):
        layer.forward = partial(_forward, layer.forward)
    return replace(policy, gradient_checkpointing=True)


def layers(
    model: PreTrainedModel, asks: str = "gradient_checkpointing", remedy: str = "Set it to false"
) -> list[GradientCheckpointingLayer]:
    """The layers that are computed again, or gathered one at a time where processes share the weights.

    Raises PolicyError for a model that does not say which they are, with the setting of `training` that asks for them.
    """
    found = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not found:
        raise PolicyError(
            f"training.{asks}: {type(model).__name__} has no GradientCheckpointingLayer, as the models that come with "
            f"transformers have. {remedy}."
        )
    return found


def _forward(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
