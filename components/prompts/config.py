"""The section `prompts` of a config."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from components.config.marks import KEPT, ONE_TASK
from components.config.paths import of_this_machine
from components.config.schema import Section
from components.prompts.records import BESIDE

Names = str | list[str]


class PromptsConfig(Section):
    """Where prompts come from and how many an iteration uses."""

    train: Annotated[Names | None, KEPT, ONE_TASK] = Field(
        None,
        description="JSONL or Parquet file, also as .gz, a pattern such as data/*.jsonl, or a Hugging Face dataset's "
        "name or directory; or a list of these",
    )
    evaluation: Annotated[Names | None, KEPT, ONE_TASK] = Field(
        None, description="held-out prompts, named likewise; absent: `evaluation_split`, or split off from `train`"
    )
    subset: Annotated[str | None, KEPT, ONE_TASK] = Field(
        None, min_length=1, description="of a Hugging Face dataset that has several, such as main of openai/gsm8k"
    )
    split: Annotated[str, KEPT, ONE_TASK] = Field("train", min_length=1, description="split of a Hugging Face dataset")
    evaluation_split: Annotated[str | None, KEPT, ONE_TASK] = Field(
        None,
        min_length=1,
        description="split with the held-out prompts, of `evaluation` or else of `train`; absent: `split`",
    )
    column: Annotated[str | None, KEPT, ONE_TASK] = Field(
        None,
        min_length=1,
        description="that holds the prompt, as text or as chat turns, of which the assistant's answer at the end is "
        "left out; absent: `prompt` or `messages`",
    )
    leave_out: Annotated[list[str], KEPT, ONE_TASK] = Field(
        [], description="columns that are not read, such as pictures, which JSON cannot hold"
    )
    drop_longer: Annotated[PositiveInt | None, KEPT, ONE_TASK] = Field(
        None, description="tokens; prompts of more, in the policy's chat template, are dropped in `start`"
    )
    held_out: Annotated[PositiveInt, KEPT, ONE_TASK] = Field(256, description="at most this many evaluation prompts")
    per_iteration: PositiveInt = Field(512, description="n, prompts per iteration")
    shards: PositiveInt | Literal["auto"] = Field(
        2,
        description="parallel generate and score tasks per iteration; auto: as many as let each take `shard_minutes`, "
        "by what the iteration before took, and `most_shards` where nothing is known yet",
    )
    shard_minutes: PositiveFloat = Field(15.0, description="of generate and score together, with `shards: auto`")
    most_shards: PositiveInt = Field(100, description="with `shards: auto`")
    allow_duplicates: Annotated[bool, ONE_TASK] = Field(
        False, description="keep prompts that repeat another's id or text; otherwise they stop the run"
    )

    @property
    def shards_at_most(self) -> int:
        """How many shards an iteration can have."""
        return min(self.most_shards, self.per_iteration) if self.shards == "auto" else self.shards

    @field_validator("train", "evaluation", mode="before")
    @classmethod
    def _are_names(cls, given: Any, info: ValidationInfo) -> Any:
        names = given if isinstance(given, list) else [given]
        if given == [] or (given is not None and not all(isinstance(name, str) for name in names)):
            raise ValueError(f"{given!r} cannot be used. Write a file's or dataset's name, or a list of names.")
        if isinstance(given, list) and "" in given:
            raise ValueError("one of the names is empty. Remove it.")
        for name in names:
            if name or (name == "" and info.field_name == "evaluation"):  # without training prompts more is told
                of_this_machine(name)
        return given

    @field_validator("evaluation_split")
    @classmethod
    def _differs(cls, split: str | None, info: ValidationInfo) -> str | None:
        if split is not None and split == info.data.get("split") and info.data.get("evaluation") is None:
            raise ValueError(f"{split!r} is also prompts.split, with the training prompts. Name another split.")
        return split

    @field_validator("column")
    @classmethod
    def _holds_prompts(cls, column: str | None) -> str | None:
        if column in BESIDE:
            raise ValueError(f"{column!r} has a meaning of its own. Name the column that holds the prompts.")
        return column

    @field_validator("leave_out")
    @classmethod
    def _leaves_the_prompt(cls, leave_out: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("column") in leave_out:
            raise ValueError(f"{info.data['column']!r} is also prompts.column. Remove one of the two.")
        return leave_out
