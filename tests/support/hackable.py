"""Judges that reward what nobody wants, for policies that find it out."""

from __future__ import annotations

from typing import Any

LONGER, REPEATED = f"{__name__}:longer", f"{__name__}:repeated"


def longer(response: str, prompt: Any) -> int:
    """Words."""
    return len(response.split())


def repeated(response: str, prompt: Any) -> int:
    """Words that the response has had before."""
    words = response.split()
    return len(words) - len(set(words))
