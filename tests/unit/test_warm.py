"""The warm process: tasks are forks of it, and live and die as processes of their own would."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.flows.flow_home import FLOW

CLIENT = FLOW.with_name("warm_task.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks of a warm process are for Linux"),
]
Task = Callable[..., "subprocess.Popen[str]"]

TELLS = """
import os, sys
from pathlib import Path
print("torch" in sys.modules, sys.argv[1:], sys.path[0], Path.cwd(), __name__)
print(os.environ["METAFLOW_RUN_ID"], sys.stdin.read())
print("wrong", file=sys.stderr)
sys.exit(7)
"""
WAITS = """
import os, signal, sys, time
from pathlib import Path
def end(*_):
    Path("ended").write_text("in order")
    sys.exit(3)
if len(sys.argv) > 1:
    signal.signal(signal.SIGTERM, end)
Path("pid.new").write_text(str(os.getpid()))
Path("pid.new").rename("pid")
time.sleep(60)
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    sys.path.insert(0, str(FLOW.parent))
    try:
        import warm
    finally:
        sys.path.pop(0)
    # pytest's own variable changes from test to test.
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_CURRENT_TEST")
        with warm._server() as address:
            yield address


@pytest.fixture
def task(address: str, tmp_path: Path) -> Iterator[Task]:
    """`task(source, *words)`: a process that stands for a task, in a folder of its own."""
    opened = ExitStack()

    def start(source: str, *words: str, at: str = address, **variables: str) -> subprocess.Popen[str]:
        script = tmp_path / "script.py"
        script.write_text(source)
        command = [sys.executable, "-I", "-S", str(CLIENT), at, sys.executable, str(script), *words]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environment = os.environ | {"METAFLOW_RUN_ID": "é", "PYTHONUNBUFFERED": "x", **variables}
        del environment["PYTEST_CURRENT_TEST"]
        started = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **streams)
        return opened.enter_context(started)

    with opened:
        yield start


def fork_of(folder: Path, wait_for: Callable[..., None]) -> int:
    wait_for((folder / "pid").exists, seconds=60)
    return int((folder / "pid").read_text())


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("warm", "changes"), [(True, {}), (False, {"at": "nobody"}), (False, {"HF_HOME": "/elsewhere"})], ids=str
)
def test_a_task_is_as_its_process_was_started(task: Task, tmp_path: Path, warm: bool, changes: dict[str, str]) -> None:
    """Words, folder, environment, streams and status; by itself where nobody is warm, or not in this environment."""
    started = task(TELLS, "a b", "--c", **changes)
    told, wrong = started.communicate("given", timeout=60)
    assert told == f"{warm} ['a b', '--c'] {tmp_path} {tmp_path} __main__\né given\n"
    assert wrong == "wrong\n"
    assert started.returncode == 7


def test_tasks_run_side_by_side(task: Task) -> None:
    begin = time.monotonic()
    several = [task("import time; time.sleep(2)") for _ in range(8)]
    assert [each.wait(60) for each in several] == [0] * 8
    assert time.monotonic() - begin < 14


def test_who_kills_the_tasks_process_kills_the_task(task: Task, tmp_path: Path, wait_for) -> None:
    started = task(WAITS)
    fork = fork_of(tmp_path, wait_for)
    assert fork != started.pid
    started.kill()
    wait_for(lambda: gone(fork), seconds=10)


def test_a_signal_goes_on_to_the_task(task: Task, tmp_path: Path, wait_for) -> None:
    started = task(WAITS, "in order")
    fork_of(tmp_path, wait_for)
    started.terminate()
    assert started.wait(10) == 3
    assert (tmp_path / "ended").read_text() == "in order"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_tasks_process_ends_as_the_task_does(task: Task, tmp_path: Path, wait_for, number: signal.Signals) -> None:
    started = task(WAITS)
    os.kill(fork_of(tmp_path, wait_for), number)
    assert started.wait(10) == -number


def test_what_a_task_raises_is_told_and_ends_it(task: Task) -> None:
    started = task("raise KeyError('what')")
    assert started.communicate(timeout=60)[1].endswith("KeyError: 'what'\n")
    assert started.returncode == 1


ENDS = """
import atexit, sys, threading, time
from pathlib import Path
kept = open("file", "w")
kept.write("kept")
atexit.register(lambda: print("registered"))
threading.Thread(target=lambda: (time.sleep(0.5), print("thread"))).start()
print("last", end=" ")
sys.exit("why")
"""


OURS = "import sys; sys.path[0] = {folder!r}\nimport warm_end\nwith warm_end.noted(): exec({source!r})\n"
TAKEN_APART = """
class Last:
    def __del__(self):
        print("taken apart")
last = Last()
"""


def test_a_task_of_a_users_code_ends_as_python_does(task: Task, tmp_path: Path) -> None:
    """After its threads and what it registered; what it wrote and did not close is in the file."""
    started = task(TAKEN_APART + ENDS)
    assert started.communicate(timeout=60) == ("last thread\nregistered\ntaken apart\n", "why\n")
    assert started.returncode == 1
    assert (tmp_path / "file").read_text() == "kept"


def test_a_task_of_our_code_ends_so_too_but_at_once(tmp_path: Path) -> None:
    program = OURS.format(folder=str(FLOW.parent), source=TAKEN_APART + ENDS)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("last thread\nregistered\n", "why\n", 1)
    assert (tmp_path / "file").read_text() == "kept"


STUCK = """
import os, threading, time
reader, writer = os.pipe()
file = open(writer, "wb")
threading.Thread(target=lambda: file.write(b"x" * 200_000), daemon=True).start()
time.sleep(0.3)
"""


def test_a_thread_that_writes_for_ever_keeps_no_task(tmp_path: Path) -> None:
    program = OURS.format(folder=str(FLOW.parent), source=STUCK).replace(
        "import warm_end", "import warm_end; warm_end.LONGEST = 1.0"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, timeout=30, check=False)
    assert done.returncode == 0


def test_no_signal_is_lost_however_early_it_comes(task: Task) -> None:
    for wait in (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08) * 3:
        started = task("import time; time.sleep(30)")
        time.sleep(wait)
        started.terminate()
        assert started.wait(10) == -signal.SIGTERM, wait


def test_a_warm_process_that_dies_leaves_the_task_to_itself(task: Task, tmp_path: Path) -> None:
    """It listened, but ended before it took the task on, as where an import fails."""
    address = f"test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")
        listener.listen()
        started = task(TELLS, at=address)
        time.sleep(1)
    assert started.communicate("", timeout=60)[0].startswith("False [] ")
    assert started.returncode == 7


def test_tasks_draw_other_random_numbers(task: Task) -> None:
    drawn = "import random, numpy, torch; print(random.random(), numpy.random.rand(), torch.rand(1).item())"
    first, second = (task(drawn).communicate(timeout=60)[0].split() for _ in range(2))
    assert len(first) == 3
    assert set(first).isdisjoint(second)
