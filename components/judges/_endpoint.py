"""What judges behind a URL have in common: their address, their key, and questions asked several at a time."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import idna
from pydantic import AfterValidator, Field

from components.config.errors import JudgeError
from components.config.schema import MOST_SHOWN, Section, cut
from components.judges._calls import in_order
from components.judges._post import PASSES
from components.judges._retry_after import LONGEST
from components.judges._secrets import without

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")

REDIRECTED = "Redirects are not followed, for they would take the key along."
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port  # a port that is no number raises
        (host or "").encode("idna")  # as does a name that no server can have
        if host and not host.isascii():
            idna.encode(host)  # of newer rules, by which the client goes
    except ValueError as error:
        raise ValueError(f"{value!r} is no address ({error}). Write it as in http://localhost:8000/v1.") from error
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds a user or a password, and configs are stored. Name a variable in api_key_env instead.")
    if parts.scheme not in ("http", "https") or not host or "#" in value or re.search(r"\s", value):
        raise ValueError(f"{value!r} is no address. Write it as in http://localhost:8000/v1.")
    if not f"{parts.path}{parts.query}".isascii():
        raise ValueError(f"{value!r} holds characters beyond ASCII behind the host. Write them as %XX.")
    return value


def _base(value: str) -> str:
    if "?" in value:
        raise ValueError(f"{value!r} holds a query, and the path of each request is put behind it. Leave it out.")
    return value


def _variable(value: str) -> str:
    if not VARIABLE.fullmatch(value):  # whatever stands there may be the key itself: it is not shown
        raise ValueError(
            "is no name of an environment variable in capital letters, such as OPENAI_API_KEY. Write the name of the "
            "variable that holds the key, never the key itself: configs are stored."
        )
    return value


Address = Annotated[str, AfterValidator(_address)]
BaseAddress = Annotated[Address, AfterValidator(_base)]  # of several places below it
Variable = Annotated[str, AfterValidator(_variable)]


class EndpointSettings(Section):
    """How a judge's endpoint is asked."""

    api_key_env: Variable | None = Field(None, description="environment variable that holds the key; null: none")
    concurrency: int = Field(8, ge=1, le=1024, description="requests at a time")
    timeout: float = Field(60.0, gt=0, le=86400, description="seconds that a whole answer may take, each time")
    retries: int = Field(
        8, ge=0, le=100, description="of a request that is refused as too many, fails in the server or takes too long"
    )

    def key(self) -> str | None:
        """The key. Raises JudgeError if its variable is not set, or holds what no header can."""
        if self.api_key_env is None:
            return None
        if not (key := os.environ.get(self.api_key_env, "").strip()):
            raise JudgeError(
                f"judge.api_key_env: the environment variable {self.api_key_env} is not set. Set it to the key, on a "
                "cluster by a secret (cluster.secrets); for an endpoint that asks for none, write "
                "judge.api_key_env: null."
            )
        if not re.fullmatch(r"[!-~]+", key):
            raise JudgeError(
                f"judge.api_key_env: the environment variable {self.api_key_env} holds spaces or characters beyond "
                "ASCII, as no key does. Copy the key again."
            )
        return key

    def shown(self, text: str, *, quoted: bool = True) -> str:
        """What an endpoint said, as messages show it: short, on one line, and without the key."""
        said = repr(without(self.key(), text)[: MOST_SHOWN + 1])  # an escape may take the place of each sign
        return cut(said if quoted else said[1:-1])

    def busy_remedy(self, status: int, wait: float | None) -> str | None:
        """What to do about an endpoint that is asked too much or fails itself; None for another status.

        `wait` is the time in seconds for which it wants to be left alone, None for none.
        """
        busy = status >= 500 or status in PASSES
        if busy and wait is not None and wait > LONGEST:
            so_long = f"for {wait:.0f} s" if math.isfinite(wait) else "for ever"
            return (
                f"It asks to be left alone {so_long} (Retry-After), and a judge waits {LONGEST:.0f} s at most. "
                "Resume the run after that time, or use another endpoint."
            )
        if status == 429:
            return f"Lower judge.concurrency ({self.concurrency}) or raise judge.retries ({self.retries})."
        if status >= 500:
            return f"See what the server says, or raise judge.retries ({self.retries})."
        return None

    def each_once(
        self,
        asked: Sequence[Asked],
        same: Callable[[Asked], Hashable],
        ask: Callable[[Sequence[Asked]], Sequence[Answered]],
        done: Callable[[int, int], None],
        *,
        size: int = 1,
    ) -> list[Answered]:
        """The answers to all, in order, of which equal ones are asked once; `concurrency` requests at a time.

        Args:
            asked: N of them.
            same: what makes two of them equal.
            ask: one request about some of them.
            done: is told how many of how many different ones are answered.
            size: most of them in a request.

        Raises:
            What `ask` raises, of the earliest request that fails.
        """
        seen: dict[Hashable, int] = {}
        places = [seen.setdefault(same(one), len(seen)) for one in asked]
        first = dict(zip(reversed(places), reversed(asked), strict=True))
        different = [first[place] for place in range(len(seen))]
        requests = [different[begin : begin + size] for begin in range(0, len(different), size)]
        answers = in_order(
            lambda index: ask(requests[index]),
            len(requests),
            workers=self.concurrency,
            late=lambda index: JudgeError(f"request {index} took too long. Raise judge.timeout."),
            done=lambda count: done(min(count * size, len(different)), len(different)),
        )
        found = [answer for some in answers for answer in some]
        return [found[place] for place in places]
