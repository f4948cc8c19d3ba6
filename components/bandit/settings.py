"""The settings of the laboratory: kinds of bandits, drawn at random or written down. `SETTINGS` names them.

To add one, write a class like those below and put it into the tuple at the end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from components.bandit.games import Bandit, Game, PreferenceMatrix, RewardOrder
from components.bandit.policies import Array, normalise
from components.bandit.solver import SMALLEST_BETA
from components.config.schema import Section


class Setting(Section, ABC):
    """A kind of bandit."""

    name: str
    ordered: ClassVar[bool] = False  # by reward
    beta: PositiveFloat = Field(0.1, ge=SMALLEST_BETA, description="KL strength of the game")
    prompts: PositiveInt = Field(20, description="n")
    methods: list[str] | None = Field(None, min_length=1, description="labels of the methods that play it; absent: all")

    @abstractmethod
    def bandit(self, rng: np.random.Generator) -> Bandit:
        """The bandit; the same from the same random numbers."""


class RandomSetting(Setting, ABC):
    """A game drawn at random, with a reference whose logits are normal."""

    responses: int = Field(100, ge=2, description="Y")
    reference_spread: float = Field(1.0, ge=0, description="standard deviation of the reference's logits; 0: uniform")

    def bandit(self, rng: np.random.Generator) -> Bandit:
        """See `Setting.bandit`."""
        log_ref = normalise(self.reference_spread * rng.standard_normal((self.prompts, self.responses)))
        game, rewards = self.game(rng)
        return Bandit(game, log_ref, self.beta, rewards)

    @abstractmethod
    def game(self, rng: np.random.Generator) -> tuple[Game, Array | None]:
        """The preferences, and the rewards (n, Y) if they come from rewards."""


class Reward(RandomSetting):
    """Normal rewards; the response with more reward wins. With `levels`, rewards are rounded and many tie."""

    name: Literal["reward"] = "reward"
    ordered: ClassVar[bool] = True
    levels: int | None = Field(None, ge=2, description="number of distinct rewards, equally frequent; absent: no ties")

    def game(self, rng: np.random.Generator) -> tuple[Game, Array | None]:
        """See `RandomSetting.game`."""
        rewards = rng.standard_normal((self.prompts, self.responses))
        if self.levels is not None:
            ranks = rewards.argsort(axis=1).argsort(axis=1)
            rewards = (ranks * self.levels // self.responses).astype(np.float64)
        return RewardOrder(rewards), rewards


class BradleyTerry(RandomSetting):
    """Normal rewards; y wins with probability sigmoid((r(y) - r(y')) / temperature)."""

    name: Literal["bradley_terry"] = "bradley_terry"
    temperature: PositiveFloat = Field(1.0, description="of the judge")

    def game(self, rng: np.random.Generator) -> tuple[Game, Array | None]:
        """See `RandomSetting.game`."""
        rewards = rng.standard_normal((self.prompts, self.responses))
        margin = (rewards[:, :, None] - rewards[:, None, :]) / self.temperature
        return PreferenceMatrix(0.5 + np.tanh(margin / 2) / 2), rewards


class Cyclic(RandomSetting):
    """Not transitive: responses lie on a circle, and each beats those behind it. P = 1/2 + sin(angle) / 2."""

    name: Literal["cyclic"] = "cyclic"

    def game(self, rng: np.random.Generator) -> tuple[Game, Array | None]:
        """See `RandomSetting.game`."""
        place = rng.uniform(0, 2 * np.pi, (self.prompts, self.responses))
        return PreferenceMatrix(0.5 + np.sin(place[:, :, None] - place[:, None, :]) / 2), None


class Noise(RandomSetting):
    """Not transitive: each pair's preference is drawn for itself, uniform in [0, 1], or a tie."""

    name: Literal["noise"] = "noise"
    ties: float = Field(0.2, ge=0, le=1, description="share of pairs that tie")

    def game(self, rng: np.random.Generator) -> tuple[Game, Array | None]:
        """See `RandomSetting.game`."""
        shape = (self.prompts, self.responses, self.responses)
        drawn = np.triu(np.where(rng.random(shape) < self.ties, 0.0, rng.uniform(-0.5, 0.5, shape)), 1)
        return PreferenceMatrix(0.5 + drawn - drawn.swapaxes(1, 2)), None


class Matrix(Setting):
    """A preference matrix that is written down, the same for every prompt and seed."""

    name: Literal["matrix"] = "matrix"
    prompts: PositiveInt = Field(1, description="n")
    preference: list[list[float]] = Field(description="rows of P(y > y')")
    reference: list[PositiveFloat] | None = Field(None, description="weights of the reference; absent: uniform")

    @field_validator("preference")
    @classmethod
    def _is_a_game(cls, preference: list[list[float]]) -> list[list[float]]:
        if {len(row) for row in preference} != {len(preference)}:
            raise ValueError("must be square, with a row and a column for each response.")
        PreferenceMatrix(np.array([preference]))
        return preference

    @field_validator("reference")
    @classmethod
    def _fits(cls, reference: list[float] | None, known: ValidationInfo) -> list[float] | None:
        responses = len(known.data.get("preference", reference or []))
        if reference is not None and len(reference) != responses:
            raise ValueError(
                f"has {len(reference)} weights for {responses} responses. Give one for each, or leave it out."
            )
        return reference

    def bandit(self, rng: np.random.Generator) -> Bandit:
        """See `Setting.bandit`; nothing is random."""
        del rng
        preference = np.tile(np.array(self.preference), (self.prompts, 1, 1))
        weights = np.ones(len(self.preference)) if self.reference is None else np.array(self.reference)
        return Bandit(PreferenceMatrix(preference), normalise(np.tile(np.log(weights), (self.prompts, 1))), self.beta)


SETTINGS: dict[str, type[Setting]] = {
    setting.model_fields["name"].default: setting for setting in (Reward, BradleyTerry, Cyclic, Noise, Matrix)
}
