"""transformers as this project imports it: without scikit-learn and SciPy where those happen to be installed.

Half of the import would go to them, for what nothing here does: assisted decoding and losses of object detection.
Modules that need more of transformers than its files and caches import it from here.
"""

from __future__ import annotations

import gc
from contextlib import ExitStack
from unittest.mock import patch

from transformers import utils

UNUSED = ("is_sklearn_available", "is_scipy_available")

collected = gc.isenabled()
gc.disable()  # an import frees nothing, and looking for what it might free takes some 7 % of it
try:
    with ExitStack() as hidden:
        for name in UNUSED:
            hidden.enter_context(patch.object(utils, name, lambda: False, create=True))
        from transformers import (
            AttentionInterface,
            AttentionMaskInterface,
            AutoConfig,
            AutoModel,
            AutoModelForCausalLM,
            AutoModelForSequenceClassification,
            AutoTokenizer,
            GenerationConfig,
            PreTrainedConfig,
            PreTrainedModel,
            PreTrainedTokenizerBase,
            PreTrainedTokenizerFast,
        )
        from transformers.modeling_layers import GradientCheckpointingLayer
finally:
    if collected:
        gc.enable()

__all__ = [
    "AttentionInterface",
    "AttentionMaskInterface",
    "AutoConfig",
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSequenceClassification",
    "AutoTokenizer",
    "GenerationConfig",
    "GradientCheckpointingLayer",
    "PreTrainedConfig",
    "PreTrainedModel",
    "PreTrainedTokenizerBase",
    "PreTrainedTokenizerFast",
]
