"""A step on two threads computes the same bits every time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from components.run_config import checked
from components.stages.context import open_workspace

ROWS, WIDTH, READS, TRIALS = 8, 256, 4096, 20


@pytest.fixture
def on_two_threads(tmp_path) -> Iterator[None]:
    """As a step with two `cpu` begins its work."""
    before = torch.get_num_threads()
    config = checked({"demo": {}, "resources": {"train": {"cpu": 2}}})
    with open_workspace(config, str(tmp_path), "train") as work:
        work.use_threads()
        assert torch.get_num_threads() == 2
        yield
    torch.set_num_threads(before)
    torch.use_deterministic_algorithms(False)


def gradient(weights: torch.Tensor) -> torch.Tensor:
    """Of reading few rows many times, as log-probs read hidden states: the sum of what each read gives back."""
    table = torch.zeros(ROWS, WIDTH, requires_grad=True)
    read = table[torch.arange(READS) % ROWS]
    (read * weights).sum().backward()
    assert table.grad is not None
    return table.grad


def test_the_gradient_of_repeated_reads_has_one_order_of_adding(on_two_threads: None) -> None:
    weights = torch.randn(READS, WIDTH, generator=torch.Generator().manual_seed(0))
    found = [gradient(weights) for _ in range(TRIALS)]
    exact = weights.double().view(-1, ROWS, WIDTH).sum(0)
    torch.testing.assert_close(found[0].double(), exact, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(found[0], other) for other in found)
