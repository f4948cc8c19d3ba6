"""The weights store on S3 against plain boto3: throughput, memory, and what a second save sends.

    eval "$(infra/s3/server env)"    # or the variables of another server with a bucket
    python benchmarks/store.py [--megabytes 2000] [--files 4] [--rounds 3]

Each figure is of a process of its own; the two sides alternate, because shared machines drift. Memory is the peak
above what the process had after its imports and its first request.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MB = 1_000_000
CHUNK = 1 << 20


def memory(field: str) -> float:
    """MB of this process: VmRSS now, VmHWM at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / MB


def measured(client: Any, work: Callable[[], object]) -> dict[str, float]:
    """Seconds, extra MB of memory, and MB in the bodies of the client's requests."""
    sent = 0.0

    def count(request: Any, **_: object) -> None:
        nonlocal sent
        sent += int(request.headers.get("Content-Length") or 0) / MB

    client.meta.events.register("before-send.s3", count)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, begin = memory("VmRSS"), time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "memory": memory("VmHWM") - before, "sent": sent}


def one_side(side: str, root: str, source: Path) -> None:
    """Saves and loads the files of `source` by one side, and prints what that took."""
    from components.store import open_store
    from components.store.s3_client import connect

    store, client = open_store(root), connect(root)
    store.check()
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    files = sorted(source.iterdir())
    out = source.parent / "out"
    out.mkdir()
    figures = {}
    if side == "store":
        manifests = []
        figures["save"] = measured(client, lambda: manifests.append(store.put(source)))
        figures["save again"] = measured(client, lambda: manifests.append(store.put(source)))
        figures["load"] = measured(client, lambda: store.get(manifests[0], out))
        for entry in manifests[0].values():
            store.remove(entry["sha256"])
    else:
        keys = {path: f"{prefix}/plain/{path.name}" for path in files}
        figures["save"] = measured(client, lambda: [client.upload_file(str(p), bucket, k) for p, k in keys.items()])
        figures["load"] = measured(
            client, lambda: [client.download_file(bucket, k, str(out / p.name)) for p, k in keys.items()]
        )
        for key in keys.values():
            client.delete_object(Bucket=bucket, Key=key)
    shutil.rmtree(out)
    print(json.dumps(figures))


def run(side: str, root: str, source: Path) -> dict[str, dict[str, float]]:
    """Figures of one side, from a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--root", root, "--source", str(source)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, dict[str, float]] = json.loads(done.stdout)
    return figures


def report(sides: dict[str, list[dict[str, dict[str, float]]]], total: float) -> None:
    """Medians over the rounds."""

    def median(side: str, action: str, figure: str) -> float:
        return statistics.median(one[action][figure] for one in sides[side])

    for action in ("save", "load"):
        plain, store = (median(side, action, "seconds") for side in ("plain", "store"))
        ratio = statistics.median(
            a[action]["seconds"] / b[action]["seconds"] for a, b in zip(sides["plain"], sides["store"], strict=True)
        )
        print(
            f"{action}: boto3 {total / plain:.0f} MB/s with {median('plain', action, 'memory'):.0f} MB, "
            f"store {total / store:.0f} MB/s with {median('store', action, 'memory'):.0f} MB: "
            f"{ratio:.0%} of the throughput"
        )
    again = median("store", "save again", "sent")
    print(f"save again: {median('store', 'save again', 'seconds'):.1f} s, {again:.4f} MB sent ({again / total:.4%})")


def main() -> None:
    """Times both sides and prints the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["store", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--root", default=f"{os.environ.get('METAFLOW_DATASTORE_SYSROOT_S3', '')}/benchmark")
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.root.startswith("s3://"):
        parser.error("set METAFLOW_DATASTORE_SYSROOT_S3, as `infra/s3/server env` prints it, or give --root s3://…")
    if options.side:
        one_side(options.side, options.root, options.source)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for number in range(options.files):
            with (source / f"model-{number}.safetensors").open("wb") as file:
                for _ in range(options.megabytes * MB // options.files // CHUNK):
                    file.write(os.urandom(CHUNK))
        total = sum(path.stat().st_size for path in source.iterdir()) / MB
        sides: dict[str, list[dict[str, dict[str, float]]]] = {"plain": [], "store": []}
        for number in range(options.rounds):
            for side, figures in sorted(sides.items(), reverse=number % 2 == 1):
                figures.append(run(side, options.root, source))
                print(f"round {number + 1}, {side}: {json.dumps(figures[-1])}", file=sys.stderr, flush=True)
        report(sides, total)


if __name__ == "__main__":
    main()
