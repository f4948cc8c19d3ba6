"""Somewhere for a failed run to say so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from support.cloud.loopback import serving


@dataclass
class Webhook:
    """Where it is, and the JSON that was posted there."""

    address: str
    posted: list[Any] = field(default_factory=list)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A web server on loopback that takes messages as Slack does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(Handler) as server:
        hook = Webhook(f"http://127.0.0.1:{server.server_port}/services/hook")
        yield hook
