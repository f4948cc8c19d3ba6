"""Functions of judges: slow, endless, failing and leaving ones, by themselves or asynchronous."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from contextlib import suppress

from components.config.registry import build
from components.data.records import Prompt
from components.judges import Judge

PROMPTS = [Prompt(name, ({"role": "user", "content": "?"},)) for name in ("a", "b", "c", "d")]
seen: list[str] = []
at_once = [0, 0]  # now, most
wanted = [1]  # at once: a counted call ends when there were so many; not the first, which is made alone
_counting = threading.Condition()
PATIENCE = 120  # seconds for what happens at once where the machine has time for it


def length(response, prompt):
    return len(response)


def backwards(response, prompt):
    """The earlier, the slower."""
    seen.append(response)
    time.sleep(0.01 * (8 - int(response)))
    return int(response)


def _begun():
    at_once[0] += 1
    at_once[1] = max(at_once)


def counted(response, prompt):
    with _counting:
        _begun()
        _counting.notify_all()
        assert response == "0" or _counting.wait_for(lambda: at_once[1] >= wanted[0], PATIENCE)
    time.sleep(0.05)  # for one more than there should be
    with _counting:
        at_once[0] -= 1
    return 0


async def counted_async(response, prompt):
    _begun()
    end = time.monotonic() + PATIENCE
    while response != "0" and at_once[1] < wanted[0]:
        assert time.monotonic() < end
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    at_once[0] -= 1
    return 0


def fails(response, prompt):
    """All but the first fail; the later, the sooner."""
    time.sleep(0.01 * (8 - int(response)))
    return 1 / (0 if int(response) else 1)


async def fails_async(response, prompt):
    await asyncio.sleep(0.01 * (8 - int(response)))
    return 1 / (0 if int(response) else 1)


def hangs(response, prompt):
    if response == "5":
        threading.Event().wait()
    return 0


def hangs_and_catches(response, prompt):
    while response == "5":
        with suppress(Exception):
            time.sleep(60)
    return 0


def catches_all(response, prompt):
    with suppress(BaseException):
        time.sleep(60 if response == "5" else 0)
    return 0


def runaway_expression(response, prompt):
    return bool(re.match("(a+)+$", "a" * 40 + "b")) if response == "5" else 0


async def hangs_async(response, prompt):
    await asyncio.sleep(60 if response == "5" else 0)
    return 0


async def blocks_the_loop(response, prompt):
    time.sleep(3 if response == "5" else 0)
    return 0


def leaves(response, prompt):
    sys.exit("done" if response == "5" else None) if response in "56" else None
    return 0


async def leaves_async(response, prompt):
    return leaves(response, prompt)


def interrupted(response, prompt):
    if response == "5":
        raise KeyboardInterrupt
    return 0


async def interrupted_async(response, prompt):
    return interrupted(response, prompt)


class Burst(BaseException):
    """Caught by no `except Exception`."""


def cancels(response, prompt):
    if response == "5":
        raise asyncio.CancelledError
    return 0


async def cancels_async(response, prompt):
    return cancels(response, prompt)


def bursts(response, prompt):
    if response == "5":
        raise Burst
    return 0


async def bursts_async(response, prompt):
    return bursts(response, prompt)


def ends(response, prompt):
    return next(iter([1] if response != "5" else []))


def lists(responses, prompts):
    seen.append(" ".join(f"{prompt.id}{response}" for response, prompt in zip(responses, prompts, strict=True)))
    return [int(response) for response in responses]


async def lists_async(responses, prompts):
    return lists(responses, prompts)


def lists_with_parts(responses, prompts):
    return [{"score": int(r), "even": int(r) % 2 == 0} | ({"odd": 1} if r == "5" else {}) for r in responses]


lock = asyncio.Lock()


async def uses_a_lock(response, prompt):
    async with lock:
        await asyncio.sleep(0.01)
    return 1


FUNCTIONS = __name__  # where a config finds them


def judged(function, n=4, k=2, progress=lambda *_, **__: None, **settings):
    """Responses are numbered through: "5" is response 1 to prompt 'c'."""
    judge = build("judges", {"name": "verifier", "function": f"{FUNCTIONS}:{function}", **settings}, Judge)
    judge.check()
    return judge.judge(PROMPTS[:n], [[str(i * k + j) for j in range(k)] for i in range(n)], progress)
