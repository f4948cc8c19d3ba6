"""Judges whose scores have parts."""

from __future__ import annotations


def scored(response, prompt):
    """The sum of the numbers decides; parts are how many there are, and whether the first is even."""
    numbers = [int(word) for word in response.split() if word.isdecimal()]
    return {"score": sum(numbers), "count": len(numbers), "even": bool(numbers) and numbers[0] % 2 == 0}


def changing(response, prompt):
    """Other parts for one prompt."""
    return scored(response, prompt) | ({"new": 1} if prompt.metadata["kind"] == "lone" else {})


def judged(text, part):
    return float(scored(text, None)[part])
