"""A server whose answers do not end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

from support.loopback_server import in_background


@contextmanager
def dripping(head: bytes, drop: bytes, *, every: float) -> Iterator[tuple[str, list[float]]]:
    """A server's address, and since when each of its connections has been closed.

    It answers with `head` at once, and then with `drop` after so many seconds each, for as long as anybody listens.
    """
    closed: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def handle(self):
            length = 0
            while (line := self.rfile.readline()).strip():
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            self.rfile.read(length)
            with suppress(OSError):
                self.wfile.write(head)
                while True:
                    self.wfile.write(drop)
                    time.sleep(every)
            closed.append(time.monotonic())

    with in_background(Handler) as address:
        yield address, closed
