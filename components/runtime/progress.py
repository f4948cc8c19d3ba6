"""Progress as a callback, so that compute knows neither terminals nor cards."""

from __future__ import annotations

import time
from collections.abc import Callable

# progress(done, total, **figures): called often; figures are short floats such as loss=0.21
Progress = Callable[..., None]


def silent(done: int, total: int, **figures: float) -> None:
    """Progress that nobody watches."""


def with_token_rate(progress: Progress, total: int) -> Callable[[int, int], None]:
    """`show(done, tokens)`: progress of drawing `total` responses, with the tokens drawn per second from now on."""
    begin = time.perf_counter()

    def show(done: int, tokens: int) -> None:
        progress(done, total, tokens_per_second=tokens / max(time.perf_counter() - begin, 1e-9))

    return show
