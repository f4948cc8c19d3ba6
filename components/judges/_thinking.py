"""Which part of a response is thinking, between two marks, and what is left without it."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

MARKS = ("<think>", "</think>")
_BLANKS = re.compile(r"\s*")


def _marks(value: Any) -> Any:
    """`true` as the usual marks, `false` as none. Raises ValueError for what cannot tell thinking from an answer."""
    if value is None or isinstance(value, bool):
        return list(MARKS) if value else None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(mark, str) for mark in value):
        raise ValueError(f"{value!r} cannot be used. Write true, or two marks, such as [{', '.join(MARKS)}].")
    if not all(mark.strip() for mark in value) or value[0] in value[1] or value[1] in value[0]:
        raise ValueError(f"{value!r} are no two marks that can be told apart. Give each a text of its own.")
    return value


_Pair = Annotated[list[Annotated[str, Field(pattern=r"\S")]], Field(min_length=2, max_length=2)]
ThinkingMarks = Annotated[list[str] | None, BeforeValidator(_marks, json_schema_input_type=bool | _Pair | None)]


def cut(text: str, opening: str, closing: str, *, prompt_end: str = "") -> str:
    """A response without its thinking.

    Each part from an opening mark to the next closing one goes, both marks and the white space behind them included.
    Parts do not nest. Thinking that nothing closes lasts to the end. A response begins inside thinking if the text of
    its prompt ends with the opening mark, as some chat templates have it, or if the first mark in it is a closing one.

    Args:
        text: the response.
        opening: such as <think>.
        closing: such as </think>.
        prompt_end: how the text ends that the policy read.
    """
    begins, ends = text.find(opening), text.find(closing)
    inside = prompt_end.rstrip().endswith(opening) or (ends >= 0 and (begins < 0 or ends < begins))
    kept, at = [], 0
    while 0 <= at < len(text):
        place = text.find(closing if inside else opening, at)
        if not inside:
            kept.append(text[at:] if place < 0 else text[at:place])
        at = -1 if place < 0 else place + len(closing if inside else opening)
        if inside and at >= 0:
            at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]  # matches everywhere
        inside = not inside
    return "".join(kept)
