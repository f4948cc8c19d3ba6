"""Fixtures of the unit tests: tiny models of several architectures, and tokenizers for them.

A fixture gives a function, so that tests which need no model do not import torch.
"""

from __future__ import annotations

import pytest

from support.models import words


@pytest.fixture(scope="session")
def make_model():
    """`make_model(name, seed=0, **config)`: see `support.models.words`."""
    return words.make_model


@pytest.fixture(params=words.EACH)
def model(request, make_model):
    """Each architecture in turn."""
    return make_model(request.param)


@pytest.fixture(scope="session")
def make_tokenizer():
    """`make_tokenizer(template=None, around=None, …)`: see `support.models.words`."""
    return words.make_tokenizer


@pytest.fixture(scope="session")
def make_policy(make_model, make_tokenizer):
    """`make_policy(model, **fields)`: a policy around a model, or around an architecture's name."""
    from components.policy.model import Policy

    def make(model="llama", *, eos_ids=(words.EOS, words.OTHER_EOS), precision="fp32"):
        model = make_model(model) if isinstance(model, str) else model
        return Policy(model, make_tokenizer(), eos_ids, words.PAD, precision)

    return make
