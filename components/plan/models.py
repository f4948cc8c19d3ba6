"""Sizes of the models that a config names, from their config.json alone: built on the meta device, without weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.config.errors import UserError
from components.config.sections import LoraConfig
from components.judges import Judge
from components.judges._base import ModelJudge
from components.judges.ensemble import Ensemble
from components.plan.costs import Models, Shape
from components.plan.memory import BF16
from components.plan.space import FP32
from components.policy import checks, gguf_files
from components.policy.sources import locate
from components.run_config import RunConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Of a usual decoder layer, hidden² = 1: q and o are square, k and v a quarter of that, three MLP matrices 3.5 of it.
USUAL_LORA = 2 * (1 + 1) + 2 * (1 + 1 / 4) + 3 * (1 + 3.5)


class PlanError(UserError):
    """A config of which no plan can be made, or a model of unknown size."""


def sizes(config: RunConfig, given: Mapping[str, float]) -> Models:
    """Sizes of the policy and of the judges' models.

    Args:
        config: of one run, with a policy of its own.
        given: parameters of models by name, in place of what their config.json says.

    Raises:
        PlanError: a model whose config.json is not available, or a name in `given` that the config does not have.
    """
    members = [judge for judge in judges(config.judge) if isinstance(judge, ModelJudge)]
    names = [str(config.policy.model), *(judge.model for judge in members)]
    if unknown := sorted(given.keys() - set(names)):
        raise PlanError(f"--parameters {unknown[0]}: the config has no such model. It has {', '.join(names)}.")
    policy, adapter, published = _policy(config, given)
    return Models(policy, adapter, published, [(judge, _judge(judge, given)) for judge in members])


def judges(judge: Judge) -> Iterator[Judge]:
    """The judge, or the members of an ensemble."""
    if not isinstance(judge, Ensemble):
        yield judge
        return
    yield from (member.judge for member in judge.judges)


def _policy(config: RunConfig, given: Mapping[str, float]) -> tuple[Shape, float, int]:
    """The policy's shape, the parameters that LoRA adds, and the bytes of a weight as published."""
    settings, lora = config.policy, config.training.lora
    name = str(settings.model)
    if name in given:
        shape = Shape.of_size(given[name])
        adapter = lora.rank * shape.layers * shape.hidden * USUAL_LORA if lora else 0.0
        return shape, adapter, BF16
    from components.policy.library import AutoModelForCausalLM

    path = locate(settings)
    if path.is_file():
        model = gguf_files.without_weights(path)
    else:
        name = str(path) if path.is_dir() else name
        model = _without_weights(name, "policy", AutoModelForCausalLM, settings.revision, settings.trust_remote_code)
    published = FP32 if str(model.config.dtype) == "torch.float32" else BF16
    return _shape(model), _added(model, lora), published


def _judge(judge: ModelJudge, given: Mapping[str, float]) -> Shape:
    if judge.model in given:
        return Shape.of_size(given[judge.model])
    import transformers

    from components.judges._pairrm import PairRMModel

    kinds: dict[str, Any] = {
        "pairrm": PairRMModel,
        "reward_model": transformers.AutoModelForSequenceClassification,
        "llm_judge": transformers.AutoModelForCausalLM,
    }
    kind = kinds.get(judge.name, transformers.AutoModel)
    return _shape(_without_weights(judge.model, "judge", kind, judge.revision, judge.trust_remote_code))


def _without_weights(name: str, key: str, kind: Any, revision: str | None, code: bool) -> PreTrainedModel:
    from components.policy import pretrained
    from components.policy.library import AutoConfig

    try:
        if Path(name).is_dir():
            checks.require_json(Path(name))
            checks.require_settings(Path(name))
        config = AutoConfig.from_pretrained(name, revision=revision or "main", trust_remote_code=code)
        return pretrained.skeleton(config, kind, code=code)
    except pretrained.UNLOADABLE as error:
        raise PlanError(
            f"{key}.model: the config.json of {name} is not available ({pretrained.said(error)}). Put it into a "
            f"directory and name that, or give the size: --parameters {name}=8.0e9"
        ) from error


def _shape(model: PreTrainedModel) -> Shape:
    config = model.config.get_text_config()
    needed = ("num_attention_heads", "hidden_size", "num_hidden_layers")
    if lacking := [name for name in needed if not isinstance(getattr(config, name, None), int)]:
        raise PlanError(
            f"{type(model).__name__}: its config has no {lacking[0]}, which the formulas need. Give the size: "
            "--parameters MODEL=8.0e9"
        )
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    intermediate = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=intermediate or 4 * config.hidden_size,
        kv=2 * head * (getattr(config, "num_key_value_heads", None) or heads),
    )


def _added(model: PreTrainedModel, settings: LoraConfig | None) -> float:
    """Parameters of the adapter that LoRA trains."""
    if settings is None:
        return 0.0
    from components.policy import lora

    lora.check(model, settings)
    lora.add(model, settings, seed=0)
    return sum(parameter.numel() for parameter in lora.weights(model).values())
