"""The example notebook, executed as Jupyter does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.flows.wind_runs import shell

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook" / "run.ipynb"


def executed(home: Path) -> dict[str, str]:
    """What each code cell shows when the notebook runs in a folder, by the cell's id; stored it shows nothing."""
    stored = json.loads(NOTEBOOK.read_text("utf-8"))
    assert all(cell.get("outputs", []) == [] for cell in stored["cells"])
    shutil.copy(NOTEBOOK, home / "run.ipynb")
    result = shell(["python", "-c", "from nbclient.cli import main; main()", "--inplace", "run.ipynb"], home)
    assert result.returncode == 0, result.stdout + result.stderr
    cells = json.loads((home / "run.ipynb").read_text("utf-8"))["cells"]
    return {cell["id"]: "".join(map(str, cell["outputs"])) for cell in cells if cell["cell_type"] == "code"}
