"""What judges with a model have in common, without the imports that a model needs: their settings and their texts."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from components.data.records import Prompt
from components.judges import Judge, Judgement, preference_from_pairs, refuse_ragged, with_pair_rate
from components.judges._settings import ModelSettings
from components.runtime.progress import Progress, silent

PROBE = Prompt("probe", ({"role": "user", "content": "What is 2 + 2?"},))  # judged by `check`, before work starts
PROBE_RESPONSES = [["4", "5"]]


class ModelJudge(ModelSettings, Judge):
    """Settings of every judge with a model."""

    def unload(self) -> None:
        """Frees the models of all judges of this process."""
        from components.judges import _models

        _models.unload()


class PairwiseModelJudge(ModelJudge):
    """A judge whose model reads two responses at once, in both orders, and gives no rewards."""

    @property
    def has_scores(self) -> bool:
        """None: only pairs are compared."""
        return False

    def model_inputs(self, n: int, k: int) -> int:
        """All ordered pairs."""
        return n * k * (k - 1)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """Compares all ordered pairs of responses and averages both orders; see `Judge.judge`."""
        refuse_ragged(prompts, responses)
        n, k = len(prompts), len(responses[0])
        if k == 1:  # evaluation with one response of the reference alone
            return Judgement(np.full((n, 1, 1), 0.5), np.full((n, 1), np.nan))
        first_wins = self._first_wins(prompts, responses, with_pair_rate(progress, n, k))
        pairs = np.full((n, k, k), np.nan)
        pairs[:, ~np.eye(k, dtype=bool)] = first_wins.reshape(n, -1)
        return Judgement(preference_from_pairs(pairs, [p.id for p in prompts]), np.full((n, k), np.nan))

    @abstractmethod
    def _first_wins(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress
    ) -> NDArray[np.float64]:
        """Probability that the response shown first wins, (n·K·(K - 1),), in the order of `ordered_pairs`."""


def ordered_pairs(n: int, k: int) -> list[tuple[int, int, int]]:
    """(prompt, first response, second response), for all pairs of two different responses in both orders."""
    return [(i, first, second) for i in range(n) for first, second in permutations(range(k), 2)]


def conversation(prompt: Prompt) -> str:
    """A prompt as text for judges that know no turns: its content, or all turns with their roles before them."""
    if len(prompt.messages) == 1:
        return prompt.text
    return "\n".join(f"{turn['role'].upper()}: {turn['content']}" for turn in prompt.messages)


def filled(template: str, **values: str) -> str:
    """The template with each `{name}` replaced; braces inside values stay as they are."""
    return re.sub(rf"\{{({'|'.join(values)})\}}", lambda match: values[match[1]], template)


def require_places(template: str, *names: str) -> str:
    """The template. Raises ValueError unless it has a place for each."""
    if missing := [f"{{{name}}}" for name in names if f"{{{name}}}" not in template]:
        raise ValueError(f"{template!r} lacks {' and '.join(missing)}. Write each where it belongs.")
    return template
