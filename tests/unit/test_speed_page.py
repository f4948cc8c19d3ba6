"""docs/speed.md: made from what was measured, and true to the model that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.config.sections import DemoConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def test_the_page_is_what_was_measured(benchmarks):
    import against_trl_table

    assert (ROOT / "docs" / "speed.md").read_text("utf-8") == against_trl_table.page()


def test_every_document_tells_one_size_of_the_demos_model(benchmarks):
    import against_trl_cases

    demo = DemoConfig()
    words = 5 + 4 + 100  # of the chat, special ones, numbers
    layer = 4 * demo.hidden_size**2 + 3 * demo.hidden_size * 4 * demo.hidden_size + 2 * demo.hidden_size
    size = f"{(2 * words * demo.hidden_size + demo.layers * layer + demo.hidden_size) / 1e6:.2f}"
    assert f"of {size} M parameters" in against_trl_cases.CASES["demo"].what
    assert f"a Llama of {size} M parameters" in (ROOT / "README.md").read_text("utf-8")
    assert f"a Llama of {size} M, made in the run" in (ROOT / "docs" / "presets.md").read_text("utf-8")
