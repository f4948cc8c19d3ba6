"""The engine that runs wherever the model runs, on the policy's own forward; see `_sampler`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from components.data.records import TokenIds
from components.generation import Engine, Samples, Sampling
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:
    from components.policy.model import Policy


class TransformersEngine(Engine):
    """Draws with the policy's own forward, wherever that runs."""

    name: Literal["transformers"] = "transformers"
    batch_size: int = Field(512, ge=1, description="responses sampled at once")

    def check(self) -> None:
        """Nothing: the engine needs what the policy needs."""

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[TokenIds],
        seeds: NDArray[np.uint64],
        sampling: Sampling,
        progress: Progress = silent,
    ) -> Samples:
        """Samples responses; see `Engine.sample`."""
        from components.generation import _sampler  # torch and transformers take seconds to import

        return _sampler.sample(policy, prompts, seeds, sampling, batch_size=self.batch_size, progress=progress)
