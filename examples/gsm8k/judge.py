r"""Judge of examples/gsm8k: is the answer that a response ends with the right number?

The answer is what stands behind `####`, in `\boxed{}` or behind "answer is", the last of these with a number behind
it, and there the first number; without any of them the last number of the response. So it does not pay to give several.
Numbers are compared by math-verify (`pip install -r requirements-math.txt`), for which 1/2, 0.5 and `\frac{1}{2}` are
one, as are 72 and 72%.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

from components.config.errors import JudgeError

try:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
except ModuleNotFoundError as error:
    raise JudgeError(
        f"judge.function: {error.name} is not installed. Run pip install -r requirements-math.txt."
    ) from error

MOST_MARKS = 20
SPAN = 200  # characters behind a mark that are looked at
LONGEST = 64  # characters of a number: what is compared stays so small that no time limit is needed
# math-verify's own limits are alarms, which threads cannot set and which would undo `judge.timeout`.
NO_ALARM: dict[str, Any] = {"parsing_timeout": None}
logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it has no limit

MARK = re.compile(r"####|\\f?boxed\s*\{|\banswer\b[^.\n\d]{0,40}?(?:\bis\b|:)", re.IGNORECASE)
WRITTEN = [
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:left|right|displaystyle)\b|\\[!,;: ]|[\u2009\u202f*`]"), ""),  # spacing, and bold type
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\\?[$€£]|US\$"), " "),
    (re.compile(r"[\u2212\u2013]"), "-"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"[\u00a0~]"), " "),
]
PLAIN = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+"
PART = r"\{\s*-?[\d.,]{1,20}\s*\}"
NUMBER = re.compile(
    rf"(?<![\w.])-?\s?(?:(?P<latex>(?:\d+\s*)?\\[dt]?frac\s*{PART}\s*{PART})"
    rf"|(?P<mixed>\d+\s+\d+/\d+)|(?:{PLAIN})(?:\s*/\s*(?:{PLAIN}))?)\s?%?"
)


def score(response: str, prompt: Any) -> dict[str, float | bool]:
    """1 for the right number; as parts, whether it is right, and whether there is a number at all.

    Raises ValueError for a prompt whose own answer has none.
    """
    given = final_answer(response)
    correct = given is not None and bool(verify(_wanted(prompt.answer), _value(given), timeout_seconds=None))
    return {"score": float(correct), "correct": correct, "answered": given is not None}


def final_answer(text: str) -> str | None:
    """The number that a text ends with, as it is written there; None if there is none, or a very long one."""
    for mark in reversed(list(MARK.finditer(text))[-MOST_MARKS:]):
        said = text[mark.end() : mark.end() + SPAN]
        number = NUMBER.search(_tidy(_right(_inside(said) if mark[0].endswith("{") else _line(said))))
        if number:
            return _short(number)
    found = list(NUMBER.finditer(_tidy(text)))
    return _short(found[-1]) if found else None


def _inside(text: str) -> str:
    """As far as the brace that closes, or the end."""
    depth = 1
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[:place]
    return text


def _line(text: str) -> str:
    """The first line that is not blank."""
    return text.strip().partition("\n")[0]


def _right(text: str) -> str:
    """Of an equation, its right side, if there is a number."""
    before, _, after = text.rpartition("=")
    return after if NUMBER.search(_tidy(after)) else before


def _tidy(text: str) -> str:
    for pattern, written in WRITTEN:
        text = pattern.sub(written, text)
    return text


def _short(found: re.Match[str]) -> str | None:
    number = found[0].strip()
    return number if len(number) <= LONGEST else None


@cache
def _wanted(answer: str | None) -> Any:
    number = final_answer(answer or "")
    if number is None:
        raise ValueError(f"the prompt's answer, {answer!r}, has no number. One of GSM8K ends with '#### 42'.")
    return _value(number)


def _value(number: str) -> Any:
    """A number as math-verify takes it apart."""
    whole, _, part = number.partition(" ")
    if "/" in part and whole.lstrip("-").isdecimal():  # one and a half
        number = f"{whole}\\frac{{{part.partition('/')[0]}}}{{{part.partition('/')[2]}}}"
    if "\\" in number:
        return parse(f"${number}$", [LatexExtractionConfig()], **NO_ALARM)
    return parse(number.replace(" ", ""), [ExprExtractionConfig()], **NO_ALARM)
