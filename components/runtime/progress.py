"""Progress as a callback, so that compute knows neither terminals nor cards."""

from __future__ import annotations

from collections.abc import Callable

# progress(done, total, **figures): called often; figures are short floats such as loss=0.21
Progress = Callable[..., None]


def silent(done: int, total: int, **figures: float) -> None:
    """Progress that nobody watches."""
