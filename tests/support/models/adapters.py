"""LoRA in tests: its settings, and a model whose adapter has been trained."""

from __future__ import annotations

import torch

from components.config.sections import LoraConfig
from components.policy import lora

LORA = LoraConfig(rank=3, alpha=12)


def disturb(model, seed=0):
    """As training would: the second matrices of the adapter leave zero."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in lora.weights(model).items():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=noise) * 0.3)
