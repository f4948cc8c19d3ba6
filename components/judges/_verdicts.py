"""Verdicts and scores in what a language model answers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from components.judges._chat import Reply, probability_of
from components.judges._thinking import MARKS, cut

# What may stand around a verdict: emphasis, quotes, brackets, a full stop, and the wide ones of Chinese and Japanese.
AROUND = " \t\r\u3000\"'`*_#~.,!()[]{}<>|“”‘’„«»「」『』【】（）［］。，！"
_BEFORE = re.compile(r"^(?:response|answer|assistant|option|verdict|score|rating)\s+", re.IGNORECASE)
_ORDER = re.compile(r"[\d\s>＞≻,，、;；()（）\[\]【】*_`'\"#.。]*")
_SCORE = re.compile(r"(-?\d+(?:\.\d+)?)(?:\s*(?:/|out of)\s*(\d+(?:\.\d+)?))?")
COLONS = ":："
_FENCE = re.compile(r"\s*(?:`{3,}|~{3,})\s*\w*\s*")
_UNCLEAR = re.compile(r"(?<!\d)[.,]\d|[<≤≥]\s*[\d.]+\s*$|\d[:：]\d")  # a number with more before it


def first_wins(reply: Reply, verdicts: Sequence[str]) -> float | None:
    """Probability that the response shown first is better; None for an answer that is no verdict.

    The verdict is the answer's first or last line, without marks around it and what stands before a colon: `A`,
    `**A**`, `[[A]]`, `Verdict: A`, `Response A.`; thinking and the fences of a block do not count. With log-probs it is
    P(a) / (P(a) + P(b)) in the place of the verdict's token, outside thinking too, else 1 or 0.
    """
    lines = _lines(reply.text)
    read = [_word(line) for line in lines]
    found = {word for word in read if word in verdicts}
    if len(found) != 1:
        return None
    verdict = found.pop()
    tops = _tops(reply, verdict, first=read[0] == verdict)
    first, second = (probability_of(tops, word) for word in verdicts)
    if first + second == 0:
        return 1.0 if verdict == verdicts[0] else 0.0
    return first / (first + second)


def _tops(reply: Reply, verdict: str, *, first: bool) -> dict[str, float]:
    """The likeliest tokens in the verdict's place: the last token like it in the answer's first, or last, line.

    None where no token is like it, as where it is one with what stands around it.
    """
    text = "".join(token for token, _ in reply.tokens)
    thought = text.rfind(MARKS[1])
    at = 0 if thought < 0 else thought + len(MARKS[1])
    lines = [(place.start(), place.end()) for place in re.finditer(r"[^\n]+", text[at:]) if _says(place[0])]
    if not lines:
        return {}
    begin, end = (at + place for place in lines[0 if first else -1])
    found, place = {}, 0
    for token, tops in reply.tokens:
        if token.strip() == verdict and begin <= place + len(token) - len(token.lstrip()) < end:
            found = tops
        place += len(token)
    return found


def score(reply: Reply, scale: Sequence[float]) -> float | None:
    """The number on the answer's first or last line, read as verdicts are: `7`, `**7.5**`, `Score: 7/10`.

    None for an answer without one, with two different ones, with one that is not on the scale, or with one of another
    scale, `7/100`.
    """
    clear = [line for line in _lines(reply.text) if not _UNCLEAR.search(line)]
    read = [match for line in clear if (match := _SCORE.fullmatch(_word(line)))]
    found = {float(match[1]) for match in read}
    if len(found) != 1 or any(match[2] and float(match[2]) != scale[1] for match in read):
        return None
    return number if scale[0] <= (number := found.pop()) <= scale[1] else None


def ranking(reply: Reply, count: int) -> list[int] | None:
    """Places 0 to count - 1, the best first, from numbers from 1 on in the answer's first or last line, `2 > 1 > 3`.

    Brackets, commas and what stands before a colon do not matter. None for an answer in which a number is missing or
    stands twice, or with words among them.
    """
    found = []
    for line in _lines(reply.text):
        said = _behind_colons(line)
        order = [int(number) - 1 for number in re.findall(r"\d{1,9}", said)]
        if _ORDER.fullmatch(said) and sorted(order) == list(range(count)):
            found.append(order)
    return found[0] if found and all(order == found[0] for order in found) else None


def _lines(text: str) -> list[str]:
    """The first and the last line that are neither blank nor fences, outside thinking; none of an empty answer."""
    lines = [line for line in cut(text, *MARKS).splitlines() if _says(line)]
    return [lines[0], lines[-1]] if lines else []


def _says(line: str) -> bool:
    return bool(line.strip()) and not _FENCE.fullmatch(line)


def _word(line: str) -> str:
    """A line without what only surrounds its verdict."""
    return _BEFORE.sub("", _behind_colons(line).strip(AROUND)).strip(AROUND)


def _behind_colons(line: str) -> str:
    return line[max(line.rfind(colon) for colon in COLONS) + 1 :]
