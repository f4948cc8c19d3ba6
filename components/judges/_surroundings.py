"""What a user's function may change of the process that calls it, put back when it is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from typing import Any, NamedTuple

import numpy as np


class _Setting(NamedTuple):
    """One setting of PyTorch that holds for the whole process or thread."""

    get: Callable[[], Any]
    put: Callable[[Any], Any]


@contextmanager
def unchanged() -> Iterator[None]:
    """Puts the working directory back, numpy's handling of float errors, and PyTorch's settings.

    Those are whether gradients are kept, the types and devices of new tensors, threads, what must be deterministic, and
    the precision of products. Where PyTorch is first imported meanwhile, they become what they are at its start. Random
    numbers continue where the function leaves them: nothing in this project draws from the generators that it shares.
    """
    before = _states()
    with chdir("."), np.errstate():
        try:
            yield
        finally:
            _put_back(before)


def _states() -> list[Any] | None:
    """The values of PyTorch's settings; None where nobody has imported it."""
    torch = sys.modules.get("torch")
    return None if torch is None else [setting.get() for setting in _settings(torch)]


def _put_back(before: list[Any] | None) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    settings = _settings(torch)
    first = [True, torch.float32, torch.device("cpu"), None, (False, False), False, True, "highest"]
    for setting, value in zip(settings, before or first, strict=True):
        if value is not None and setting.get() != value:
            setting.put(value)


def _put_device(torch: Any) -> Callable[[Any], Any]:
    # Without a default device new tensors are the CPU's too, and each call spares the look at it.
    return lambda device: torch.set_default_device(None if device.type == "cpu" else device)


def _settings(torch: Any) -> list[_Setting]:
    cudnn = torch.backends.cudnn

    def put_cudnn(flag: str) -> Callable[[bool], None]:
        return lambda value: setattr(cudnn, flag, value)

    return [
        _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
        _Setting(torch.get_default_dtype, torch.set_default_dtype),
        _Setting(torch.get_default_device, _put_device(torch)),
        _Setting(torch.get_num_threads, torch.set_num_threads),
        _Setting(
            lambda: (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
            ),
            lambda on: torch.use_deterministic_algorithms(on[0], warn_only=on[1]),
        ),
        _Setting(lambda: cudnn.benchmark, put_cudnn("benchmark")),
        _Setting(lambda: cudnn.enabled, put_cudnn("enabled")),
        _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    ]
