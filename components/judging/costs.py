"""What each judge costs per prompt: calls as the judges count them, tokens by a rule of thumb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.config.registry import build
from components.judges import Judge
from components.judges._openai_settings import RANK_PROMPT, SCORE_PROMPT
from components.judges.llm_judge import DEFAULT_PROMPT

K = 8
PROMPT, RESPONSE = 100, 200  # tokens of the texts in the table
CHARACTERS = 4  # of the judges' own English a token, about
SPEED = 10_000  # tokens that a model reads in a second, in the table
VERDICT, SCORE, RANK = 1, 1, 3  # tokens written: a letter; a number; a number and what parts it from the next

_OPENAI = {"name": "openai", "model": "MODEL"}


@dataclass(frozen=True)
class Case:
    """A judge as the table names it."""

    label: str
    settings: Mapping[str, Any]
    template: str | None = None  # that it fills; None: it reads prompt and responses as they are
    shows: int = 0  # responses in a call; 0: the judge reads no tokens
    writes: int = 0  # tokens in a call


CASES = (
    Case("`verifier`", {"name": "verifier", "function": "my_judge:score"}),
    Case("`http`, 16 texts in a request", {"name": "http", "url": "http://localhost:8000/"}, None, 1),
    Case("`reward_model`", {"name": "reward_model", "model": "MODEL"}, None, 1),
    Case("`pairrm`", {"name": "pairrm"}, None, 2),
    Case("`pairrm` with `opponents: 3`", {"name": "pairrm", "opponents": 3}, None, 2),
    Case("`llm_judge`", {"name": "llm_judge", "model": "MODEL"}, DEFAULT_PROMPT, 2),
    Case("`llm_judge` with `opponents: 3`", {"name": "llm_judge", "model": "MODEL", "opponents": 3}, DEFAULT_PROMPT, 2),
    Case("`openai`, `mode: pairs`", {**_OPENAI, "mode": "pairs"}, DEFAULT_PROMPT, 2, VERDICT),
    Case("… with `opponents: 3`", {**_OPENAI, "mode": "pairs", "opponents": 3}, DEFAULT_PROMPT, 2, VERDICT),
    Case("… with `opponents: 2`", {**_OPENAI, "mode": "pairs", "opponents": 2}, DEFAULT_PROMPT, 2, VERDICT),
    Case("`openai`, `mode: scores`", {**_OPENAI, "mode": "scores"}, SCORE_PROMPT, 1, SCORE),
    Case("`openai`, `mode: ranks`", {**_OPENAI, "mode": "ranks"}, RANK_PROMPT, K, RANK * K),
)


def calls(case: Case, k: int = K) -> int:
    """Texts, pairs or listings that the judge is asked about for K unlike responses to one prompt."""
    return build("judges", dict(case.settings), Judge).model_inputs(1, k)


def tokens_read(case: Case, k: int = K) -> int:
    """Tokens that a model reads for one prompt, about."""
    if not case.shows:
        return 0
    return calls(case, k) * (len(case.template or "") // CHARACTERS + PROMPT + case.shows * RESPONSE)


def table() -> str:
    """The rows as Markdown."""
    lines = ["| judge | calls | tokens read | tokens written | seconds |", "|---|---|---|---|---|"]
    for case in CASES:
        read, written = tokens_read(case), calls(case) * case.writes
        seconds = f"{read / SPEED:.2g}" if read else "your function's"
        figures = [f"{tokens:,}" if tokens else "none" for tokens in (read, written)]
        lines.append(f"| {case.label} | {calls(case)} | {figures[0]} | {figures[1]} | {seconds} |")
    return "".join(f"{line}\n" for line in lines)
