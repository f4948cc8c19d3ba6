"""An HTTP server in the test's own process that answers as a test says, and keeps what it was asked."""

from __future__ import annotations

import gc
import json
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What goes back; a dict is sent as JSON."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """Requests in the order in which they came."""

    address: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)  # names in lower case
    paths: list[str] = field(default_factory=list)


def said(text, *, tops=None, finish="stop", tokens=(11, 1)):
    """A chat completion; `tops` are the log-probs of the likeliest tokens in the place of the text's one token."""
    logprobs = None
    if tops is not None:
        listed = [{"token": token, "logprob": logprob} for token, logprob in tops.items()]
        logprobs = {"content": [{"token": text, "logprob": tops.get(text, -9.0), "top_logprobs": listed}]}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    used = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return {"object": "chat.completion", "choices": [{**choice, "logprobs": logprobs}], "usage": used}


@contextmanager
def in_background(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server whose requests the handler answers in threads of this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        with warnings.catch_warnings():  # connections that broke are left to the garbage collector, by clients too
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


@contextmanager
def kept_port() -> Iterator[int]:
    """A port for a server that reuses addresses, as most do: nobody else is given it meanwhile."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Any]) -> Iterator[Server]:
    """Answers each POST with answer(body, number of the request); an Answer, or what is sent with status 200."""
    found = Server("")
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(found.bodies)
                found.bodies.append(body)
                found.headers.append({name.lower(): value for name, value in self.headers.items()})
                found.paths.append(self.path)
            given = answer(body, number)
            given = given if isinstance(given, Answer) else Answer(given)
            data = given.body if isinstance(given.body, bytes) else json.dumps(given.body).encode()
            try:
                self.send_response(given.status)
                usual = {"Content-Type": "application/json", "Content-Length": str(len(data))}
                for name, value in {**usual, **given.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client did not wait
                self.close_connection = True

        def log_message(self, *_):
            pass

    with in_background(Handler) as found.address:
        yield found
