"""Model directories with every kind of damage: each is refused with what is wrong, in which file, and a remedy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from components.config.errors import JudgeError, UserError
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.judges import _models
from components.judges.reward_model import RewardModel
from components.plan.models import PlanError, _without_weights
from components.policy.model import check_lengths, copy_files, load
from components.stages import preparation
from support.models.damages import CASES, CONFIG, SPECIAL, TOKENIZER, WEIGHTS

# Begins the sentence that says what to do.
VERBS = "Change|Check|Choose|Copy|Correct|Download|For|Merge|Name|Put|Read|Remove|Save|Set|Use|Write"
REMEDY = re.compile(rf" ({VERBS}) ")
JUDGED = [
    *(f"{CONFIG}: {key}" for key in ("vocab_size '60'", "num_hidden_layers -1", "return_dict False", "deep")),
    *(f"{TOKENIZER}: {how}" for how in ("model 3", "gone", "cut", "unknown word")),
    *(f"{SPECIAL}: model_max_length 'x'", "weights: cut at 0.3", "weights: torch.bool", f"{WEIGHTS}: folder"),
    *("index: twice", "no folder", "file", "template: '{% for %}'"),
]
PLANNED = [
    *(f"{CONFIG}: {how}" for how in ("empty", "null", "number", "deep", "hidden_act 'nonesuch'", "vocab_size '60'")),
    *(f"{CONFIG}: {how}" for how in ("num_attention_heads 3", "hidden_size -16", "head_dim 0", "vocab_size twice")),
    *(f"{CONFIG}: num_hidden_layers {value}" for value in ("None", "1000000000")),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, make_model, make_tokenizer):
    """A policy and a reward model, both whole."""
    reward = AutoModelForSequenceClassification.from_config(make_model(num_labels=1).config)
    found = {}
    for name, model in {"policy": make_model(), "judge": reward}.items():
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        make_tokenizer("{% for m in messages %}{{ m['content'] }} {% endfor %}").save_pretrained(found[name])
    return SimpleNamespace(**found)


def open_policy(folder: Path) -> None:
    """As `start` does."""
    config = PolicyConfig(model=str(folder))
    copy = copy_files(preparation._find_policy(config), folder.parent / "copy")
    policy = preparation._examined(load(copy, config), copy)
    prompt = Prompt("p", ({"role": "user", "content": "w7 w8"},))
    check_lengths(policy, [prompt], max_prompt_tokens=40, max_new_tokens=8)


def open_judge(folder: Path) -> None:
    _models.unload()
    RewardModel(model=str(folder), precision="fp32").check()


def open_plan(folder: Path) -> None:
    _without_weights(str(folder), "policy", AutoModelForCausalLM, None, False)


def damaged(source: Path, target: Path, name: str) -> Path:
    folder = target / "model"
    shutil.copytree(source, folder)
    CASES[name][0](folder)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refusal(read: Callable[[Path], object], folder: Path, error: type[UserError], name: str) -> None:
    with pytest.raises(error) as caught:
        read(folder)
    message = str(caught.value)
    assert [part for part in CASES[name][1] if part not in message] == []
    assert REMEDY.search(message)
    assert len(message) < 2000


def test_whole_models_are_read(whole, tmp_path):
    open_policy(shutil.copytree(whole.policy, tmp_path / "model"))
    open_judge(whole.judge)
    open_plan(whole.policy)


@pytest.mark.thorough(but=["config.json: cut", "tokenizer.json: cut"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")  # of the library, about what it is given
def test_a_damaged_policy_is_refused(name, whole, tmp_path):
    refusal(open_policy, damaged(whole.policy, tmp_path, name), UserError, name)


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_judge_is_refused(name, whole, tmp_path):
    refusal(open_judge, damaged(whole.judge, tmp_path, name), JudgeError, name)


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.filterwarnings("ignore")
def test_no_plan_is_made_of_a_damaged_config(name, whole, tmp_path):
    with pytest.raises(PlanError, match=r"^policy\.model: the config\.json of .* is not available") as caught:
        open_plan(damaged(whole.policy, tmp_path, name))
    assert "--parameters" in str(caught.value)
