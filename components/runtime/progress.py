"""Progress as a callback, so that compute knows neither terminals nor cards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# progress(done, total, **figures): called often; figures are short floats such as loss=0.21
Progress = Callable[..., None]

SLOW = 10.0  # seconds without a word, after which parts of a step are worth one


def silent(done: int, total: int, **figures: float) -> None:
    """Progress that nobody watches."""


def with_token_rate(progress: Progress, total: int) -> Callable[[int, int], None]:
    """`show(done, tokens)`: progress of drawing `total` responses, with the tokens drawn per second from now on."""
    begin = time.perf_counter()

    def show(done: int, tokens: int) -> None:
        progress(done, total, tokens_per_second=tokens / max(time.perf_counter() - begin, 1e-9))

    return show


class Stopwatch:
    """Seconds of parts of a step, added up."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Args: clock gives the time in seconds."""
        self.seconds, self._clock = 0.0, clock

    @contextmanager
    def running(self) -> Iterator[None]:
        """Counts what passes within the block."""
        begin = self._clock()
        try:
            yield
        finally:
            self.seconds += self._clock() - begin

    def until_begun(self, progress: Progress) -> Progress:
        """The progress of work that first loads what it needs and then says that nothing is done: counts up to there.

        Of work whose first word is of something that is done, nothing is counted: how long that took is not known.
        """
        begin, waiting = self._clock(), True

        def show(done: int, total: int, **figures: float) -> None:
            nonlocal waiting
            if waiting and not done:
                self.seconds += self._clock() - begin
            waiting = False
            progress(done, total, **figures)

        return show


class Within:
    """Progress of steps that may take minutes each: between two of them it tells of parts, if they are slow."""

    def __init__(self, progress: Progress, done: int, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: done of so many steps; clock gives the time in seconds."""
        self._progress, self._done, self._total, self._clock = progress, done, total, clock
        self._figures: dict[str, float] = {}
        self._last = clock()

    def step(self, done: int, **figures: float) -> None:
        """A step is done."""
        self._done, self._figures = done, figures
        self._tell()

    def part(self, **figures: float) -> None:
        """Something of the next step is done: where the work stands is told again, with these figures added."""
        if self._clock() - self._last >= SLOW:
            self._tell(**figures)

    def _tell(self, **figures: float) -> None:
        self._last = self._clock()
        self._progress(self._done, self._total, **{**self._figures, **figures})
