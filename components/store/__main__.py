"""House-keeping of the weights store.

    wind store ls                          every file: size, age, and a run that needs it
    wind store du                          how much each run refers to
    wind store verify [FLOW/RUN]           reads files and names those that are missing or damaged
    wind store gc --older-than 30d         what no run of the last 30 days needs
    wind store gc --older-than 30d --delete   …and removes it

The store is that of the Metaflow datastore used from here; the runs are those of which it has notes, whoever ran them
and wherever. No artifact is read.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Sequence

from components.config.errors import StoreError
from components.runtime.terminal import Parser, command, plain_errors, visible, waiting
from components.store import Store, open_store, store_root
from components.store.housekeeping import DAY, Uses, damages, garbage, refuse_unknown_names, remove, run_sizes
from components.store.references import uses

UNITS = {"h": 3600.0, "d": DAY, "w": 7 * DAY}


def default_root(datastore: str | None) -> str:
    """The store of Metaflow's datastore `datastore`, by default the one that is configured.

    Raises StoreError when there is none.
    """
    from metaflow.metaflow_config import DEFAULT_DATASTORE
    from metaflow.plugins import DATASTORES

    wanted = datastore or DEFAULT_DATASTORE
    kinds = [kind for kind in DATASTORES if wanted == kind.TYPE]
    root = kinds[0].get_datastore_root_from_config(print, create_on_absent=False) if kinds else None
    if not root:
        raise StoreError(
            f"the {wanted} datastore has no place here. Go to the directory that the flows were run in, set "
            "METAFLOW_DATASTORE_SYSROOT_S3 for `--datastore s3`, or name the store with --root."
        )
    return store_root(wanted, root)


def seconds(text: str) -> float:
    """An age such as 12h, 30d or 4w."""
    found = re.fullmatch(r"([0-9]{1,6})([hdw])", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not an age such as 12h, 30d or 4w")
    return int(found[1]) * UNITS[found[2]]


def human(size: float) -> str:
    """Bytes with a unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def age(moment: float) -> str:
    """Time since `moment`, in its largest unit; `now` for what lasts."""
    if moment == math.inf:
        return "now"
    passed = max(0.0, time.time() - moment)
    return f"{passed / DAY:.0f} d" if passed >= 2 * DAY else f"{passed / 3600:.0f} h"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; those of sizes, counts and ages to the right."""
    columns = []
    for title, *cells in zip(header, *rows, strict=True):
        width = max(map(len, [title, *cells]))
        to_left = title in ("file", "run", "needed by")
        columns.append([cell.ljust(width) if to_left else cell.rjust(width) for cell in [title, *cells]])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def needed_by(used: Uses, sha256: str) -> str:
    """The latest use of a blob and how many runs use it."""
    those = used.get(sha256)
    if not those:
        return "no run"
    more = len({use.run for use in those}) - 1
    return plain(f"{those[0].run} {those[0].artifact}: {those[0].name}{f' and {more} more' if more else ''}")


def plain(text: str) -> str:
    """What other users wrote into notes, on one line and without what would control the terminal."""
    return visible(text).replace("\n", "\\n")


def list_files(store: Store, used: Uses) -> None:
    """`ls`."""
    rows = [(b.sha256[:16], human(b.size), age(b.used), needed_by(used, b.sha256)) for b in store.blobs()]
    print(table(["file", "size", "age", "needed by"], rows))


def usage(store: Store, used: Uses) -> None:
    """`du`."""
    blobs = list(store.blobs())
    rows = [(plain(r.run), age(r.active), str(r.files), human(r.size), human(r.alone)) for r in run_sizes(used)]
    free = [blob for blob in blobs if blob.sha256 not in used]
    print(table(["run", "active", "files", "size", "not shared"], rows))
    print(f"\n{store.root} holds {len(blobs)} files, {human(sum(b.size for b in blobs))}")
    print(f"of these no run needs {len(free)}, {human(sum(b.size for b in free))}")
    print(f"unfinished: {len(list(store.unfinished()))}")


def verify(store: Store, used: Uses, run: str | None) -> int:
    """`verify`; 1 if something is wrong."""
    states = list(damages(store, used, run))
    wrong = ["\n".join(map(plain, state.splitlines())) for state in states if state]
    print("\n".join([*wrong, f"{len(states)} files read, {len(wrong)} of them missing or damaged"]))
    return 1 if wrong else 0


def collect(store: Store, used: Uses, options: argparse.Namespace) -> None:
    """`gc`."""
    refuse_unknown_names(store, used, options.forget)
    found = garbage(store, used, options.older_than)
    rows = [(b.sha256[:16], human(b.size), age(b.used), needed_by(used, b.sha256)) for b in found.blobs]
    if rows:
        print(table(["file", "size", "age", "needed by"], rows))
    if options.delete:
        found = remove(store, found, options.older_than, options.forget)
    done = "removed" if options.delete else "would be removed; `--delete` does it"
    size = human(sum(blob.size for blob in found.blobs))
    also = f"{len(found.unfinished)} unfinished ones and {len(found.notes)} notes"
    print(f"{len(found.blobs)} files, {size}, {also}: {done}")


def parser(prog: str) -> Parser:
    """The command line."""
    shared = Parser(add_help=False)
    shared.add_argument("--root", help="the store itself; default: that of the datastore")
    shared.add_argument("--datastore", choices=["local", "s3"], help="default: the one Metaflow is configured for")
    described = argparse.RawDescriptionHelpFormatter
    top = Parser(prog=prog, description=__doc__, formatter_class=described)
    actions = top.add_subparsers(dest="action", required=True)
    for name, what in (("ls", "list files"), ("du", "sizes by run")):
        actions.add_parser(name, parents=[shared], help=what)
    reading = actions.add_parser("verify", parents=[shared], help="read files and name damaged ones")
    reading.add_argument("run", metavar="FLOW/RUN", nargs="?", help="default: every file")
    cleaning = actions.add_parser("gc", parents=[shared], help="remove what no run needs")
    cleaning.add_argument("--older-than", type=seconds, required=True, metavar="AGE", help="12h, 30d, 4w")
    cleaning.add_argument("--delete", action="store_true", help="act; without it only tell")
    forget = "a run that left no note, as those of earlier versions; what it keeps may go"
    cleaning.add_argument("--forget", action="append", default=[], metavar="FLOW/RUN", help=forget)
    return top


def run(options: argparse.Namespace) -> int:
    """Does what was asked; the exit status. Notes that cannot be read are named at the end, and stop `gc`."""
    if options.root is not None and "://" not in options.root and not os.path.isdir(options.root):  # noqa: PTH112, Path raises for long names
        raise StoreError(f"--root {options.root}: is no directory. Name that of a store, as `ls` tells it.")
    store = open_store(options.root or default_root(options.datastore))
    unreadable: list[StoreError] = []
    with waiting("reading what runs have noted"):
        used = uses(store) if options.action == "gc" else uses(store, unreadable.append)
    print(f"{store.root}\n")
    status = 0
    if options.action == "verify":
        status = verify(store, used, options.run)
    elif options.action == "gc":
        collect(store, used, options)
    else:
        (list_files if options.action == "ls" else usage)(store, used)
    for error in unreadable:
        print(visible(f"error: {error}"), file=sys.stderr)
    return 1 if unreadable else status


@command
def main(arguments: list[str] | None = None, prog: str = "wind store") -> None:
    """The command line; see `plain_errors`."""
    with plain_errors():
        status = run(parser(prog).parsed(arguments))
    sys.exit(status)


if __name__ == "__main__":
    main()
