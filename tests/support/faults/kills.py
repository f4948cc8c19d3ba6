"""Kills what runs a task, its launcher or its S3 server, at a chosen moment of a chosen task.

`--with support.faults.kills.kill` puts it into every task of a flow; the task notes in the file KILL_JOURNAL when it
begins and ends. KILL_AT names the task, such as `train_1` or `score_1/0`. For two shards in whichever order they come,
`score_1/first` is the first that begins in this attempt, and `score_1/second` the last one. KILL_HOW says
"VICTIM MOMENT":

    task        the task's process
    launcher    the process that started the task, which must then end too
    warm        the process that the task is a fork of, which must end too, and with it the run
    server      all of radosgw, whose folder is KILL_SERVER
    nobody      the task waits there for the same task of another run, to continue at once with it

    abreast     when another task of the step has begun, too
    before      the step's body
    after       it: its results are in the store, but not in artifacts
    exit        of the task, whose success is on record, but which the launcher has not seen end
    write:N     in the middle of the task's N-th write of a file into the store
    put:N       on S3: so, with half of a request on the wire
    part:N      on S3: so, between the parts of a multi-part upload
    restore:0   before it looks for a state of unfinished training
    step:N      after optimiser step N
"""

from __future__ import annotations

import atexit
import http.client
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from metaflow import current, user_step_decorator

SERVER = Path(__file__).parents[3] / "infra" / "s3" / "server"
PATIENCE = 300  # seconds in which a task whose launcher died has to end
PARENT = os.getppid()  # of a task; read before anything is killed
LAUNCHER = int(os.environ.get("WIND_LAUNCHER", PARENT))

Strike = Callable[[], None]


@user_step_decorator
def kill(step_name, flow, inputs, attributes):
    """See the module."""
    here = step_name if flow.index is None else f"{step_name}/{flow.index}"
    chosen = current.retry_count == 0 and is_chosen(here, os.environ.get("KILL_AT", ""))
    victim, moment = os.environ["KILL_HOW"].split() if chosen else ("", "")

    def strike() -> None:
        note(here, f"{victim} {moment}")
        VICTIMS[victim]()
        if victim in ("task", "launcher", "warm"):
            note(here, "survived")

    note(here, "begin")
    what, _, number = moment.partition(":")
    if what == "abreast":
        wait_for_two(
            lambda line: (line["run"], line["event"]) == (current.run_id, "begin") and step_name in line["task"]
        )
    if what in ("abreast", "before"):
        strike()
    elif what == "exit":
        atexit.register(strike)
    elif what in MOMENTS:
        MOMENTS[what](int(number), strike)
    yield
    if what == "after":
        strike()
    note(here, "end")


def is_chosen(here: str, at: str) -> bool:
    """Whether the task `here` is the one that KILL_AT names."""
    step, _, which = at.partition("/")
    if which not in ("first", "second"):
        return here == at
    # A resume may run a shard's next step before the other shard's turn, so "first" may find one that has ended.
    ended = {line["task"] for line in journal() if line["event"] == "end" and line["task"].startswith(f"{step}/")}
    return here.startswith(f"{step}/") and (which == "first" or len(ended - {here}) == 1)


def journal() -> list[dict[str, Any]]:
    """What the tasks of all attempts have noted."""
    path = Path(os.environ["KILL_JOURNAL"])
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def note(task: str, event: str) -> None:
    """Adds a line to the journal."""
    line = {"run": current.run_id, "task": task, "attempt": current.retry_count, "event": event}
    with Path(os.environ["KILL_JOURNAL"]).open("a") as file:
        file.write(json.dumps(line) + "\n")


def wait_for_two(which: Callable[[dict[str, Any]], bool]) -> None:
    """Until there are two such lines in the journal."""
    end = time.monotonic() + PATIENCE
    while len([line for line in journal() if which(line)]) < 2:
        assert time.monotonic() < end, "there was no second one"
        time.sleep(0.02)


def kill_above(process: int) -> None:
    """Returns only if this process outlives that one, which is above it."""
    if os.getppid() == PARENT:  # else it is dead already
        os.kill(process, signal.SIGKILL)
    time.sleep(PATIENCE)


def kill_server() -> None:
    """Returns when no process of it is left."""
    subprocess.run([sys.executable, SERVER, "kill", "--dir", os.environ["KILL_SERVER"]], check=True)


VICTIMS: dict[str, Strike] = {
    "task": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "launcher": lambda: kill_above(LAUNCHER),
    "warm": lambda: kill_above(PARENT),
    "server": kill_server,
    "nobody": lambda: wait_for_two(lambda line: line["event"].startswith("nobody")),
}


def in_write(number: int, strike: Strike) -> None:
    """Strikes when half of the bytes of the `number`-th file are in the local store."""
    from components.store import local

    replacing, reached = local.replacing, counted(number)

    class Torn:
        def __init__(self, file: BinaryIO) -> None:
            self.file = file

        def writelines(self, parts: Iterable[bytes]) -> None:
            if reached():
                content = b"".join(parts)
                parts = [content[len(content) // 2 :]]
                self.file.write(content[: len(content) // 2])
                self.file.flush()
                strike()
            self.file.writelines(parts)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    @contextmanager
    def tearing(target: Path, scratch: Path) -> Iterator[Torn]:
        with replacing(target, scratch) as file:
            yield Torn(file)

    local.replacing = tearing


def in_put(number: int, strike: Strike) -> None:
    """Strikes when half of the `number`-th file is on its way to S3 in a plain put."""

    def put_half(place: Any, content: bytes) -> None:
        url = urlsplit(
            place.client.generate_presigned_url("put_object", Params={"Bucket": place.bucket, "Key": place.key})
        )
        connection = http.client.HTTPConnection(url.netloc)
        connection.putrequest("PUT", f"{url.path}?{url.query}")
        connection.putheader("Content-Length", str(len(content)))
        connection.endheaders(content[: len(content) // 2])
        if select.select([connection.sock], [], [], 1)[0]:
            raise AssertionError(f"refused: {connection.getresponse().read()!r}")
        strike()

    _instead_of_upload(number, put_half)


def in_part(number: int, strike: Strike) -> None:
    """Strikes when half of the `number`-th file is in S3 as the first part of a multi-part upload."""

    def upload_half(place: Any, content: bytes) -> None:
        where = {"Bucket": place.bucket, "Key": place.key}
        upload = place.client.create_multipart_upload(**where)["UploadId"]
        place.client.upload_part(**where, UploadId=upload, PartNumber=1, Body=content[: len(content) // 2])
        strike()

    _instead_of_upload(number, upload_half)


def _instead_of_upload(number: int, half: Callable[[Any, bytes], None]) -> None:
    from components.store.s3_transfer import Object

    upload, reached = Object.upload, counted(number)

    def torn(self: Object, parts: Iterable[bytes], size: int) -> None:
        content = b"".join(parts)
        if reached():
            half(self, content)
        upload(self, [content], size)  # reached when it was the server that died

    Object.upload = torn


def in_restore(_: int, strike: Strike) -> None:
    """Strikes before a state of unfinished training is looked for."""
    from components.training.checkpoints import Checkpoints

    restore = Checkpoints.restore

    def after_strike(self: Checkpoints, state: Any) -> None:
        strike()
        restore(self, state)

    Checkpoints.restore = after_strike


def in_training(number: int, strike: Strike) -> None:
    """Strikes after the `number`-th optimiser step, when its state is in the store if it is due."""
    from components.training.checkpoints import Checkpoints

    step_done = Checkpoints.step_done

    def then_strike(self: Checkpoints, state: Any) -> None:
        step_done(self, state)
        if state.done == number:
            strike()

    Checkpoints.step_done = then_strike


def counted(number: int) -> Callable[[], bool]:
    """Is true the `number`-th time it is called."""
    return partial(next, chain(repeat(False, number - 1), [True], repeat(False)))


MOMENTS: dict[str, Callable[[int, Strike], None]] = {
    "write": in_write,
    "put": in_put,
    "part": in_part,
    "restore": in_restore,
    "step": in_training,
}
