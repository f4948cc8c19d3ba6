"""Judge of examples/smollm2: does a response keep its prompt's one constraint, and does it not repeat itself?

`score` is what a run calls: 1 for a constraint that is kept, and up to 0.14 for variety of words. To add a kind of
constraint, write a check here and a line in make_prompts.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

WORD = re.compile(r"[a-z0-9']+")
FEWEST_WORDS = 3  # an empty response keeps most constraints
VARIETY = 0.2  # weight of the share of different words,
ENOUGH = 0.7  # which counts up to here: ordinary prose of 50 words has 0.7 to 0.8


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return WORD.findall(text.lower())


def is_json_object(text: str) -> bool:
    """Whether the text is one JSON object with the single key "answer"."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and list(value) == ["answer"]


def bullets(text: str) -> int:
    """Lines that begin with "* " or "- "."""
    return sum(line.lstrip().startswith(("* ", "- ")) for line in text.splitlines())


def sentences(text: str) -> int:
    """Sentences, by their closing marks."""
    return len(re.findall(r"[.!?]+(?=\s|$)", text.strip()))


# By kind of constraint: does a text keep it?
CHECKS: dict[str, Callable[[str], bool]] = {
    "lower_case": lambda text: text == text.lower(),
    "capitals": lambda text: text == text.upper(),
    "no_commas": lambda text: "," not in text,
    "quoted": lambda text: len(text) > 2 and text[0] == text[-1] == '"',
    "bullets": lambda text: bullets(text) == 3,
    "short": lambda text: len(text.split()) <= 25,
    "title": lambda text: re.search(r"<<[^<>\n]+>>", text) is not None,
    "postscript": lambda text: re.search(r"(?m)^\s*P\.S\.", text) is not None,
    "without_the": lambda text: "the" not in words(text),
    "question": lambda text: text.endswith("?"),
    "json": is_json_object,
    "hashtag": lambda text: re.search(r"#\w+$", text) is not None,
    "two_sentences": lambda text: 1 <= sentences(text) <= 2,
}


def constraint_met(response: str, kind: str, wanted: str = "") -> bool:
    """Whether a response of at least three words keeps the constraint of this kind; `wanted` is an ending."""
    text = response.strip()
    kept = text.endswith(wanted) if kind == "ending" else CHECKS[kind](text)
    return kept and len(words(text)) >= FEWEST_WORDS


def variety(response: str) -> float:
    """Share of different words, at most `ENOUGH`; 0 without words."""
    found = words(response)
    return min(len(set(found)) / len(found), ENOUGH) if found else 0.0


def score(response: str, prompt: Any) -> dict[str, float | bool]:
    """The score that decides preferences, and the parts that the report shows apart."""
    met = constraint_met(response, prompt.metadata["kind"], prompt.metadata["wanted"])
    varied = variety(response)
    return {"score": met + VARIETY * varied, "constraint_met": met, "variety": varied}
