"""Accuracies of checked answers with their intervals, and by how much those of two policies differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from components.benchmarking.ifbench import FORMS, Checked
from components.evaluation.intervals import rate_interval
from components.evaluation.parts import Mean

PROMPTS, INSTRUCTIONS = "prompts", "instructions"
NAMES = tuple(f"{form}_{level}" for form in FORMS for level in (PROMPTS, INSTRUCTIONS))


def accuracies(checked: Sequence[Checked]) -> dict[str, Mean]:
    """By NAMES: the share of prompts all of whose instructions are kept, and the share of instructions, with 95 %.

    The prompt is the unit of all intervals: instructions of one prompt are kept or not by the same answer.
    """
    return {name: Mean(float(values.mean()), *rate_interval(values)) for name, values in _values(checked).items()}


def differences(before: Sequence[Checked], after: Sequence[Checked]) -> dict[str, Mean]:
    """By NAMES: accuracies of `after` less those of `before`, with the 95 % interval of paired prompts.

    That of `rate_interval` on a scale from -1 to 1: few prompts, or such that all agree, do not look certain.

    Args:
        before: of n answers.
        after: of n answers to the same prompts.
    """
    ours, theirs = _values(after), _values(before)
    found = {}
    for name in NAMES:
        gain = ours[name] - theirs[name]
        low, high = rate_interval((gain + 1) / 2)
        found[name] = Mean(float(gain.mean()), 2 * low - 1, 2 * high - 1)
    return found


def _values(checked: Sequence[Checked]) -> dict[str, NDArray[np.float64]]:
    """By NAMES, (n,) numbers whose mean is the accuracy.

    Instructions are not equally many in each prompt. Their accuracy is a ratio of sums, and the numbers are its
    linearisation (Cochran, Sampling Techniques, section 2.11): ratio + (kept - ratio·asked) / mean asked.
    """
    found = {}
    asked = np.array([len(one.strict) for one in checked], dtype=np.float64)
    for form in FORMS:
        kept = np.array([sum(getattr(one, form)) for one in checked], dtype=np.float64)
        ratio = kept.sum() / asked.sum()
        found[f"{form}_{PROMPTS}"] = (kept == asked).astype(np.float64)
        found[f"{form}_{INSTRUCTIONS}"] = ratio + (kept - ratio * asked) / asked.mean()
    return found
