"""Whether memory and disk have room for dequantised weights."""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path

from components.policy.gguf_files.header import Header

FP32 = 4  # bytes
GB = 1e9
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
# Of both versions of cgroups: the files with limit, use and statistics, and the cache in these that can be taken back.
LAYOUTS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def check(header: Header, folder: Path) -> None:
    """Raises PolicyError if dequantised weights would not fit into memory, or not into the file system of `folder`."""
    sizes = [FP32 * prod(shape) for shape in header.shapes.values()]
    weights, largest = sum(sizes), max(sizes)
    # All weights, and of the tensor at work what numpy and torch make of it on the way.
    needed, free = weights + 3 * largest, available_memory()
    if free is not None and needed > free:
        raise header.error(
            f"takes {needed / GB:.1f} GB of memory as fp32 weights, and {free / GB:.1f} GB are available. Use a "
            "machine with more (resources.start), or a smaller model."
        )
    free = shutil.disk_usage(folder).free
    if weights > free:
        raise header.error(
            f"takes {weights / GB:.1f} GB of disk as fp32 weights, and {folder} has {free / GB:.1f} GB left. Point "
            "TMPDIR to a larger disk."
        )


def available_memory() -> int | None:
    """Bytes that this process may still take, of the machine and of its container; None where neither is known."""
    found = [_of_machine(), *(_of_container(*layout) for layout in LAYOUTS)]
    return min((free for free in found if free is not None), default=None)


def _of_machine() -> int | None:
    if not MEMINFO.is_file():
        return None
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text("ascii").splitlines())
    return 1024 * int(lines["MemAvailable"].split()[0])


def _of_container(limit: str, used: str, stat: str, cache: str) -> int | None:
    if not (CGROUP / limit).is_file() or (most := (CGROUP / limit).read_text("ascii").strip()) == "max":
        return None
    counts = dict(line.split() for line in (CGROUP / stat).read_text("ascii").splitlines())
    return int(most) - int((CGROUP / used).read_text("ascii")) + int(counts[cache])
