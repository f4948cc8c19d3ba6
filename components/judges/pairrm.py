"""PairRM: a small model that reads two responses side by side and says which one is better.

Jiang, Ren and Lin, "LLM-Blender", ACL 2023, arXiv 2306.02561. Input and limits as in the model card of
llm-blender/PairRM-hf: `[CLS]<|source|>x[SEP][CLS]<|candidate1|>a[SEP][CLS]<|candidate2|>b[SEP]`, at most 1224 tokens
of x, and half of what x leaves of 1224 + 2 * 412 for each candidate. It is sensitive to the order: both are averaged,
as probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges import sigmoid
from components.judges._base import PROBE, PROBE_RESPONSES, PairwiseModelJudge, conversation
from components.judges._pairwise import FirstWins, Pairs, ordered_pairs
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:  # a config is read in steps that need no torch
    from torch import Tensor

    from components.judges._models import Loaded

SOURCE, FIRST, SECOND, CANDIDATE = "<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"
Row = NDArray[np.int32]


class PairRM(PairwiseModelJudge):
    """PairRM, which reads two responses side by side; K(K - 1) inputs per prompt."""

    name: Literal["pairrm"] = "pairrm"
    model: str = Field("llm-blender/PairRM-hf", description="Hugging Face directory or hub id")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32", description="of weights and forward pass; the model is small"
    )
    source_tokens: int = Field(1224, ge=3, description="most tokens of a prompt")
    candidate_tokens: int = Field(412, ge=3, description="most tokens of a response, more after a short prompt")
    truncate: Literal["never", "right"] = Field(
        "right", description="a longer text. right: loses its end, as the model was trained; never: it stops the run"
    )

    def check(self) -> None:
        """Loads the model and encodes one pair. Raises JudgeError for a model that is no PairRM."""
        self._encode(self._load(), [PROBE], PROBE_RESPONSES, ordered_pairs(1, 2))

    def compare_pairs(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], pairs: Pairs, progress: Progress = silent
    ) -> FirstWins:
        """See `PairwiseJudge.compare_pairs`."""
        from components.judges import _models

        loaded = self._load()
        rows, truncated = self._encode(loaded, prompts, responses, pairs)
        logits = _models.run(
            rows,
            partial(_logits, loaded),
            tokens_per_batch=self.tokens_per_batch,
            progress=progress if self.truncate == "never" else partial(progress, truncated=truncated),
        )
        return FirstWins(sigmoid(logits))

    def load(self) -> None:
        """See `Judge.load`."""
        self._load()

    def _load(self) -> Loaded:
        from components.judges import _models
        from components.judges._pairrm import PairRMModel

        loaded = _models.load(self, PairRMModel)
        config, tokenizer = loaded.model.config, loaded.tokenizer
        for key, marker in (("source_prefix_id", SOURCE), ("cand1_prefix_id", FIRST), ("cand2_prefix_id", SECOND)):
            configured, known = getattr(config, key, None), tokenizer.convert_tokens_to_ids(marker)
            if configured != known:
                raise JudgeError(
                    f"judge.model: {self.model} is no PairRM: its config.json has {key} {configured}, its tokenizer "
                    f"the id {known} for {marker}. Use a checkpoint in the format of llm-blender/PairRM-hf."
                )
        return loaded

    def _encode(
        self, loaded: Loaded, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], pairs: Pairs
    ) -> tuple[list[Row], float]:
        """Token ids of ordered pairs, and the share of pairs in which a text lost its end."""
        from components.judges import _models

        tokenizer, config = loaded.tokenizer, loaded.model.config
        blank = _models.blank_special(tokenizer, SOURCE, FIRST, SECOND, CANDIDATE)
        texts = [SOURCE + blank(conversation(prompt)) for prompt in prompts]
        sources = _models.encode(tokenizer, texts, add_special_tokens=True)
        texts = [FIRST + blank(text) for row in responses for text in row]
        candidates = _models.encode(tokenizer, texts, add_special_tokens=True)
        k = len(responses[0])
        rows, truncated = [], []
        for i, first, second in pairs:
            source = self._cut(sources[i], self.source_tokens)
            room = (self.source_tokens + 2 * self.candidate_tokens - len(source)) // 2
            whole = [candidates[i * k + first], candidates[i * k + second]]
            left, right = (self._cut(candidate, room) for candidate in whole)
            right = np.where(right == config.cand1_prefix_id, config.cand2_prefix_id, right).astype(np.int32)
            rows.append(np.concatenate([source, left, right]))
            truncated.append(len(rows[-1]) < sum(map(len, [sources[i], *whole])))
            if truncated[-1] and self.truncate == "never":
                raise JudgeError(
                    f"prompt {prompts[i].id!r}, responses {first} and {second}: {len(sources[i])}, {len(whole[0])} "
                    f"and {len(whole[1])} tokens; PairRM reads {self.source_tokens} of a prompt and here {room} of "
                    "a response. Set judge.truncate: right, or lower generation.max_new_tokens."
                )
        return rows, float(np.mean(truncated))

    @staticmethod
    def _cut(row: Row, limit: int) -> Row:
        """Without the end of its text; the closing [SEP] stays."""
        return row if len(row) <= limit else np.concatenate([row[: limit - 1], row[-1:]])


def _logits(loaded: Loaded, rows: list[Row]) -> Tensor:
    from components.judges import _models

    logits: Tensor = loaded.model(*_models.right_padded(rows, loaded.tokenizer.pad_token_id, loaded.model.device))
    return logits
