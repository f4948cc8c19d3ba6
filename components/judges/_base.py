"""What judges with a model have in common, without the imports that a model needs: their settings and their texts."""

from __future__ import annotations

import re

from components.data.records import Prompt
from components.judges import Judge
from components.judges._pairwise import PairwiseJudge
from components.judges._settings import ModelSettings

PROBE = Prompt("probe", ({"role": "user", "content": "What is 2 + 2?"},))  # judged by `check`, before work starts
PROBE_RESPONSES = [["4", "5"]]


class ModelJudge(ModelSettings, Judge):
    """Settings of every judge with a model."""

    def unload(self) -> None:
        """Frees the models of all judges of this process."""
        from components.judges import _models

        _models.unload()


class PairwiseModelJudge(ModelJudge, PairwiseJudge):
    """A judge whose model reads two responses at once."""


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
