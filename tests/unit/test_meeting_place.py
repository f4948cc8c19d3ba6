"""Processes that train together find each other whatever the folder is called in which they meet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.forked import forked

WORKER = """
import sys
from pathlib import Path
from torch import distributed as dist
from components.stages import training_processes

folder, rank = Path(sys.argv[1]), sys.argv[2]
training_processes._meet("gloo", (folder / "meeting").as_uri(), 0.5)
(folder / f"met-{rank}").write_text(str(dist.get_world_size()))
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a b", "a#50%", "a%20b?c;d", "caf\u00e9"])
def test_the_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    group = [
        forked([sys.executable, "-c", WORKER, str(folder), rank], env={"RANK": rank, "WORLD_SIZE": "2"})
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait(60) for process in group] == [0, 0]
    finally:
        for process in group:
            process.kill()
    assert sorted(path.name for path in folder.iterdir()) == ["met-0", "met-1"]  # the meeting's file is gone
    assert (folder / "met-0").read_text() == "2"
