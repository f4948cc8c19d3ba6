"""What becomes of preferences where a response was cut off by the length limit."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from components.judges._scores import LARGEST

LOSE: Literal["lose"] = "lose"


def _penalty(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == LOSE or (number and 0 <= value <= LARGEST):
        return float(value) if number else value
    bound = f"at most {LARGEST:g}" if number and LARGEST < value < math.inf else "at least 0"
    raise ValueError(f"{value!r} cannot be used. Give a number of {bound}, or {LOSE}.")


TruncatedPenalty = Annotated[
    float | Literal["lose"],
    BeforeValidator(_penalty, json_schema_input_type=Annotated[float, Field(ge=0, le=LARGEST)] | Literal["lose"]),
]


def lost(preference: NDArray[np.float64], truncated: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Preferences (n, K, K) of which a truncated response, (n, K), loses every pair against one that is not."""
    loses = truncated[:, :, None] & ~truncated[:, None, :]
    return np.where(loses, 0.0, np.where(loses.swapaxes(1, 2), 1.0, preference))


def shifted(preference: NDArray[np.float64], penalty: NDArray[np.float64]) -> NDArray[np.float64]:
    """Preferences whose log-odds are lower by the difference of two responses' penalties.

    That is Bradley and Terry's model with each response's strength lower by its penalty. What was certain stays so.

    Args:
        preference: (n, K, K), P(y_i > y_j).
        penalty: (n, K), finite.

    Returns:
        (n, K, K), with P + P^T = 1 if that held before; pairs of equal penalties as they were.
    """
    difference = penalty[:, :, None] - penalty[:, None, :]
    with np.errstate(divide="ignore"):
        strength = np.log(preference)  # P(y_j > y_i) and not 1 - P(y_i > y_j), which rounds small ones away
    odds = strength - strength.swapaxes(1, 2) - difference
    return np.where(difference == 0, preference, np.exp(-np.logaddexp(0, -odds)))
