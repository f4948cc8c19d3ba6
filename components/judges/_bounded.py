"""An HTTP client whose answers end: each within so many seconds as a whole, and within so many bytes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import aclosing
from typing import Any

import anyio
import httpx2

from components.config.errors import JudgeError

LARGEST = 64 * 2**20  # bytes; 100,000 scores with ten parts take 20 MB
_UNPACKED = ("content-encoding", "content-length", "transfer-encoding")  # headers of a body as it was sent


class TooLargeError(Exception):
    """An answer of more than LARGEST bytes."""


class BoundedClient(httpx2.AsyncClient):
    """Reads each answer whole, whatever its status, and follows no redirects: they would take the key along.

    The library's own timeouts bound each wait for a few bytes, and a server that sends some now and then never meets
    them. Here the seconds are those from looking up the server's address to the answer's last byte.
    """

    def __init__(self, seconds: float) -> None:
        """Args: seconds that an answer may take. Raises JudgeError for a proxy or certificates that cannot be used."""
        try:
            super().__init__(timeout=None, follow_redirects=False, limits=httpx2.Limits(max_connections=None))
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
            httpx2.RequestError: it does not come.
            TooLargeError: it does not end.
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
            headers=[(name, value) for name, value in answer.headers.multi_items() if name not in _UNPACKED],
            content=body,
            request=request,
            extensions={"reason_phrase": answer.reason_phrase.encode("ascii", "replace")},
        )


async def _body(answer: httpx2.Response) -> bytes:
    """Unpacked, so that a few bytes cannot become many."""
    body = bytearray()
    async for part in answer.aiter_bytes():
        body += part
        if len(body) > LARGEST:
            raise TooLargeError(f"more than {LARGEST / 2**20:.0f} MiB")
    return bytes(body)


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
