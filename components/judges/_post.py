"""JSON posted to a URL, with patience: again after what may pass."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a config is read in steps that ask nobody
    import httpx2

PASSES = {408, 409, 425, 429}  # and all from 500 on
FIRST_WAIT, LONGEST_WAIT, LONGEST_WISH = 0.5, 8.0, 120.0  # seconds; the wish is the server's own


class RefusedError(Exception):
    """A status that is no 2xx, and does not pass or did not in time."""

    def __init__(self, status: int, said: str) -> None:
        """Args: status as in HTTP; what the server said."""
        super().__init__(status, said)
        self.status, self.said = status, said


async def post(client: httpx2.AsyncClient, url: str, value: Any, *, key: str | None, retries: int) -> str:
    """The body that a URL answers with to a value as JSON.

    Statuses of `PASSES`, failures of server and network, and answers that take too long are tried again `retries`
    times, after 0.5, 1, 2, 4 and then 8 s each, less a random quarter at most, or when the server says (Retry-After).

    Args:
        client: one that follows no redirects.
        url: of http or https.
        value: what JSON can hold.
        key: sent as `Authorization: Bearer`; None for none.
        retries: at most.

    Raises:
        RefusedError: with the last status.
        httpx2.RequestError: the last failure of the network.
        httpx2.InvalidURL: no server can have this address.
    """
    import httpx2

    # On a connection that is kept, a server that sends head and body apart waits for each head's receipt: some 40 ms.
    headers = {"Content-Type": "application/json", "Connection": "close"}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    body = json.dumps(value).encode()
    for attempt in range(retries + 1):
        wait = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * random.uniform(0.75, 1.0)
        try:
            answer = await client.post(url, content=body, headers=headers)
        except httpx2.RequestError:
            if attempt == retries:
                raise
        else:
            said, status = answer.content.decode("utf-8", "replace"), answer.status_code
            if answer.is_success:
                return said
            if attempt == retries or (status < 500 and status not in PASSES):
                raise RefusedError(status, said.strip() or answer.reason_phrase)
            wait = _wished(answer.headers.get("Retry-After")) or wait
        await asyncio.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _wished(header: str | None) -> float | None:
    """Seconds of a Retry-After; None for a date, for none and for more than anybody waits."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 < seconds <= LONGEST_WISH else None
