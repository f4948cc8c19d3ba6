"""Which model a judge loads, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from components.config.schema import Section


class ModelSettings(Section):
    """A judge's model, which a process loads once and keeps."""

    model: str = Field(description="Hugging Face directory or hub id")
    revision: str | None = Field(None, description="hub revision")
    trust_remote_code: bool = Field(False, description="run code that ships with the model")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="of weights and forward pass; auto: bf16 on GPUs that have it, else fp32"
    )
    tokens_per_batch: PositiveInt = Field(8192, description="padded tokens of one forward pass")
