"""A language model that is asked for verdicts: on the judge's own forward, or on an engine that reads its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from components.config.errors import EngineError, JudgeError, PolicyError
from components.config.sections import PolicyConfig
from components.generation import Engine, ModelFiles
from components.judges import _models
from components.judges._models import Loaded
from components.judges._settings import ModelSettings
from components.policy import pretrained
from components.policy.batches import left_padded, prefix_positions
from components.policy.files import fetch
from components.policy.library import AutoModelForCausalLM
from components.policy.model import best_device
from components.runtime.progress import Progress


def load(settings: ModelSettings, engine: Engine) -> Loaded:
    """The model that a judge names, without its weights if the engine reads its files.

    Raises JudgeError as `_models.load` does, and for an engine that is not installed.
    """
    if not engine.reads_files:
        return _models.load(settings, AutoModelForCausalLM)
    with _engine_errors():
        engine.check()
    _models.unload()  # other judges' models: the engine wants the GPU for itself
    return _without_weights(settings)


def logprobs(
    engine: Engine, loaded: Loaded, rows: list[NDArray[np.int32]], verdicts: tuple[int, int], progress: Progress
) -> Tensor:
    """Log-probs of the two verdicts as the next token of B inputs, (B, 2), fp32."""
    if loaded.files is None:
        return _forward(loaded, rows, verdicts)

    def show(done: int, total: int, **_: float) -> None:
        if done < total:  # the last time is told with the figures that are known then
            progress(done, total)

    with _engine_errors():
        return torch.from_numpy(engine.next_logprobs(loaded.files, rows, verdicts, show)).float()


def _without_weights(settings: ModelSettings) -> Loaded:
    """A causal language model for an engine that reads its files: tokenizer, config, and no weights in memory.

    Raises JudgeError as `load` does, as far as that can be told without the weights.
    """
    name, code = settings.model, settings.trust_remote_code
    try:
        directory = fetch(PolicyConfig(model=name, revision=settings.revision, trust_remote_code=code), "judge")
        tokenizer = pretrained.read_tokenizer(directory, key="judge", name=name, code=code)
        with pretrained.Refusals(f"judge.model: {name} cannot be loaded", "Use a causal language model"):
            model = pretrained.without_weights(directory, code=code)
        pretrained.require_embedded(model, tokenizer, "judge")
    except PolicyError as error:
        raise JudgeError(str(error)) from error
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    files = ModelFiles(directory, "judge", _models.chosen_precision(settings.precision, best_device()), positions, code)
    return Loaded(model, tokenizer, None, files)


@contextmanager
def _engine_errors() -> Iterator[None]:
    """What an engine has against the judge becomes a JudgeError."""
    try:
        yield
    except EngineError as error:
        raise JudgeError(str(error).replace("generation.engine:", "judge.engine:", 1)) from error
    except FloatingPointError as error:
        raise JudgeError(f"judge.model: {error}. Use judge.precision: fp32, or check its weights.") from error


def _forward(loaded: Loaded, rows: list[NDArray[np.int32]], verdicts: tuple[int, int]) -> Tensor:
    batch = left_padded(rows, loaded.pad_id or 0, loaded.model.device)
    logits: Tensor = loaded.model(
        input_ids=batch.input_ids,
        attention_mask=batch.mask,
        position_ids=prefix_positions(batch),
        logits_to_keep=1,
    ).logits[:, -1]
    return logits.float().log_softmax(-1)[:, list(verdicts)]
