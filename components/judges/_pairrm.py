"""PairRM's network, for checkpoints in the format of llm-blender/PairRM-hf."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Model, DebertaV2PreTrainedModel


class PairRMModel(DebertaV2PreTrainedModel):
    """DeBERTa with an MLP on the hidden states of three marker tokens.

    Parameters have the names of the original, https://github.com/yuchenlin/LLM-Blender (Jiang et al., ACL 2023,
    arXiv 2306.02561), whose own class does not load under transformers 5.
    """

    base_model_prefix = "pretrained_model"
    # A buffer in checkpoints of older versions; positions are counted anew.
    _keys_to_ignore_on_load_unexpected = ("position_ids", "position_embeddings")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if not hasattr(config, "n_tasks"):
            raise ValueError("its config.json has no n_tasks, so it is no PairRM")
        size = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)
        # Dropout rests here, but counts in the names of the layers behind it.
        self.head_layer = nn.Sequential(
            nn.Dropout(), nn.Linear(2 * size, size), nn.Tanh(), nn.Dropout(), nn.Linear(size, config.n_tasks)
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logit that the first candidate is better than the second.

        Args:
            input_ids: (B, L), each row with one token of each marker of the config: `source_prefix_id`,
                `cand1_prefix_id`, `cand2_prefix_id`.
            attention_mask: (B, L), 0 at padding.

        Returns:
            (B,), the mean over tasks of left minus right score.
        """
        hidden = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        config, rows = self.config, torch.arange(len(input_ids), device=input_ids.device)
        markers = (config.source_prefix_id, config.cand1_prefix_id, config.cand2_prefix_id)
        source, first, second = (hidden[rows, (input_ids == marker).int().argmax(1)] for marker in markers)
        left = self.head_layer(torch.cat([source, first], -1))
        right = self.head_layer(torch.cat([source, second], -1))
        logits: Tensor = (left - right).mean(-1)
        return logits
