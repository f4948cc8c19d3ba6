"""A proxy before an S3 server that breaks what it is told to break."""

from __future__ import annotations

import http.client
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Kind = Literal["error", "cut request", "cut answer", "lose answer", "slow"]


@dataclass
class Fault:
    """Something to do to requests of a kind."""

    kind: Kind
    match: str  # regular expression on "METHOD PATH?QUERY"
    times: int = 1  # how many of them, the first ones; each of them is then tried again
    status: int = 500  # of "error"
    seconds: float = 0.0  # of "slow", before the answer and again in the middle of it, or until the proxy is left


@dataclass
class Proxy:
    """Listens on loopback and passes requests on to `upstream`, "HOST:PORT", with their Host as it was signed."""

    upstream: str
    faults: list[Fault] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)  # faults by kind
    seen: list[str] = field(default_factory=list)  # "METHOD PATH?QUERY" of each request

    def __enter__(self) -> Proxy:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.proxy = self
        self.lock, self.over = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def choose(self, request: str) -> Fault | None:
        """The fault that befalls a request."""
        with self.lock:
            self.seen.append(request)
            for fault in self.faults:
                if fault.times and re.search(fault.match, request):
                    fault.times -= 1
                    self.done[fault.kind] += 1
                    return fault
        return None


class Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds; an idle connection must not keep a test from ending

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the client hung up on a slow or broken answer
            self.close_connection = True

    def pass_on(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        fault = self.server.proxy.choose(f"{self.command} {self.path}")
        kind = fault.kind if fault else None
        if kind == "cut request":
            self.rfile.read(size // 2)
            self.close_connection = True
            return
        body = self.rfile.read(size)
        if fault and kind == "error":
            self.answer(fault.status, {}, b"<Error><Code>InternalError</Code><Message>told to</Message></Error>")
            return
        status, headers, content = self.ask(body)
        if kind == "lose answer":
            self.close_connection = True
            return
        if fault and kind == "slow":
            self.server.proxy.over.wait(fault.seconds)
        self.answer(status, headers, content, cut=kind == "cut answer", pause=fault.seconds if fault else 0.0)

    def ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            got = connection.getresponse()
            return got.status, dict(got.getheaders()), got.read()
        except (ConnectionError, http.client.HTTPException):
            return 502, {}, b""
        finally:
            connection.close()

    def answer(
        self, status: int, headers: dict[str, str], content: bytes, *, cut: bool = False, pause: float = 0.0
    ) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", str(len(content))) if self.command == "HEAD" else str(len(content))
        kept = {
            n: v for n, v in headers.items() if n.lower() not in ("content-length", "transfer-encoding", "connection")
        }
        for name, value in {**kept, "Content-Length": length}.items():
            self.send_header(name, value)
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        if cut:
            self.close_connection = True
            return
        self.server.proxy.over.wait(pause)
        self.wfile.write(content[half:])

    def log_message(self, *_: object) -> None:
        pass


for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
    setattr(Handler, f"do_{method}", Handler.pass_on)
