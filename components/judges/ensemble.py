"""Judge that takes the weighted mean of several judges' preferences."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, GetJsonSchemaHandler, PlainSerializer
from pydantic.functional_validators import PlainValidator, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from components.config import registry
from components.config.errors import ConfigError, JudgeError
from components.config.schema import KeyedError, cut
from components.data.records import Prompt
from components.judges import Answers, Judge, Judgement, summed, with_pair_rate
from components.judges._truncated import LOSE, TruncatedPenalty
from components.runtime.progress import Progress, silent


class Member(NamedTuple):
    """A judge of an ensemble."""

    judge: Judge
    weight: float


def _member(settings: Any) -> Member:
    """A member from a judge's section with its weight."""
    if isinstance(settings, Member):
        return settings
    own = {key: value for key, value in settings.items() if key != "weight"} if isinstance(settings, dict) else settings
    weight = settings.get("weight", 1.0) if isinstance(settings, dict) else 1.0
    problems, judge = [] if _can_weigh(weight) else [f"weight: {_refusal(weight)}"], None
    try:
        judge = registry.resolve("judges", own, Judge)
    except KeyedError as error:
        problems.insert(0, str(error))
    except ConfigError as error:  # of the section as a whole
        if not problems:
            raise
        problems.insert(0, f"name: {error}")
    if judge is None or problems:
        raise KeyedError("\n".join(problems))
    return Member(judge, float(weight))


def _refusal(weight: Any) -> str:
    nothing = ", or remove the judge: it would be asked and not counted" if weight == 0 else ""
    return f"{cut(repr(weight))} cannot be used. Give a positive number below 1.8e308{nothing}."


def _can_weigh(weight: Any) -> bool:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return number and 0 < weight <= sys.float_info.max


def _written(member: Member) -> dict[str, Any]:
    return {**member.judge.model_dump(), "weight": member.weight}


class _MemberSchema:
    """A member in the JSON schema: any judge's section with a weight; an ensemble's own members are not followed."""

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        weight = {"type": "number", "exclusiveMinimum": 0, "default": 1, "description": "of its verdict"}
        own = Ensemble.model_fields["name"].default
        known = [registry.find("judges", name, Judge) for name in registry.names("judges") if name != own]
        schemas = [handler.resolve_ref_schema(handler(judge.__pydantic_core_schema__)) for judge in known]
        nested = {"type": "object", "required": ["name", "judges"], "properties": {"name": {"const": own}}}
        return {
            "anyOf": [
                *({**s, "required": ["name"], "properties": {**s["properties"], "weight": weight}} for s in schemas),
                nested,
            ]
        }


MemberField = Annotated[Member, PlainValidator(_member), PlainSerializer(_written), _MemberSchema()]


class Ensemble(Judge):
    """Judges with weights, of which only the proportions count. A process keeps all their models loaded."""

    model_config = ConfigDict(json_schema_extra={"allOf": [{"properties": {"truncated_penalty": {"enum": [0, LOSE]}}}]})

    name: Literal["ensemble"] = "ensemble"
    judges: list[MemberField] = Field(
        min_length=1, description="each a judge's section, with a `weight` of 1 unless given"
    )

    @field_validator("judges")
    @classmethod
    def _all_count(cls, judges: list[Member]) -> list[Member]:
        most = max(member.weight for member in judges)
        if nothing := [(i, member.weight) for i, member in enumerate(judges) if most + member.weight == most]:
            place, weight = nothing[0]
            raise ValueError(
                f"the weight {weight!r} of member {place} is nothing beside {most!r}. Give it a larger one, or remove "
                "the member."
            )
        return judges

    @field_validator("truncated_penalty")
    @classmethod
    def _has_no_scale(cls, value: TruncatedPenalty) -> TruncatedPenalty:
        if value not in (0, LOSE):
            raise ValueError(f"{value!r} has no scale here; members have their own. Set it in `judges`, for each.")
        return value

    @property
    def has_scores(self) -> bool:
        """Whether all members have some."""
        return all(judge.has_scores for judge, _ in self.judges)

    @property
    def scores_what_loses(self) -> bool:
        """Whether it or a member lets responses lose, and all members have scores."""
        lose = [self.truncated_penalty, *(judge.truncated_penalty for judge, _ in self.judges)]
        return LOSE in lose and self.has_scores

    def marks(self) -> set[str]:
        """Its own, and those of all members."""
        return super().marks().union(*(judge.marks() for judge, _ in self.judges))

    @property
    def draws_opponents(self) -> bool:
        """Whether a member does."""
        return any(judge.draws_opponents for judge, _ in self.judges)

    @property
    def members(self) -> Sequence[Judge]:
        """Those of all members."""
        return [own for judge, _ in self.judges for own in judge.members]

    @model_validator(mode="after")
    def _knows_all_pairs(self) -> Self:
        if self.truncated_penalty == LOSE and self.draws_opponents:
            raise ValueError(
                "truncated_penalty: lose decides pairs that a member with `opponents` did not compare. "
                "Set it in `judges`, for each."
            )
        return self

    def model_inputs(self, n: int, k: int, policies: int = 1) -> int:
        """Those of all members."""
        return sum(judge.model_inputs(n, k, policies) for judge, _ in self.judges)

    def deciding(self) -> dict[str, Any]:
        """Those of all members, and their weights."""
        members = [{**judge.deciding(), "weight": weight} for judge, weight in self.judges]
        return {**self.model_dump(), "judges": members}

    def check(self) -> None:
        """Checks all members. Raises JudgeError with the member's place."""
        for i, (judge, _) in enumerate(self.judges):
            with _at(i, judge):
                judge.check()

    def unload(self) -> None:
        """Frees the memory of all members."""
        for judge, _ in self.judges:
            judge.unload()

    def judge(
        self, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]], progress: Progress = silent
    ) -> Judgement:
        """`verdict` of whole responses that nothing cut off."""
        truncated = np.zeros((len(responses), len(responses[0]) if responses else 0), dtype=bool)
        return self.verdict(prompts, Answers(responses, truncated, [""] * len(responses)), progress)

    def verdict(self, prompts: Sequence[Prompt], answers: Answers, progress: Progress = silent) -> Judgement:
        """Mean of the members' preferences and, where all of them have some, rewards; see `Judge.verdict`.

        Parts of members keep their names. Raises JudgeError for a name that two members give.
        """
        n, k = answers.truncated.shape
        read = replace(answers, texts=self.readable(answers))
        total, before = self.model_inputs(n, k, answers.policies), 0
        show = with_pair_rate(progress, n, k)
        judgements, weights = [], _scaled([member.weight for member in self.judges])
        for i, (judge, _) in enumerate(self.judges):
            inputs = judge.model_inputs(n, k, answers.policies)
            with _at(i, judge):
                judgements.append(judge.verdict(prompts, read, _part(show, before, inputs, total)))
            before += inputs
        mean = Judgement(
            np.average([judgement.preference for judgement in judgements], axis=0, weights=weights),
            np.average([judgement.reward for judgement in judgements], axis=0, weights=weights),
            _all_parts(judgements),
            summed(judgement.usage for judgement in judgements),
            _all_orders(judgements),
        )
        return self.after_penalty(mean, answers.truncated)


def _scaled(weights: Sequence[float]) -> list[float]:
    """Weights below 1, for their sum to be a number; a power of 2 between them changes no other bit of a mean."""
    exponent = math.frexp(max(weights))[1]
    return [math.ldexp(weight, -exponent) for weight in weights]


def _all_parts(judgements: Sequence[Judgement]) -> dict[str, NDArray[np.float64]]:
    """The parts of all members."""
    owners: dict[str, int] = {}
    for i, judgement in enumerate(judgements):
        for name in judgement.parts:
            if name in owners:
                raise JudgeError(
                    f"judge.judges.{i}: returns a part {name!r}, as judge.judges.{owners[name]} does. "
                    "Rename it in one of the two."
                )
            owners[name] = i
    return {name: values for judgement in judgements for name, values in judgement.parts.items()}


def _all_orders(judgements: Sequence[Judgement]) -> dict[str, NDArray[np.float64]]:
    """What all members saw in both orders, by their places."""
    found = [(i, name, pairs) for i, one in enumerate(judgements) for name, pairs in one.orders.items()]
    return {f"judge.judges.{i}{name.removeprefix('judge')}": pairs for i, name, pairs in found}


@contextmanager
def _at(i: int, judge: Judge) -> Iterator[None]:
    """Puts the member's place into the keys that its errors name."""
    try:
        yield
    except JudgeError as error:
        keys = "|".join(type(judge).model_fields)
        raise JudgeError(re.sub(rf"\bjudge\.(?=({keys})\b)", f"judge.judges.{i}.", str(error))) from error


def _part(progress: Progress, before: int, inputs: int, total: int) -> Progress:
    """Progress of one member as part of the whole; the rate of pairs is that of the whole."""

    def show(done: int, of: int, **figures: float) -> None:
        figures.pop("pairs_per_second", None)
        progress(before + inputs * done // of, total, **figures)

    return show
