"""Servers that answer as told, in place of an S3 server."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler


class Canned(BaseHTTPRequestHandler):
    """Answers each request as the server's `answer(method, path)` says: status and body."""

    protocol_version = "HTTP/1.1"

    def handle_one(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = self.server.answer(self.command, self.path)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else body)

    def log_message(self, *_: object) -> None:
        pass


for command in ("GET", "HEAD", "PUT"):
    setattr(Canned, f"do_{command}", Canned.handle_one)


def failing(status: int, code: str) -> Callable[[str, str], tuple[int, bytes]]:
    """A server that answers everything with one error of S3."""
    body = f"<Error><Code>{code}</Code><Message>told to</Message></Error>".encode()
    return lambda method, path: (status, body)


def denies_the_missing(method: str, path: str) -> tuple[int, bytes]:
    """A server that does not allow to list the bucket: what is missing is denied."""
    return (403, b"") if method == "HEAD" else (200, b"" if method == "PUT" else s3_probe())


def s3_probe() -> bytes:
    from components.store.s3 import PROBE

    return PROBE


def web_page(method: str, path: str) -> tuple[int, bytes]:
    """A server that is no S3 server."""
    return 404, b"<html><body>Not here</body></html>"
