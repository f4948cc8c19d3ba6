"""Judge that asks a language model which of two responses is better, and reads the probabilities of its verdict.

Zheng et al., "Judging LLM-as-a-judge", NeurIPS 2023, arXiv 2306.05685. Differs in that no verdict is generated: the
preference is P("A") / (P("A") + P("B")) at the first position of the answer, a figure without sampling noise. Models
favour one side: both orders are averaged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, SerializeAsAny, field_validator

from components.config import registry
from components.config.errors import JudgeError, PolicyError
from components.config.registry import PlugIn
from components.config.schema import TemplateOptions
from components.data.records import Prompt
from components.generation import Engine
from components.judges import sigmoid
from components.judges._base import PROBE, PROBE_RESPONSES, PairwiseModelJudge, conversation, filled, require_places
from components.judges._pairwise import FirstWins, Pairs
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:  # a config is read in steps that need no torch
    from torch import Tensor

    from components.judges._models import Loaded

EngineField = Annotated[SerializeAsAny[Engine], PlugIn("generation", Engine)]
ENGINES = ("transformers", "vllm")  # that run a judge
DEFAULT_PROMPT = """\
Two assistants have answered the same prompt. Decide whose response is better: more correct, more helpful, and true \
to what the prompt asks for. Neither the order of the responses nor their length counts.

# Prompt
{prompt}

# Response A
{response_a}

# Response B
{response_b}

# Verdict
Which response is better? Answer with the letter A or the letter B alone."""


class LLMJudge(PairwiseModelJudge):
    """A language model that is asked which of two responses is better.

    K(K - 1) inputs per prompt; with `opponents` m about K·m.
    """

    name: Literal["llm_judge"] = "llm_judge"
    prompt: str = Field(DEFAULT_PROMPT, description="with {prompt}, {response_a} and {response_b}")
    verdicts: list[str] = Field(
        ["A", "B"], min_length=2, max_length=2, description="first tokens of an answer for response a and for b"
    )
    template_options: TemplateOptions = Field(
        default_factory=dict, description="for the chat template, such as {enable_thinking: false}"
    )
    max_tokens: PositiveInt | None = Field(None, description="longest input; absent: what the model is made for")
    max_response_tokens: PositiveInt | None = Field(
        None, description="the judge reads no more of a response; absent: all, and too long an input stops the run"
    )
    min_verdict_mass: float = Field(
        0.5, ge=0, le=1, description="less probability on the two verdicts, in the mean, stops the run"
    )

    engine: EngineField = Field(
        default_factory=partial(registry.build, "generation", {"name": "transformers"}, Engine),
        description="what runs the model: {name: transformers}, or {name: vllm} with the settings of engine: vllm",
    )

    @field_validator("engine")
    @classmethod
    def _can_run_it(cls, engine: Engine) -> Engine:
        if engine.name not in ENGINES:
            raise ValueError(f"{engine.name!r} runs no judge. Use {{name: transformers}} or {{name: vllm}}.")
        if not engine.reads_files and engine != registry.build("generation", {"name": engine.name}, Engine):
            raise ValueError("of {name: transformers} a judge reads no settings. Set judge.tokens_per_batch instead.")
        return engine

    @field_validator("prompt")
    @classmethod
    def _has_places(cls, value: str) -> str:
        return require_places(value, "prompt", "response_a", "response_b")

    @property
    def gpus(self) -> int:
        """See `Judge.gpus`."""
        return self.engine.gpus

    @property
    def starts_anew(self) -> bool:
        """See `Judge.starts_anew`."""
        return self.engine.reads_files

    def deciding(self) -> dict[str, Any]:
        """See `Judge.deciding`; engines differ in their rounding."""
        return self.model_dump(exclude={"engine"})

    def check(self) -> None:
        """Loads the model and judges one pair.

        Raises JudgeError for a model that answers with no verdict, and for one that is no causal language model; for
        an engine that is not installed or does not take the model.
        """
        from components.judges import _verdict_models

        loaded = _verdict_models.load(self, self.engine)
        if loaded.files is None:  # else the engine takes nothing but causal models
            _require_causal(loaded)
        self.judge([PROBE], PROBE_RESPONSES)

    def load(self) -> None:
        """See `Judge.load`."""
        from components.judges import _verdict_models

        if not self.engine.reads_files:  # which starts anew for each call
            _verdict_models.load(self, self.engine)

    def compare_pairs(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], pairs: Pairs, progress: Progress = silent
    ) -> FirstWins:
        """See `PairwiseJudge.compare_pairs`."""
        from components.judges import _models, _verdict_models

        loaded = _verdict_models.load(self, self.engine)
        verdicts = self._verdict_ids(loaded)
        texts, truncated = self._readable(loaded, responses)
        if self.max_response_tokens is not None:
            progress = partial(progress, truncated=truncated)
        mass: list[float] = []

        def logit(rows: list[NDArray[np.int32]]) -> Tensor:
            logp = _verdict_models.logprobs(self.engine, loaded, rows, verdicts, progress)
            mass.extend(logp.exp().sum(1).tolist())
            return logp[:, 0] - logp[:, 1]

        logits = _models.run(
            self._encode(loaded, prompts, texts, pairs),
            logit,
            # An engine makes its own batches.
            tokens_per_batch=self.tokens_per_batch if loaded.files is None else sys.maxsize,
            progress=lambda done, total, **figures: progress(done, total, verdict_mass=float(np.mean(mass)), **figures),
        )
        if np.mean(mass) < self.min_verdict_mass:
            raise JudgeError(
                f"judge.model: {self.model} answers with {self.verdicts[0]!r} or {self.verdicts[1]!r} with a "
                f"probability of {np.mean(mass):.2g} only, so its preferences mean little. Change judge.prompt or "
                "judge.verdicts, turn its thinking off with judge.template_options, or lower judge.min_verdict_mass."
            )
        return FirstWins(sigmoid(logits))

    def _verdict_ids(self, loaded: Loaded) -> tuple[int, int]:
        ids = []
        for verdict in self.verdicts:
            row = loaded.tokenizer(verdict, add_special_tokens=False)["input_ids"]
            if len(row) != 1 or row[0] == loaded.tokenizer.unk_token_id:
                raise JudgeError(
                    f"judge.verdicts: {verdict!r} is not one token of {self.model}. Use another word, in judge.prompt "
                    "too."
                )
            ids.append(int(row[0]))
        if ids[0] == ids[1]:
            raise JudgeError(f"judge.verdicts: {self.verdicts} are the same token of {self.model}. Use two words.")
        return ids[0], ids[1]

    def _readable(self, loaded: Loaded, responses: Sequence[Sequence[str]]) -> tuple[list[list[str]], float]:
        """Responses as the judge is shown them, and the share that lost their end."""
        from components.judges import _models

        limit, blank = self.max_response_tokens, _models.blank_special(loaded.tokenizer)
        texts = [blank(text) for row in responses for text in row]
        cut = 0
        if limit is not None:
            rows = _models.encode(loaded.tokenizer, texts, add_special_tokens=False)
            for i in [i for i, row in enumerate(rows) if len(row) > limit]:
                texts[i] = loaded.tokenizer.decode(rows[i][:limit], clean_up_tokenization_spaces=False)
                cut += 1
        k = len(responses[0])
        return [texts[i : i + k] for i in range(0, len(texts), k)], cut / len(texts)

    def _encode(
        self, loaded: Loaded, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]], pairs: Pairs
    ) -> list[NDArray[np.int32]]:
        """Token ids of ordered pairs, up to where the verdict begins."""
        from components.judges import _models

        tokenizer, blank = loaded.tokenizer, _models.blank_special(loaded.tokenizer)
        shown = [blank(conversation(prompt)) for prompt in prompts]
        asked = [
            filled(self.prompt, prompt=shown[i], response_a=texts[i][first], response_b=texts[i][second])
            for i, first, second in pairs
        ]
        if chat := bool(tokenizer.chat_template):
            turns = [[{"role": "user", "content": text}] for text in asked]
            template = _models.chat_of(loaded, self.template_options, answers=True)
            asked = [
                _models.templated(template, prompts[i], turn, answer=True)
                for turn, (i, _, _) in zip(turns, pairs, strict=True)
            ]
        rows = _models.encode(tokenizer, asked, add_special_tokens=not chat)
        if not chat:  # some tokenizers close a text with EOS, after which no verdict follows
            rows = [row[:-1] if row[-1] == tokenizer.eos_token_id else row for row in rows]
        rows, _ = _models.limited(
            loaded,
            rows,
            loaded.limit(self.max_tokens),
            "never",
            lambda row: "prompt {!r}, responses {} and {}".format(prompts[pairs[row][0]].id, *pairs[row][1:]),
            "Set judge.max_response_tokens, raise judge.max_tokens, or lower generation.max_new_tokens.",
        )
        return rows


def _require_causal(loaded: Loaded) -> None:
    """Raises JudgeError for a model that does not predict next tokens from those before alone, or has NaN in it."""
    import torch

    from components.policy import causality, whole
    from components.policy.logprobs import REFUSALS

    model = loaded.model
    name = f"judge.model: {type(model).__name__}"
    ids = torch.arange(1, 9, device=model.device)[None] % loaded.tokenizer.vocab_size
    try:
        whole.require_finite(model, "judge", type(model).__name__)
        with torch.no_grad():
            causality.require_causal(model, ids, model(input_ids=ids, use_cache=False).logits, name)
    except PolicyError as error:
        raise JudgeError(str(error)) from error
    except (*REFUSALS, ArithmeticError) as error:
        raise JudgeError(
            f"{name} does not run on token ids alone ({type(error).__name__}: {error}). Use a causal language model."
        ) from error
