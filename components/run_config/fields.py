"""The settings of a run: sections of config/, and the plug-ins that they name."""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any, cast

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from components.algorithms import BaseAlgorithm
from components.config import registry
from components.config.cluster import ClusterConfig
from components.config.compare import CompareConfig
from components.config.marks import ASIDE, KEPT, ONE_POLICY, ONE_TASK, SAME_STEPS, Shared
from components.config.registry import PlugIn
from components.config.schema import Section
from components.config.sections import (
    DemoConfig,
    EvaluationConfig,
    GenerationConfig,
    PolicyConfig,
    StepResources,
    TrainingConfig,
    fitting_micro_batch,
)
from components.config.steps import WITH_MODEL, WithModel
from components.config.sweep import with_sweep
from components.generation import Engine
from components.judges import Judge
from components.prompts.config import PromptsConfig
from components.trackers import Tracker

# Metaflow's checks recurse over the unrolled graph; a compiled Argo template passes its 1 MB limit earlier.
MAX_ITERATIONS = 100
WIND, TRANSFORMERS = {"name": "wind"}, {"name": "transformers"}
DEMO_JUDGE = {"name": "verifier", "function": "components.demo:score"}

# In place of a judge that nobody named, for as long as it takes to refuse the config with all that is wrong with it.
NOT_GIVEN = cast(Judge, None)

LATEST = "latest"  # of `start_from`: the newest run that can be continued
_RUN = f"{LATEST}|[^/]+/[^/]+"

AlgorithmField = Annotated[SerializeAsAny[BaseAlgorithm], PlugIn("algorithms", BaseAlgorithm)]
JudgeField = Annotated[SerializeAsAny[Judge], PlugIn("judges", Judge)]
EngineField = Annotated[SerializeAsAny[Engine], PlugIn("generation", Engine)]
TrackerField = Annotated[SerializeAsAny[Tracker], PlugIn("trackers", Tracker)]


class Generation(GenerationConfig):
    """How responses are sampled, and with what."""

    engine: EngineField = Field(
        default_factory=partial(registry.build, "generation", TRANSFORMERS, Engine),
        description="what draws them: {name: transformers} or {name: vllm}, with settings of its own",
    )


class RunFields(Section):
    """Every setting of a run, with its default."""

    seed: Annotated[int, Shared("seeds stand in compare.seeds")] = Field(
        0, ge=0, description="of all that is drawn at random; `run --seed N` has the last word"
    )
    deterministic: Annotated[bool, Shared("all arms compute in one way")] = Field(
        False,
        description="on a GPU: the same bits from the same seed, also after a resume; slower. On a CPU it is always so",
    )
    iterations: Annotated[int, Shared("all arms have the same T")] = Field(
        3, ge=1, le=MAX_ITERATIONS, description="T, how often to draw, judge, train and evaluate"
    )
    start_from: Annotated[str | None, ASIDE] = Field(
        None,
        description="FLOW/RUN, whose last policy, reference and prompts to continue with; latest: the newest finished "
        "run that this one can continue, or none",
        json_schema_extra={"pattern": f"^({_RUN})$"},
    )
    demo: Annotated[DemoConfig | None, ASIDE, KEPT, ONE_POLICY] = None
    policy: Annotated[PolicyConfig, KEPT, ONE_POLICY] = PolicyConfig()
    prompts: Annotated[PromptsConfig, ASIDE] = PromptsConfig()
    generation: Generation = Field(default_factory=Generation)
    judge: Annotated[JudgeField, KEPT, Shared("one judge compares all arms")] = Field(
        default_factory=lambda: NOT_GIVEN,
        description="who decides which response is better: {name: verifier, function: …}; the demo brings its own",
    )
    algorithm: AlgorithmField = Field(
        default_factory=partial(registry.build, "algorithms", WIND, BaseAlgorithm),
        description="how the policy is trained on the responses, such as {name: wind}",
    )
    training: TrainingConfig = TrainingConfig()
    evaluation: Annotated[EvaluationConfig, ASIDE, ONE_TASK] = EvaluationConfig()
    resources: Annotated[StepResources, ASIDE, SAME_STEPS] = StepResources()
    cluster: Annotated[ClusterConfig | None, ASIDE] = None
    live_cards: Annotated[list[WithModel], ASIDE, SAME_STEPS] = Field(
        list(WITH_MODEL),
        description="steps with a live progress card; it takes a core for some seconds each minute",
    )
    trackers: Annotated[list[TrackerField], ASIDE, SAME_STEPS] = Field(
        [], description="what is told each iteration's figures, beside the JSONL file that every run writes"
    )
    compare: Annotated[CompareConfig | None, ASIDE] = Field(None, description="for compare_flow.py")

    @field_validator("start_from")
    @classmethod
    def _names_a_run(cls, run: str | None) -> str | None:
        if run is not None and not re.fullmatch(_RUN, run):
            raise ValueError(
                f"{run!r} does not name a run. Write FLOW/RUN, such as WindFlow/1795473051411960, or latest."
            )
        if run is not None and run.startswith("CompareFlow/"):
            raise ValueError(
                f"{run!r} is a comparison. Export an arm, `wind export {run}/ARM/SEED DIR`, and set policy.model: DIR."
            )
        return run

    @model_validator(mode="before")
    @classmethod
    def _micro_batches_fit(cls, values: Any) -> Any:
        """Where nobody says how large a micro-batch is, no larger than a step has prompts."""
        training = values.get("training", {}) if isinstance(values, dict) else None
        if not isinstance(training, dict) or "micro_batch_size" in training:
            return values
        return {**values, "training": {**training, "micro_batch_size": fitting_micro_batch(values)}}

    @model_validator(mode="before")
    @classmethod
    def _sweep_into_arms(cls, values: Any) -> Any:
        compare = values.get("compare") if isinstance(values, dict) else None
        if not isinstance(compare, dict) or "sweep" not in compare:
            return values
        own = values.get("algorithm")
        return {**values, "compare": with_sweep(compare, own if isinstance(own, dict) else WIND)}

    @model_validator(mode="before")
    @classmethod
    def _demo_has_a_judge(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("judge") is not None:
            return values
        own = {key: value for key, value in values.items() if key != "judge"}
        return {**own, "judge": DEMO_JUDGE} if values.get("demo") is not None else own
