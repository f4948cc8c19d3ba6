"""The gradient of log-probs through the head, against torch's own in float64."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from components.policy.head import token_logprobs
from support.models.tiny import make_policy


class Calls(TorchDispatchMode):
    """Counts the operations of one name."""

    def __init__(self, name):
        super().__init__()
        self.name, self.count = name, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.name() == self.name
        return function(*args, **(kwargs or {}))


def of_plain(model, hidden, targets, unused, temperature):
    """The same, as the definition reads, with all logits in memory."""
    logits = model.get_output_embeddings()(hidden).masked_fill(unused, -torch.inf) / temperature
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


@pytest.mark.parametrize("chunk", [20, 60, 2**24], ids=["single-rows", "threes", "all"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradients_are_those_of_the_definition(chunk, temperature):
    model = make_policy(dtype=torch.float64).model
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([4, 5, 5, 19, 6, 4, 18])
    unused = torch.arange(20) < 3
    weights = torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5, 0.0, -1.0], dtype=torch.float64)
    head = model.get_output_embeddings().weight
    expected_value = of_plain(model, hidden, targets, unused, temperature)
    expected = torch.autograd.grad((expected_value * weights).sum(), [hidden, head])
    value = token_logprobs(model, hidden, targets, chunk, unused, temperature)
    found = torch.autograd.grad((value * weights).sum(), [hidden, head])
    assert_close(value, expected_value, rtol=1e-12, atol=1e-12)
    assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_the_normaliser_is_computed_once_for_each_chunk():
    """The chunk's logits are there twice, the sum over them is not needed again."""
    model = make_policy().model
    hidden = torch.randn(6, 16, requires_grad=True)
    with Calls("aten::logsumexp") as sums, Calls("aten::mm") as products:
        token_logprobs(model, hidden, torch.arange(6), 40).sum().backward()
    assert sums.count == 3  # 6 rows of 20 logits, 40 at a time
    assert products.count == 3 * 4  # forward, again, and the gradients of hidden states and weights
