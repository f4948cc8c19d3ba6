"""What tests of IFBench share."""

from __future__ import annotations

import importlib.util

import pytest

from components.benchmarking.ifbench import Checked, Instruction, Task
from components.data.records import Prompt

needs_ifbench = pytest.mark.skipif(
    importlib.util.find_spec("ifbench") is None,
    reason="needs IFBench: pip install --no-deps -r requirements-ifbench.txt",
)
KEPT, BROKEN = Checked((True,), (True,)), Checked((False,), (False,))


def task(name, prompt="Write.", **settings):
    """A prompt with one instruction."""
    return Task(Prompt("0", ({"role": "user", "content": prompt},)), (Instruction(name, settings),))
