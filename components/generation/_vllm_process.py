"""Runs vLLM's worker and sees to it that nothing of it is left, however the worker or the task ends.

The worker is asked to end by the end of its standard input, which the system brings about when the task is killed. It
then kills its own helpers; only the tracker of shared memory continues for the moment it takes to free that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from components.config.errors import EngineError
from components.runtime.progress import Progress, with_token_rate

WORKER = "components.generation._vllm_worker"
GRACE = 5.0  # seconds to end in
WHOSE = {"generation": "policy", "judge": "judge's model"}  # what vLLM runs, by the section that asks


def run(folder: Path, total: int, progress: Progress, *, key: str = "generation", cache: Path | None = None) -> None:
    """Runs the worker in a folder that holds its request, for `total` responses; `key` is the section that asks.

    vLLM keeps what it compiles in `cache`, by default where it does by itself.

    Raises EngineError when vLLM does not take the model or the settings, and when it fails.
    """
    log = folder / "vllm.log"
    with log.open("w") as sink, _worker(folder, sink, cache) as process:
        assert process.stdout is not None
        show = with_token_rate(progress, total)
        for line in process.stdout:
            report = json.loads(line)
            if "refused" in report:
                raise EngineError(
                    f"{key}.engine: vLLM does not take this {WHOSE[key]}: {report['refused'][:1000]}\n"
                    "Change the engine's settings, or use engine: {name: transformers}."
                )
            show(report["done"], report["tokens"])
    if process.returncode != 0:
        raise EngineError(
            f"{key}.engine: vLLM {_end(process.returncode)}. Where memory is short, lower "
            f"gpu_memory_utilization, kv_cache_mb or batch_size. Its log ends with\n{_tail(log)}"
        )


def _end(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _tail(log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").splitlines()[-20:]
    return "\n".join(line[:300] for line in lines)


@contextmanager
def _worker(folder: Path, log: TextIO, cache: Path | None) -> Iterator[subprocess.Popen[str]]:
    """The worker, leader of a process group. It ends by itself, or because the block is left by an error."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", WORKER],  # -P: the folder is no place to import from
        cwd=folder,
        env=_environment() | ({} if cache is None else {"VLLM_CACHE_ROOT": str(cache)}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        try:
            yield process
            process.wait()
        finally:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            _kill_group(process.pid)


def _kill_group(group: int) -> None:
    """Kills what does not end by itself."""
    end = time.monotonic() + GRACE
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)


def _environment() -> dict[str, str]:
    import torch

    root = str(Path(__file__).parents[2])  # where `components` lies
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "HF_HUB_OFFLINE": "1",  # all it needs is in the folder
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no process for the engine core alone
        "VLLM_NO_USAGE_STATS": "1",
    }
