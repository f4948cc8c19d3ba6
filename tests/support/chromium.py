"""Headless Chromium, spoken to through two pipes in its DevTools protocol, so that no package is needed for it."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
]


def installed() -> str | None:
    """Chromium's command, if there is one."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One page. `requests` and `errors` are what it has asked for and complained of since the last `open`."""

    def __init__(self, said: int, heard: int, seconds: float = 300.0) -> None:
        """Args: the pipes' ends here; how long an answer may take."""
        self._said, self._heard, self._seconds = said, heard, seconds
        self._rest, self._session, self._number = b"", "", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A method's result. AssertionError for an error."""
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": params, **session}
        os.write(self._said, json.dumps(message).encode() + b"\0")
        while (answer := self._hear()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def _hear(self) -> dict[str, Any]:
        end = time.monotonic() + self._seconds
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._heard], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium has not answered within {self._seconds} s"
            read = os.read(self._heard, 1 << 20)
            assert read, "Chromium has ended"
            self._rest += read
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        return message

    def open(self, path: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._hear())

    def run(self, code: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise. AssertionError where it throws."""
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key that is no character, such as ArrowDown."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """A PNG of what is to be seen."""
        path.write_bytes(b64decode(self.call("Page.captureScreenshot")["data"]))

    @property
    def requests(self) -> list[str]:
        """Addresses that the page has asked for."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    @property
    def errors(self) -> list[str]:
        """Exceptions, and what stands in the console."""
        told = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(event["params"]) for event in self.events if event.get("method") in told]


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Chromium with a profile of its own in `folder`."""
    command = installed()
    assert command
    (hears, said), (heard, speaks) = os.pipe(), os.pipe()
    words = ["bash", "-c", f'exec "$0" "$@" 3<&{hears} 4>&{speaks}', command, *FLAGS, f"--user-data-dir={folder}"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(words, pass_fds=(hears, speaks), stdin=quiet, stdout=quiet, stderr=quiet) as process:
        os.close(hears)
        os.close(speaks)
        try:
            yield Browser(said, heard)
        finally:
            process.kill()
            os.close(said)
            os.close(heard)
