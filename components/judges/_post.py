"""JSON posted to a URL, with patience: again after what may pass."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING, Any

from components.judges._retry_after import LONGEST, wished

if TYPE_CHECKING:  # a config is read in steps that ask nobody
    import httpx2

PASSES = {408, 409, 429}  # and all from 500 on, as the client of `openai` has it
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # seconds


class RefusedError(Exception):
    """A status that is no 2xx, and does not pass or did not in time."""

    def __init__(self, status: int, said: str, wait: float | None) -> None:
        """Args: status as in HTTP; what the server said; seconds that it wants to be left alone, if it says so."""
        super().__init__(status, said, wait)
        self.status, self.said, self.wait = status, said, wait


async def post(client: httpx2.AsyncClient, url: str, value: Any, *, key: str | None, retries: int) -> str:
    """The body that a URL answers with to a value as JSON.

    Statuses of `PASSES`, failures of server and network, and answers that take too long are tried again `retries`
    times, after 0.5, 1, 2, 4 and then 8 s each, less a random quarter at most, or when the server says (Retry-After);
    if that is later than anybody waits, they are not.

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
            said, status, wish = answer.text, answer.status_code, wished(answer.headers)
            if answer.is_success:
                return said
            passes = (status >= 500 or status in PASSES) and (wish or 0) <= LONGEST
            if attempt == retries or not passes:
                raise RefusedError(status, said.strip() or answer.reason_phrase, wish)
            wait = wish or wait
        await asyncio.sleep(wait)
    raise AssertionError("the last attempt returns or raises")
