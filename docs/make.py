"""Makes what in docs/ is generated: configuration.md, the table of judges' costs, and the pictures of a small run.

python docs/make.py [--run WindFlow/RUN]

Without --run it runs the demo first, in a datastore of its own, which takes some two minutes. The pictures are taken by
Chromium.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # Chromium is spoken to as in the tests

from support.chromium import Browser, browser, installed  # noqa: E402 - found by the line above

PICTURES = ROOT / "docs" / "pictures"
FLOW = str(ROOT / "flows" / "wind_flow.py")
COSTS = ("<!-- costs: make docs -->\n", "<!-- end of costs -->")  # around the table in judges.md
HEIGHT = 1000  # pixels of the pictures of pages that fill the window
CARD_HEIGHT = 3400


def ours(*words: str, folder: Path | None = None) -> str:
    """What a command of this Python prints."""
    done = subprocess.run([sys.executable, *words], cwd=folder or ROOT, stdout=subprocess.PIPE, check=True, text=True)
    return done.stdout


def made(folder: Path) -> str:
    """A new run of the demo, as FLOW/RUN."""
    file = folder / "run_id"
    ours(FLOW, "run", "--run-id-file", str(file))
    return f"WindFlow/{file.read_text()}"


def written(name: str, begin: str, end: str, text: str) -> None:
    """Puts a text between two lines of a document."""
    path = ROOT / "docs" / name
    before, _, rest = path.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    path.write_text(f"{before}{begin}{text}{end}{after}", "utf-8")


def picture(opened: Browser, page: Path, name: str, *, height: int, width: int = 1400, tab: str = "") -> None:
    """A page in light and in dark, as docs/pictures/NAME.png and NAME-dark.png."""
    for dark in (False, True):
        opened.resize(width, height, dark=dark)
        opened.open(page)
        if tab:
            opened.run(f"document.getElementById({tab!r}).click()")
        # A card draws itself by a script of 1 MB.
        opened.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 3000)))")
        opened.picture(PICTURES / f"{name}{'-dark' if dark else ''}.png")


def pictures(run: str, folder: Path) -> None:
    """The report card and the page of samples of a run."""
    number = run.rpartition("/")[2]
    card, samples = folder / "card.html", folder / "samples.html"
    ours(FLOW, "card", "get", f"{number}/end", str(card))
    ours("-m", "components.cli", "samples", run, str(samples))
    PICTURES.mkdir(exist_ok=True)
    with browser(folder / "profile") as opened:
        picture(opened, samples, "samples", height=HEIGHT, tab="tab-held_out")
        picture(opened, card, "card", height=CARD_HEIGHT)


def main() -> None:
    """Writes all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", metavar="WindFlow/RUN", help="a finished run to take the pictures of; default: a new one"
    )
    given = parser.parse_args()
    (ROOT / "docs/configuration.md").write_text(ours("-m", "components.cli", "schema", "--markdown"), "utf-8")
    written("judges.md", *COSTS, ours("-c", "from components.judging import costs; print(costs.table(), end='')"))
    if installed() is None:
        sys.exit("error: the pictures need Chromium. Run apt-get install chromium.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.run is None:
            kept = {"METAFLOW_HOME": name, "METAFLOW_DATASTORE_SYSROOT_LOCAL": name}
            os.environ |= {**kept, "METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local"}
        pictures(given.run or made(folder), folder)


if __name__ == "__main__":
    main()
