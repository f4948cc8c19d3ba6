"""What functions return: read as the number that it is, or refused by prompt and response."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges.verifier import Verifier

PROMPTS = [Prompt(name, ({"role": "user", "content": "?"},)) for name in ("one", "two")]
VALUES = {
    "int": 3,
    "bool": True,
    "decimal": Decimal("0.25"),
    "fraction": Fraction(1, 8),
    "numpy float": np.float16(1.5),
    "numpy int": np.uint8(7),
    "numpy bool": np.bool_(True),
    "numpy array": np.array(2.5),
    "long double": np.longdouble(0.5),
    "tensor": torch.tensor(0.75),
    "tensor with a gradient": torch.tensor(1.25, requires_grad=True),
    "bool tensor": torch.tensor(True),
    "bfloat16": torch.tensor(0.5, dtype=torch.bfloat16),
    "least": 5e-324,
    "huge": 10**400,
    "largest float": 1.7e308,
    "lowest float": -1.7e308,
    "beyond": np.float64(2e100),
    "large part": {"score": 1, "long": 1e101},
    "large score": {"score": -1e101, "long": 1},
    "nan": float("nan"),
    "inf": -np.inf,
    "decimal nan": Decimal("NaN"),
    "signalling nan": Decimal("sNaN"),
    "decimal inf": Decimal("Infinity"),
    "huge decimal": Decimal("1e999"),
    "tensor nan": torch.tensor(float("nan")),
    "complex": 1 + 0j,
    "numpy complex": np.complex64(1),
    "text": "1",
    "bytes": b"1",
    "none": None,
    "list": [1],
    "array": np.array([1.0]),
    "matrix": torch.ones(1, 1),
    "date": np.datetime64("2024-01-01"),
    "time": np.timedelta64(5, "s"),
    "numpy text": np.str_("1"),
    "masked": np.ma.masked,
    "masked array": np.ma.array(1.0, mask=True),
    "tensor without data": torch.ones((), device="meta"),
    "digits inside": [10**5000],
    "other rules": type("Odd", (float,), {"__float__": lambda _: "x"})(1),
    "many names": {f"name{number}": 1 for number in range(1000)},
    "digits as a name": {10**5000: 1},
    "generator": (score for score in [1]),
    "function": len,
    "long text": "x" * 10_000,
}


def value(response, prompt):
    return VALUES[response]


def values(responses, prompts):
    return VALUES[responses[0]] if responses[0] in VALUES else RETURNED[responses[0]]


def score(response, **settings):
    return Verifier(function=f"{__name__}:value", **settings).judge(PROMPTS, [["int", "int"], ["int", response]])


@pytest.mark.parametrize(
    ("response", "number"),
    [
        *(("int", 3), ("bool", 1), ("decimal", 0.25), ("fraction", 0.125), ("numpy float", 1.5), ("numpy int", 7)),
        *(("numpy bool", 1), ("numpy array", 2.5), ("long double", 0.5), ("tensor", 0.75)),
        *(("tensor with a gradient", 1.25), ("bool tensor", 1), ("bfloat16", 0.5), ("least", 5e-324)),
    ],
)
def test_numbers_of_every_kind(response, number):
    assert score(response).reward.tolist() == [[3, 3], [3, number]]


@pytest.mark.parametrize(
    ("response", "shown"),
    [
        ("huge", "a whole number of 1329 bits, which no float holds"),  # log2(10**400) = 1328.8
        *(("nan", "nan"), ("inf", "-inf"), ("decimal nan", "Decimal('NaN')"), ("signalling nan", "Decimal('sNaN')")),
        *(("decimal inf", "Decimal('Infinity')"), ("huge decimal", "Decimal('1E+999')"), ("tensor nan", "tensor(nan)")),
        *(("complex", "(1+0j)"), ("text", "'1'"), ("bytes", "b'1'"), ("none", "None"), ("list", "[1]")),
        *(("array", "array([1.])"), ("matrix", "tensor([[1.]])"), ("function", "<built-in function len>")),
        ("generator", "a generator, as a function that yields does"),
        ("long text", "'" + 199 * "x" + "…"),
        ("digits inside", "a value of type list that Python does not write out"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_no_finite_number(response, shown, workers):
    with pytest.raises(JudgeError) as caught:
        score(response, workers=workers)
    assert str(caught.value) == (
        f"prompt 'two', response 1: {__name__}:value returned {shown}. Make it return a finite number."
    )


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("largest float", "returned 1.7e+308"),
        ("lowest float", "returned -1.7e+308"),
        ("beyond", "returned 2e+100"),
        ("large part", "'long' returned 1e+101"),
        ("large score", "'score' returned -1e+101"),
    ],
)
def test_numbers_whose_sums_would_be_none(response, said):
    with pytest.raises(JudgeError) as caught:
        score(response)
    assert str(caught.value).startswith("prompt 'two', response 1: ")
    assert str(caught.value).endswith(f"{said}. Make it a number from -1e+100 to 1e+100.")


@pytest.mark.parametrize(
    "response",
    ["numpy complex", "date", "time", "numpy text", "masked", "masked array", "tensor without data", "other rules"],
)
def test_what_looks_like_a_number(response):
    with pytest.raises(JudgeError, match=r"(?s)^prompt 'two', response 1: .* Make it return a finite number\.$"):
        score(response)


@pytest.mark.parametrize(
    ("response", "names"),
    [
        ("digits as a name", "a whole number of 16610 bits"),
        ("many names", "'name0', 'name1'"),
    ],  # log2(10**5000) = 16609.6
)
def test_names_of_a_dict_without_score(response, names):
    with pytest.raises(JudgeError, match=f"returned a dict without 'score'.* its names: {names}") as caught:
        score(response)
    assert len(str(caught.value)) < 500


class Unordered:
    """Has a length, and nothing in it can be taken."""

    def __len__(self):
        return 2


RETURNED = {
    "only a length": Unordered(),
    "tuple": (1, 2),
    "one array": np.array([1.0, 2.0]),
    "one tensor": torch.tensor([1.0, 2.0]),
    "short": [1],
    "long": [1, 2, 3],
    "two characters": "12",
    "dict": {"score": 1, "part": 2},
    "set": {1, 2},
    "lazy": map(float, [1, 2]),
    "nan at the end": [1, float("nan")],
}


def listed(response):
    judge = Verifier(function=f"{__name__}:values", batch_size=2)
    return judge.judge(PROMPTS[:1], [[response, "other"]])


@pytest.mark.parametrize("response", ["tuple", "one array", "one tensor"])
def test_lists_of_every_kind(response):
    assert listed(response).reward.tolist() == [[1, 2]]


BOTH = "prompt 'one', response 0 to prompt 'one', response 1"


@pytest.mark.parametrize(
    ("response", "where", "said"),
    [
        ("short", BOTH, "returned 1 scores for 2 responses. Return one for each, in order."),
        ("long", BOTH, "returned 3 scores for 2 responses. Return one for each, in order."),
        ("two characters", BOTH, "returned '12'. Make it return a list with a score for each response."),
        ("dict", BOTH, "returned {'score': 1, 'part': 2}. Make it return a list with a score for each response."),
        ("only a length", BOTH, "returned <"),
        ("set", BOTH, "returned {1, 2}. Make it return a list with a score for each response."),
        ("int", BOTH, "returned 3. Make it return a list with a score for each response."),
        ("tensor", BOTH, "returned tensor(0.7500). Make it return a list with a score for each response."),
        ("generator", BOTH, "returned a generator, as a function that yields does. Make it return a list"),
        ("lazy", BOTH, "returned <map object at"),
        ("nan at the end", "prompt 'one', response 1", "returned nan. Make it return a finite number."),
    ],
)
def test_what_is_no_list_of_scores(response, where, said):
    with pytest.raises(JudgeError) as caught:
        listed(response)
    assert str(caught.value).startswith(f"{where}: {__name__}:values {said}")
