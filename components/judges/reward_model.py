"""Judge that scores each response with a reward model and compares scores as Bradley and Terry do.

Any `AutoModelForSequenceClassification` with one label, such as Skywork-Reward-V2. It reads text through its own
tokenizer and chat template, never the policy's token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from components.config.errors import JudgeError
from components.config.schema import TemplateOptions
from components.data.records import Prompt
from components.judges import Judgement, preference_from_scores, refuse_ragged, with_pair_rate
from components.judges._base import PROBE, PROBE_RESPONSES, ModelJudge, conversation, filled, require_places
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:  # a config is read in steps that need no torch
    from torch import Tensor

    from components.judges._models import Loaded

Rows = list[NDArray[np.int32]]


class RewardModel(ModelJudge):
    """P(y_i > y_j) = sigmoid((s_i - s_j) / temperature), with s the model's score of prompt and response."""

    name: Literal["reward_model"] = "reward_model"
    temperature: PositiveFloat = Field(1.0, description="P = sigmoid(difference of scores / temperature)")
    input_format: str | None = Field(
        None, description="instead of the model's chat template: '… {prompt} … {response} …'"
    )
    template_options: TemplateOptions = Field(
        default_factory=dict, description="for the model's chat template, such as {enable_thinking: false}"
    )
    max_tokens: PositiveInt | None = Field(None, description="longest input; absent: what the model is made for")
    truncate: Literal["never", "left", "right"] = Field(
        "never", description="a longer input. never: it stops the run; left: loses its beginning; right: its end"
    )

    @field_validator("input_format")
    @classmethod
    def _has_places(cls, value: str | None) -> str | None:
        return value if value is None else require_places(value, "prompt", "response")

    def check(self) -> None:
        """Loads the model and encodes one response. Raises JudgeError for a model that cannot score it."""
        self._encode(self._load(), [PROBE], PROBE_RESPONSES)

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """Scores each response; see `Judge.judge`. Where inputs may be truncated, `progress` is told the share.

        Raises:
            JudgeError: rows of unequal length, an input that is too long, or a score that is not finite.
        """
        from components.judges import _models

        refuse_ragged(prompts, responses)
        n, k = len(prompts), len(responses[0])
        loaded = self._load()
        rows, truncated = self._encode(loaded, prompts, responses)
        show = with_pair_rate(progress, n, k)
        score = _models.run(
            rows,
            partial(_score, loaded),
            tokens_per_batch=self.tokens_per_batch,
            progress=show if self.truncate == "never" else partial(show, truncated=truncated),
        )
        for i in np.flatnonzero(~np.isfinite(score))[:1]:
            raise JudgeError(
                f"prompt {prompts[i // k].id!r}, response {i % k}: {self.model} scores it {score[i]}. "
                "Set judge.precision: fp32, or use another model."
            )
        reward = score.reshape(n, k)
        return Judgement(preference_from_scores(reward, self.temperature), reward)

    def lowered(self, judgement: Judgement, penalty: NDArray[np.float64]) -> Judgement:
        """As if the model had scored so much less."""
        reward = judgement.reward - penalty
        return replace(judgement, preference=preference_from_scores(reward, self.temperature), reward=reward)

    def load(self) -> None:
        """See `Judge.load`."""
        self._load()

    def _load(self) -> Loaded:
        from components.judges import _models
        from components.policy.library import AutoModelForSequenceClassification

        loaded = _models.load(self, AutoModelForSequenceClassification)
        labels = loaded.model.config.num_labels
        if labels != 1:
            raise JudgeError(
                f"judge.model: {self.model} has {labels} labels, a reward model has one. Use another model."
            )
        if getattr(loaded.model.config, "is_encoder_decoder", False):
            raise JudgeError(
                f"judge.model: {self.model} is an encoder with a decoder ({type(loaded.model).__name__}), which finds "
                "no end in a padded input. Use a reward model that is only one of them."
            )
        if self.input_format is None and not loaded.tokenizer.chat_template:
            raise JudgeError(
                f"judge.input_format: is required, the tokenizer of {self.model} has no chat template. "
                "For example '{prompt}\\n\\n{response}'."
            )
        _widen_head(loaded)
        return loaded

    def _encode(
        self, loaded: Loaded, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]
    ) -> tuple[Rows, float]:
        """Token ids of each prompt with each response, n·K rows, and the share of them that lost some."""
        from components.judges import _models

        blank, templated = _models.blank_special(loaded.tokenizer), None
        if self.input_format is None:
            template = _models.chat_of(loaded, self.template_options, answers=False)
            templated = partial(_models.templated, template, answer=False)
        texts = [self._text(p, r, blank, templated) for p, row in zip(prompts, responses, strict=True) for r in row]
        k = len(responses[0])
        return _models.limited(
            loaded,
            _models.encode(loaded.tokenizer, texts, add_special_tokens=self.input_format is not None),
            loaded.limit(self.max_tokens),
            self.truncate,
            lambda i: f"prompt {prompts[i // k].id!r}, response {i % k}",
            "Set judge.truncate to left or right, raise judge.max_tokens, or lower generation.max_new_tokens.",
        )

    def _text(
        self, prompt: Prompt, response: str, blank: Callable[[str], str], templated: Callable[..., str] | None
    ) -> str:
        """What the model reads of one response."""
        if templated is None:
            assert self.input_format is not None
            return filled(self.input_format, prompt=blank(conversation(prompt)), response=blank(response))
        turns = [*prompt.messages, {"role": "assistant", "content": response}]
        turns = [{**turn, "content": blank(turn["content"])} for turn in turns]
        return templated(prompt, turns)


def _score(loaded: Loaded, rows: Rows) -> Tensor:
    """Scores of B inputs, (B,), fp32: what the model's own forward gives to each alone."""
    from components.judges import _models

    pad_id = loaded.pad_id
    if pad_id is None:  # decoders pool the last token that is not padding: pad with one that ends no row
        ends = {int(row[-1]) for row in rows}
        pad_id = next(i for i in range(len(ends) + 1) if i not in ends)
        loaded.model.config.get_text_config().pad_token_id = pad_id
    ids, mask = _models.right_padded(rows, pad_id, loaded.model.device)
    scores: Tensor = loaded.model(input_ids=ids, attention_mask=mask).logits[:, 0]
    return scores


def _widen_head(loaded: Loaded) -> None:
    """Lets the head compute in fp32: bf16 keeps 8 bits, so that scores near 10 differ by 0.06 or not at all."""
    import torch

    linear = [module for module in loaded.model.modules() if isinstance(module, torch.nn.Linear)]
    for head in [module for module in linear if module.out_features == 1 and module.weight.dtype != torch.float32]:
        head.float()
        head.register_forward_pre_hook(lambda _, inputs: tuple(tensor.float() for tensor in inputs))
