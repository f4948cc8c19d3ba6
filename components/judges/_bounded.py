"""An HTTP client whose answers end: each within so many seconds as a whole, and within so many bytes."""

from __future__ import annotations

import asyncio
import codecs
import math
import os
import resource
import socket
import ssl
import zlib
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import httpx2

from components.config.errors import JudgeError
from components.judges._retry_after import wished

LARGEST = 64 * 2**20  # bytes; 100,000 scores with ten parts take 20 MB
PIECE = 2**14  # packed bytes at a time: the hardest take milliseconds, and the limit of time is heeded in between
GZIP = b"\x1f"  # begins a member
UNPACKED = 2**20  # bytes that are unpacked at a time
# Headers that are not handed on: of a body as it was sent; of its type, for JSON is UTF-8 whatever they claim; and
# those of a vendor's own, which the client of `openai` would heed before the status and Retry-After.
_DROPPED = (
    *(b"content-encoding", b"content-length", b"transfer-encoding", b"content-type"),
    *(b"retry-after-ms", b"x-should-retry"),
)


SPARE = 64  # files that a process opens beside its connections, such as its models' and certificates


class UnreadableError(Exception):
    """An answer of more than LARGEST bytes, or one that is packed as none was asked for."""


class BoundedClient(httpx2.AsyncClient):
    """Reads each answer whole, whatever its status, and follows no redirects: they would take the key along.

    The library's own timeouts bound each wait for a few bytes, and a server that sends some now and then never meets
    them. Here the seconds are those from looking up the server's address to the answer's last byte, unpacked.
    """

    def __init__(self, seconds: float, connections: int) -> None:
        """Raises the process's limit of open files to what so many connections need.

        Args:
            seconds: that an answer may take.
            connections: at a time.

        Raises:
            JudgeError: the machine allows fewer, or a proxy or certificates cannot be used.
        """
        _make_room(connections)
        try:
            super().__init__(
                timeout=None,
                follow_redirects=False,
                limits=httpx2.Limits(max_connections=None),
                headers={"Accept-Encoding": "gzip"},
            )
        except (ImportError, ValueError, OSError, httpx2.InvalidURL) as error:
            raise JudgeError(
                f"judge: what the environment says of proxies or certificates cannot be used ({error}). Correct or "
                "unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE and SSL_CERT_DIR."
            ) from error
        self._seconds = seconds

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The answer, read.

        Raises:
            httpx2.ReadTimeout: it takes too long.
            httpx2.RequestError: it does not come, or damaged.
            UnreadableError: it does not end, or is packed twice or in an unknown way.
        """
        try:
            async with asyncio.timeout(self._seconds):
                answer = await super().send(request, **{**options, "stream": True})
                async with aclosing(answer):
                    body = await _body(answer)
        except TimeoutError:
            raise httpx2.ReadTimeout("timed out", request=request) from None
        except (ssl.SSLError, anyio.EndOfStream) as error:  # of which the library makes none of its own errors
            raise httpx2.ReadError("the connection broke off", request=request) from error
        return httpx2.Response(
            answer.status_code,
            headers=_handed_on(answer.headers),
            content=body,
            request=request,
            extensions={"reason_phrase": answer.reason_phrase.encode("ascii", "replace")},
        )


def _make_room(connections: int) -> None:
    """Each connection is an open file, and a shell's usual limit is 1,024 of them."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sum(1 for _ in Path("/dev/fd").iterdir()) + SPARE + connections
    if now == resource.RLIM_INFINITY or now >= needed:
        return
    if most != resource.RLIM_INFINITY and most < needed:
        left = most - (needed - connections)
        raise JudgeError(
            f"judge.concurrency: {connections} requests at a time need {needed} open files with those that are open, "
            f"and a process may have {most} here. "
            + (f"Lower judge.concurrency to {left}, or raise" if left > 0 else "Raise")
            + " the hard limit (ulimit -Hn)."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def _handed_on(headers: httpx2.Headers) -> list[tuple[bytes, bytes]]:
    """An answer's headers, with Retry-After as `wished` reads it: the client of `openai` reads some otherwise."""
    seconds = wished(headers)
    dropped = (*_DROPPED, *([b"retry-after"] if seconds is None or math.isfinite(seconds) else []))
    kept = [(name, value) for name, value in headers.raw if name.lower() not in dropped]
    if seconds is not None and math.isfinite(seconds):
        kept.append((b"Retry-After", f"{seconds:.3f}".encode()))
    return kept


async def _body(answer: httpx2.Response) -> bytes:
    """Unpacked, so that a few bytes cannot become many, nor take long: each piece is a chance to be interrupted."""
    body, packed, unpacking = bytearray(), 0, _unpacking(answer)
    async for part in answer.aiter_raw():
        packed += len(part)
        for begin in range(0, len(part), PIECE):
            for piece in unpacking.pieces(part[begin : begin + PIECE]):
                body += piece
                _bound(len(body))
            _bound(packed)
            await asyncio.sleep(0)
    unpacking.end()
    return bytes(body.removeprefix(codecs.BOM_UTF8))


def _bound(size: int) -> None:
    if size > LARGEST:
        raise UnreadableError(f"more than {LARGEST / 2**20:.0f} MiB")


class _Plain:
    """A body as it is sent."""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        yield data

    def end(self) -> None:
        pass


class _Gzip(_Plain):
    """A body that is packed, in one member or several (RFC 1952, section 2.2)."""

    def __init__(self, request: httpx2.Request) -> None:
        self._request, self._member, self._begun = request, zlib.decompressobj(zlib.MAX_WBITS | 16), False

    def pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                if not data.startswith(GZIP):  # as some servers pad a body
                    return
                self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
            self._begun = True
            try:
                yield self._member.decompress(data, UNPACKED)
            except zlib.error as error:
                raise httpx2.DecodingError(str(error), request=self._request) from None
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail

    def end(self) -> None:
        """Raises DecodingError for a body of which the end is missing."""
        if self._begun and not self._member.eof:
            raise httpx2.DecodingError("the packed body ends early", request=self._request)


def _unpacking(answer: httpx2.Response) -> _Plain:
    """What makes pieces of an answer's text of a piece of what is sent."""
    coding = answer.headers.get("content-encoding", "").strip().lower()
    if coding in ("", "identity"):
        return _Plain()
    if coding not in ("gzip", "x-gzip"):
        raise UnreadableError(f"a body packed as {coding[:100]!r} where gzip alone was asked for")
    return _Gzip(answer.request)


def _below(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):  # of several addresses of a server
        return error.exceptions[0]
    ended = isinstance(error, httpx2.TimeoutException)  # what was interrupted tells nothing
    return None if ended else error.__cause__ or error.__context__  # the library hides some


def reason(error: BaseException) -> str:
    """What lies at the bottom of a failure of the network, such as `Connection refused`."""
    while deeper := _below(error):
        error = deeper
    # Of a connection that fails asyncio tells the address; addresses and certificates have numbers of their own.
    own = isinstance(error, socket.gaierror | ssl.SSLError)
    if isinstance(error, OSError) and error.errno and not own:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
