"""Records read one after the other into prompts, and what is wrong with those that cannot be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts.records import Turns, read_record, turns
from components.prompts.tables import Columns

SHOWN = 10  # bad records that one error spells out


@dataclass
class Gathering:
    """The prompts read so far."""

    columns: Columns
    allow_duplicates: bool
    prompts: list[Prompt] = field(default_factory=list)
    answered: int = 0  # how many had an answer that is left out
    bad: list[str] = field(default_factory=list)
    _seen: dict[Turns | str, str] = field(default_factory=dict)
    _copies: Counter[str] = field(default_factory=Counter)

    def add(self, raw: Any, place: str) -> None:
        """Reads a record that stands in a place; one that cannot be used is noted with the reason."""
        try:
            record = read_record(raw, self.columns.prompt, self.columns.leave_out)
            prompt = record.prompt
            if not self.allow_duplicates:
                self._refuse_duplicate(prompt)
        except PromptError as reason:
            self.bad.append(f"{place}: {reason}")
            return
        while prompt.id in self._seen:
            self._copies[prompt.id] += 1
            prompt = replace(prompt, id=f"{prompt.id}-{self._copies[prompt.id] + 1}")
        self._seen[prompt.id] = self._seen[turns(prompt)] = place
        self.prompts.append(prompt)
        self.answered += record.answered

    def refuse_bad(self, source: str, unit: str) -> None:
        """Raises PromptError that lists the records noted, if there are any."""
        if not self.bad:
            return
        rest = [f"… and {len(self.bad) - SHOWN} more"] if len(self.bad) > SHOWN else []
        lines = "\n  ".join([*self.bad[:SHOWN], *rest])
        count = len(self.bad) + len(self.prompts)
        raise PromptError(f"{source}: {len(self.bad)} of {count} {unit}s cannot be used:\n  {lines}")

    def _refuse_duplicate(self, prompt: Prompt) -> None:
        for what, key in (("messages", turns(prompt)), ("id", prompt.id)):
            if key in self._seen:
                raise PromptError(
                    f"{what}: the same as in {self._seen[key]}. Remove one of the two, or set prompts.allow_duplicates."
                )
