"""Retry-After (RFC 9110, section 10.2.3): when a server wants to be asked again, in seconds or as a date."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 120.0  # seconds that a judge waits on a server's word; the client of `openai` has the same limit


def wished(headers: Mapping[str, str]) -> float | None:
    """Seconds until then, inf for a number beyond floats; None where nothing is said, or a time that is past.

    Args:
        headers: of an answer, whatever case their names are asked for in.
    """
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        seconds = float(text)
    else:
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return seconds if seconds > 0 else None
