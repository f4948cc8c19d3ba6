"""A stand-in for W&B's server that answers what the client asks when a run is opened, resumed and written to."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "p", "name": "mine", "entity": {"id": "e", "name": "us"}}


@dataclass
class Server:
    """What it has been told."""

    address: str = ""
    points: list[dict[str, Any]] = field(default_factory=list)  # of the one run, as they came
    config: dict[str, Any] = field(default_factory=dict)
    runs: set[str] = field(default_factory=set)
    said: str = ""  # everything that the client sent
    broken: bool = False  # answers with nothing that the client can use

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        self.said += f"{path}\n{body.decode(errors='replace')}\n"
        told = json.loads(body) if body.startswith(b"{") else {}
        if path.endswith("/file_stream"):
            lines = told.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.points += map(json.loads, lines)
        return {"data": self._of(told.get("operationName"), told.get("variables") or {})} if "query" in told else {}

    def _of(self, question: str | None, given: dict[str, Any]) -> dict[str, Any]:
        if question == "RunResumeStatus":
            return {"model": {**PROJECT, "bucket": self._bucket() if self.runs else None}}
        if question == "UpsertBucket":
            self.runs.add(given["name"])
            self.config |= json.loads(given.get("config") or "{}")
            return {"upsertBucket": {"bucket": {**self._bucket(), "project": PROJECT}, "inserted": True}}
        if question == "CreateRunFiles" and not self.broken:
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": []}}
        return {}

    def _bucket(self) -> dict[str, Any]:
        return {
            **{"id": "b", "name": next(iter(self.runs)), "displayName": "shown", "config": "{}", "tags": []},
            **{"historyLineCount": len(self.points), "logLineCount": 0, "eventsLineCount": 0, "eventsTail": "[]"},
            "historyTail": json.dumps([json.dumps(point) for point in self.points[-1:]]),
            **{"summaryMetrics": "{}", "wandbConfig": '{"t": 1}'},
        }


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a port of its own."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            packed = self.headers.get("Content-Encoding") == "gzip"
            answer = json.dumps(server.answer(self.path, gzip.decompress(body) if packed else body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST  # noqa: N815  # as the base class calls them

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.address = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield server
        listening.shutdown()
        thread.join()
