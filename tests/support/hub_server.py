"""Serves the stand-in of the hub on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from support.hub import Hub
from support.hub_cards import RefusedError
from support.loopback_server import in_background


class Handler(BaseHTTPRequestHandler):
    """Gives each request to `hub`, one at a time."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    lock: threading.Lock

    def serve(self):
        body = self.body()
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        headers = {}
        try:
            with self.lock:
                status, answer = 200, self.hub.answer(self.command, urlsplit(self.path).path, token, body)
        except RefusedError as refusal:
            status, answer = refusal.status, {"error": refusal.message, **refusal.more}
            headers = {"X-Error-Message": refusal.message, "X-Error-Code": refusal.code}
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        usual = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**usual, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self):
        self.serve()

    def do_POST(self):
        self.serve()

    def do_PUT(self):
        self.serve()

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that listens until the block ends."""
    own = type("Own", (Handler,), {"hub": Hub(), "lock": threading.Lock()})
    with in_background(own) as own.hub.address:
        yield own.hub
