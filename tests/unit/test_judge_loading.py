"""`Judge.load`: the model is there before anything is judged, and once."""

from __future__ import annotations

import pytest

from components.config.registry import build
from components.judges import Judge, _models
from components.policy import pretrained
from support.models import pairrm, reward

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

ASK = "{prompt} w50 {response_a} w51 {response_b} w52"
LLM = {"name": "llm_judge", "prompt": ASK, "verdicts": ["w58", "w59"], "min_verdict_mass": 0.0}
CHAT = "{% for m in messages %}user: {{ m['content'] }} <end>{% endfor %}{% if add_generation_prompt %} w6{% endif %}"


@pytest.fixture
def judges(tmp_path, make_model, make_tokenizer):
    """The settings of a judge with a small model of its own, by name."""
    for name in ("pairrm", "reward_model", "llm_judge"):
        (tmp_path / name).mkdir()
    make_model().save_pretrained(tmp_path / "llm_judge")
    make_tokenizer(CHAT).save_pretrained(tmp_path / "llm_judge")
    return {
        "pairrm": {"name": "pairrm", "model": str(pairrm.save_original(tmp_path / "pairrm"))},
        "reward_model": {
            "name": "reward_model",
            "model": str(reward.save_reward(tmp_path / "reward_model", make_tokenizer)),
        },
        "llm_judge": {**LLM, "model": str(tmp_path / "llm_judge")},
    }


@pytest.fixture
def reads(monkeypatch):
    """The models whose weights are read, one after the other."""
    found, read = [], pretrained.read

    def noted(directory, *arguments, **options):
        found.append(directory.name)
        return read(directory, *arguments, **options)

    monkeypatch.setattr(pretrained, "read", noted)
    _models.unload()
    yield found
    _models.unload()


def made(settings):
    return build("judges", settings, Judge)


@pytest.mark.parametrize("name", ["pairrm", "reward_model", "llm_judge"])
def test_judging_finds_the_model_loaded(judges, reads, name):
    judge = made(judges[name])
    judge.load()
    assert reads == [name]
    asked = pairrm.PROMPTS if name == "pairrm" else reward.PROMPTS
    judge.judge(asked, [["w20", "w21"]] * len(asked))
    assert reads == [name]
    judge.unload()
    judge.judge(asked, [["w20", "w21"]] * len(asked))
    assert reads == [name, name]


def test_an_ensemble_loads_all_members(judges, reads):
    score = {"name": "verifier", "function": "support.runs:total"}
    made({"name": "ensemble", "judges": [judges["reward_model"], score, judges["llm_judge"]]}).load()
    assert reads == ["reward_model", "llm_judge"]


def test_an_engine_that_starts_anew_has_nothing_loaded_before(judges, reads):
    anew = {**judges["llm_judge"], "engine": {"name": "vllm"}}
    made(anew).load()
    made({"name": "ensemble", "judges": [judges["reward_model"], anew]}).load()
    assert reads == []
