"""Training where memory is scarce: micro-batches that do not fit are halved, with the same result."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from components.algorithms.wind import Wind
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.checkpoints import SETTINGS, N, ended
from support.models.tiny import make_policy, make_scored

pytestmark = pytest.mark.thorough


class Scarce(Wind):
    """Memory for `rows` prompts at once, as a device of its size has it."""

    rows: int
    error: str = "cuda"
    beta: float = 0.02
    eta: float = 10.0
    clip: float | None = None

    def loss(self, group):
        if len(group.logp) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory.") if self.error == "cuda" else RuntimeError(self.error)
        return super().loss(group)


def fit_scarce(algorithm):
    policy = make_policy(dtype=torch.float64)
    settings = replace_settings(batch_size=12, micro_batch_size=12)
    state = TrainingState(policy, make_optimizer(policy, settings), 12)
    data = make_scored(make_policy(dtype=torch.float64), n=N, k=3)
    return state, train(state, data, algorithm, Schedule(settings, 1, 1, seed=0))


def replace_settings(**changes):
    return SETTINGS.model_copy(update=changes)


@pytest.mark.parametrize("error", ["cuda", "[enforce fail] DefaultCPUAllocator: can't allocate memory: 8 bytes"])
@pytest.mark.parametrize(("rows", "size"), [(12, 12), (6, 6), (5, 3), (1, 1)])
def test_micro_batches_are_halved_until_they_fit(rows, size, error):
    """The optimiser's step is that of all twelve prompts, whatever fits."""
    state, figures = fit_scarce(Scarce(rows=rows, error=error))
    assert state.micro_batch_size == size
    plain, expected = fit_scarce(Wind(beta=0.02, eta=10.0, clip=None))
    assert figures == pytest.approx(expected, rel=1e-9)
    for name, tensor in ended(plain)[0].items():
        torch.testing.assert_close(ended(state)[0][name], tensor, rtol=1e-9, atol=1e-12)


def test_a_prompt_that_does_not_fit_alone_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        fit_scarce(Scarce(rows=0))


def test_other_errors_are_not_retried():
    with pytest.raises(RuntimeError, match="of another kind"):
        fit_scarce(Scarce(rows=6, error="of another kind"))


LIMITED = """
import resource, torch
from components.training.loop import out_of_memory
torch.zeros(1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), -1))
try:
    torch.empty(1 << 30)
except RuntimeError as error:
    print(out_of_memory(error))
"""


def test_torchs_own_error_on_a_host_without_memory_is_recognised():
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
