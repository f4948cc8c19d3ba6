"""Tabular policies in the log domain: natural log-probs, float64, shape (n, Y), one row per prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# exp of it is 0 by any measure; finite, so that differences of two vanished log-probs are not NaN
LOWEST = -1e9


def normalise(logits: Array) -> Array:
    """The policy proportional to exp(logits), shape (n, Y); log-probs below `LOWEST` are raised to it."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_z = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    log_pi: Array = np.maximum(shifted - log_z, LOWEST)
    return log_pi


def expectation(log_pi: Array, values: Array) -> Array:
    """E_{y ~ pi} of values (n, Y), for each prompt: shape (n,)."""
    mean: Array = (np.exp(log_pi) * values).sum(axis=1)
    return mean


def kl(log_p: Array, log_q: Array) -> Array:
    """KL(p || q) in nats for each prompt, shape (n,).

    Summed as q - p + p·log(p/q), whose terms are all >= 0: a KL of 1e-25 is as precise as one of 1.
    """
    gap = log_p - log_q
    p = np.exp(log_p)
    # Close together, q - p + p·gap would cancel to rounding noise.
    close = np.expm1(-np.maximum(gap, -1.0)) + gap
    terms = np.where(gap > -1.0, p * close, np.exp(log_q) - p + p * gap)
    total: Array = terms.sum(axis=1)
    return total


def total_variation(log_p: Array, log_q: Array) -> Array:
    """Half the summed absolute difference of probabilities for each prompt, shape (n,), in [0, 1]."""
    distance: Array = np.abs(np.exp(log_p) - np.exp(log_q)).sum(axis=1) / 2
    return distance
