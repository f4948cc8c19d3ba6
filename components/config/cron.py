"""Schedules as Argo reads them: five fields of cron, and a time zone."""

from __future__ import annotations

import re
from zoneinfo import available_timezones

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
LONGEST = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]  # days of each month
FIELDS = [  # name, least and greatest value, names from the least on
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of month", 1, 31, []),
    ("month", 1, 12, MONTHS),
    ("day of week", 0, 6, DAYS),
]


def check_cron(text: str) -> None:
    """Raises ValueError, which names the wrong field, for what Argo does not take and for a day that never comes."""
    words = text.split()
    if len(words) != len(FIELDS):
        names = ", ".join(name for name, *_ in FIELDS)
        raise ValueError(f"{text!r} has {len(words)} fields, not five: {names}. Write one such as '0 3 * * 1'.")
    values = [_values(word, *field) for word, field in zip(words, FIELDS, strict=True)]
    days, months = values[2], values[3]
    # With both days restricted, either of them will do.
    if words[4] in ("*", "?") and not any(day <= LONGEST[month - 1] for day in days for month in months):
        raise ValueError(f"{text!r} never comes: none of its months has such a day. Correct the day or the month.")


def _values(word: str, name: str, least: int, greatest: int, names: list[str]) -> set[int]:
    """The values that a field stands for, such as `1-5`, `*/15` or `MON,FRI`."""

    def number(item: str) -> int:
        known = item.upper() in names
        value = least + names.index(item.upper()) if known else int(item) if re.fullmatch(r"[0-9]{1,4}", item) else -1
        if not least <= value <= greatest:
            also = f" or {names[0]} to {names[-1]}" if names else ""
            use = f"Use {least} to {greatest}{also}, ranges, lists and steps of them."
            raise ValueError(f"{word!r} is no {name}. {use}")
        return value

    found: set[int] = set()
    for part in word.split(","):
        values, slash, step = part.partition("/")
        first, dash, last = values.partition("-")
        begin = least if values in ("*", "?") else number(first)
        end = number(last) if dash else greatest if slash or values in ("*", "?") else begin
        if begin > end or (slash and not re.fullmatch(r"0*[1-9][0-9]{0,3}", step)):
            raise ValueError(f"{part!r} is no {name}: write it as FIRST-LAST or FIRST-LAST/STEP, in rising order.")
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return found


def check_time_zone(name: str) -> None:
    """Raises ValueError for a time zone that is not one of IANA's, where these are known: an image may lack them."""
    known = available_timezones()
    if known and name not in known:
        close = next((zone for zone in sorted(known) if zone.lower() == name.lower()), "Europe/Berlin")
        raise ValueError(f"{name!r} is no time zone of IANA's. Write one such as {close}.")
