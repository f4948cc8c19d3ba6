"""JSON posted to a URL, with patience: again after what may pass."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from typing import Any

PASSES = {408, 409, 425, 429}  # and all from 500 on
FIRST_WAIT, LONGEST_WAIT, LONGEST_WISH = 0.5, 8.0, 120.0  # seconds; the wish is the server's own


class RefusedError(Exception):
    """A status that is no 2xx, and does not pass or did not in time."""

    def __init__(self, status: int, said: str) -> None:
        """Args: status as in HTTP; what the server said."""
        super().__init__(status, said)
        self.status, self.said = status, said


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere becomes a GET, and takes the key along."""

    def redirect_request(self, *_: Any) -> None:
        return None


def post(url: str, value: Any, *, key: str | None, timeout: float, retries: int) -> str:
    """The body that a URL answers with to a value as JSON.

    Statuses of `PASSES`, failures of server and network, and answers that take too long are tried again `retries`
    times, after 0.5, 1, 2, 4 and then 8 s each, less a random quarter at most, or when the server says (Retry-After).

    Args:
        url: of http or https.
        value: what JSON can hold.
        key: sent as `Authorization: Bearer`; None for none.
        timeout: seconds to wait for the server, each time.
        retries: at most.

    Raises:
        RefusedError: with the last status.
        OSError, http.client.HTTPException: the last failure of the network.
    """
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(url, json.dumps(value).encode(), headers, method="POST")
    opener = urllib.request.build_opener(_NoRedirects)
    for attempt in range(retries + 1):
        wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.75, 1.0)
        try:
            with opener.open(request, timeout=timeout) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read().decode("utf-8", "replace")
            if attempt == retries or (error.code < 500 and error.code not in PASSES):
                raise RefusedError(error.code, said.strip() or str(error.reason)) from None
            wait = _wished(error.headers.get("Retry-After")) or wait
        except (OSError, http.client.HTTPException):
            if attempt == retries:
                raise
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _wished(header: str | None) -> float | None:
    """Seconds of a Retry-After; None for a date, for none and for more than anybody waits."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 < seconds <= LONGEST_WISH else None
