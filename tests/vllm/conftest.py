"""A start of vLLM that need not import it."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator

import pytest

from components.generation import _vllm_process
from support.forked import forking

# What a worker imports for a small Llama on a CPU: three quarters of the time that it takes to start.
MODULES = ("vllm", "vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker", "vllm.model_executor.models.llama")


@pytest.fixture(scope="module")
def warm() -> Iterator[None]:
    """Workers begin as copies of this process, which has imported vLLM; other files start them as a run does."""
    environment = dict(os.environ)
    os.environ["VLLM_CONFIGURE_LOGGING"] = "0"  # its log would go to what is the standard output now
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in MODULES:
            importlib.import_module(name)
    os.environ.clear()
    os.environ.update(environment)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_vllm_process, "subprocess", forking)
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # threads of OpenMP do not live on in a copy
        yield
