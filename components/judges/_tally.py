"""What the answers of an OpenAI-compatible endpoint took, counted by several threads."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.judges._chat import Reply


class Tally:
    """What the answers to so many questions took; threads add to it."""

    def __init__(self, total: int) -> None:
        """Args: total: how many questions are asked."""
        self.total, self.unread = total, 0
        self._requests = self._tokens_in = self._tokens_out = 0
        self.counted = True  # whether all answers told of their tokens
        self._lock = threading.Lock()

    def add(self, reply: Reply, *, unread: bool) -> float:
        """Counts an answer; the share of all questions whose answers could not be read so far."""
        with self._lock:
            self._requests += 1
            self.counted &= None not in (reply.tokens_in, reply.tokens_out)
            self._tokens_in += reply.tokens_in or 0
            self._tokens_out += reply.tokens_out or 0
            self.unread += unread
            return self.unread / self.total

    def figures(self, price_in: float | None, price_out: float | None) -> dict[str, float]:
        """`requests`, `unparsed` of them, `tokens_in`, `tokens_out` and, with prices of a million tokens, `cost`.

        Neither tokens nor cost where an answer does not tell of its own: 0 would be taken for a figure.
        """
        with self._lock:
            found: dict[str, float] = {"requests": self._requests, "unparsed": self.unread}
            if not self.counted:
                return found
            found |= {"tokens_in": self._tokens_in, "tokens_out": self._tokens_out}
        if price_in is None or price_out is None:
            return found
        return {**found, "cost": (found["tokens_in"] * price_in + found["tokens_out"] * price_out) / 1e6}
