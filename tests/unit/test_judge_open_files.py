"""A judge that asks more at a time than a process may have files open: it raises the limit, or says what it is."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

AT_ONCE, FEW, PLENTY = 300, 200, 600  # requests; open files
ASKS = """
import resource, sys
from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges.http import HttpJudge

url, concurrency, soft, hard = sys.argv[1], *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
judge = HttpJudge(url=url, concurrency=concurrency, batch_size=1, retries=0)
prompts = [Prompt(str(i), [{"role": "user", "content": str(i)}]) for i in range(concurrency)]
try:
    print(judge.judge(prompts, [["answer"]] * concurrency).reward.sum())
except JudgeError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Of a server that answers when AT_ONCE requests are there."""
    together = threading.Barrier(AT_ONCE)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            together.wait(120)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"scores": [1]}')

        def log_message(self, *arguments: object) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 2 * AT_ONCE

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def said(url: str, concurrency: int, soft: int, hard: int) -> str:
    command = [sys.executable, "-c", ASKS, url, *map(str, (concurrency, soft, hard))]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def test_the_limit_is_raised_to_what_is_needed(url: str) -> None:
    assert said(url, AT_ONCE, FEW, PLENTY) == "300.0\n"


def test_a_limit_that_cannot_be_raised_is_told(url: str) -> None:
    message = said(url, AT_ONCE, FEW, FEW)
    assert "judge.concurrency: 300 requests at a time need" in message
    assert "a process may have 200 here" in message
    advised = re.search(r"Lower judge.concurrency to (\d+), or raise the hard limit", message)
    assert advised is not None
    assert 50 < int(advised[1]) < 200


def test_where_there_is_no_room_at_all_only_the_limit_helps(url: str) -> None:
    assert said(url, 8, 60, 60).endswith("Raise the hard limit (ulimit -Hn).\n")
