"""The import of transformers, by far the most of a short task's start-up."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import import_module
from unittest.mock import patch

USED = ("modeling_utils", "generation.utils")
UNUSED = ("is_sklearn_available", "is_scipy_available")


def load() -> None:
    """Imports transformers, without scikit-learn and SciPy where those happen to be installed.

    A fifth of the import goes to them, for what nothing here does: assisted decoding and losses of object detection.
    A module that is imported already stays as it is.
    """
    from transformers import utils

    with ExitStack() as hidden:
        for name in UNUSED:
            hidden.enter_context(patch.object(utils, name, lambda: False, create=True))
        for name in USED:
            import_module(f"transformers.{name}")
