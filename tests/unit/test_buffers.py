"""Freed buffers stay with the process, or go back to the system, as glibc does on its own."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIZE = 200  # MiB, above any threshold that glibc adapts
CODE = f"""
import sys
from components.runtime import buffers
import numpy as np
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
if sys.argv[1] == "reuse":
    buffers.reuse()
before = resident()
large = np.ones({SIZE} * 2**17)
del large
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
@pytest.mark.parametrize(("mode", "kept"), [("reuse", True), ("default", False)])
def test_freed_buffers_are_kept(mode, kept):
    grown = subprocess.run([sys.executable, "-c", CODE, mode], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (float(grown.stdout) > 0.9 * SIZE) is kept
