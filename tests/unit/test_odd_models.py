"""Models that load and yet would fail or mislead in a run: found, with the key to change, before work starts."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    CpmAntConfig,
    RwkvConfig,
    T5Config,
)

from components.config.errors import JudgeError, PolicyError
from components.config.sections import PolicyConfig
from components.judges import _models
from components.judges.llm_judge import LLMJudge
from components.judges.reward_model import RewardModel
from components.policy import vocabulary
from components.policy.model import load, save
from components.run_config import checked
from components.stages import preparation
from components.stages.in_process import Pipeline

TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}"


@pytest.fixture
def saved(tmp_path, make_model, make_tokenizer):
    """`saved(model)`: the folder of a model, a tiny Llama unless told, with a tokenizer of 60 words."""

    def save(model=None):
        (model or make_model()).save_pretrained(tmp_path / "model")
        make_tokenizer(TEMPLATE).save_pretrained(tmp_path / "model")
        _models.unload()
        return tmp_path / "model"

    return save


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def opened(folder):
    """The policy as `start` opens it."""
    return preparation._examined(load(folder, PolicyConfig(model=str(folder))), folder)


@pytest.mark.parametrize(
    "flags",
    [
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"use_cache": False},
        {"output_attentions": True, "output_hidden_states": True, "use_cache": False},
    ],
    ids=str,
)
def test_flags_of_the_config_change_nothing_and_can_be_saved(saved, tmp_path, flags):
    folder = saved()
    edit(folder / "config.json", **flags)
    policy = opened(folder)
    found = load_file(save(policy, tmp_path / "copy") / "model.safetensors")
    expected = load_file(folder / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_tokenizer_larger_than_the_embedding_is_told_first(saved, make_tokenizer):
    folder = saved()
    tokenizer = make_tokenizer(TEMPLATE)
    tokenizer.add_tokens([f"<x{i}>" for i in range(200)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(PolicyError, match=r"tokens, the model's embedding only 60"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "number", "refused"),
    [
        ("model.layers.1.mlp.up_proj.weight", float("nan"), True),
        ("model.embed_tokens.weight", float("nan"), True),
        ("lm_head.weight", float("inf"), True),
        ("model.norm.weight", float("nan"), True),
        ("model.norm.weight", 1e30, False),
    ],
)
def test_a_number_that_is_none_is_found_wherever_it_is(saved, name, number, refused):
    folder = saved()
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[-1] = number
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    if refused:
        with pytest.raises(PolicyError, match=rf"NaN or infinity in 1 of the \d+ numbers of {name}"):
            opened(folder)
        with pytest.raises(JudgeError, match=rf"judge\.model: .* numbers of {name}"):
            LLMJudge(model=str(folder), precision="fp32").check()
    else:
        load(folder, PolicyConfig(model=str(folder)))


@pytest.mark.parametrize("settings", [{"max_new_tokens": -1}, {"cache_implementation": "nonesuch"}], ids=str)
def test_a_generation_config_that_contradicts_itself_is_named(saved, settings):
    folder = saved()
    edit(folder / "generation_config.json", **settings)
    with pytest.raises(PolicyError, match=r"Check its generation_config\.json") as caught:
        load(folder, PolicyConfig(model=str(folder)))
    assert "config.json and" not in str(caught.value)


@pytest.mark.parametrize("token", ["unk_token", "pad_token", "eos_token", "bos_token"])
def test_a_special_token_without_a_name(saved, token):
    folder = saved()
    edit(folder / "tokenizer_config.json", **{token: ""})
    with pytest.raises(PolicyError, match=rf"tokenizer_config\.json has {token} ''"):
        load(folder, PolicyConfig(model=str(folder)))


def rwkv():
    sizes = {"vocab_size": 60, "hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2}
    return AutoModelForCausalLM.from_config(RwkvConfig(**sizes))


def judge(folder):
    places = "{prompt} {response_a} {response_b}"
    return LLMJudge(model=str(folder), verdicts=["w7", "w8"], min_verdict_mass=0, prompt=places, precision="fp32")


def test_a_config_without_a_padding_id_judges(saved):
    judge(saved(rwkv())).check()


def test_a_config_without_an_eos_id(saved):
    sizes = {"vocab_size": 60, "hidden_size": 16, "num_attention_heads": 2, "dim_head": 8, "dim_ff": 16}
    model = AutoModelForCausalLM.from_config(CpmAntConfig(**sizes, num_hidden_layers=1))
    folder = saved()
    assert not hasattr(model.config, "eos_token_id") or model.config.eos_token_id is None
    (folder / "generation_config.json").unlink()
    tokenizer = load(folder, PolicyConfig(model=str(folder))).tokenizer
    vocabulary.keep_turn_end(folder, model, tokenizer, [tokenizer.eos_token_id, 7])
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [tokenizer.eos_token_id, 7]


def test_a_judge_that_looks_ahead_is_refused(saved):
    sizes = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    model = AutoModelForCausalLM.from_config(BertConfig(**sizes, num_hidden_layers=1, initializer_range=0.3))
    with pytest.raises(JudgeError, match=r"judge\.model: BertLMHeadModel is not causal"):
        judge(saved(model)).check()


@pytest.mark.parametrize(
    "config",
    [
        BartConfig(
            **{"vocab_size": 60, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_labels": 1},
            **{
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 16,
                "decoder_ffn_dim": 16,
            },
        ),
        T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, num_labels=1),
    ],
    ids=lambda config: config.model_type,
)
def test_a_reward_model_of_encoder_and_decoder_is_refused(saved, config):
    folder = saved(AutoModelForSequenceClassification.from_config(config))
    with pytest.raises(JudgeError, match=r"judge\.model: .* is an encoder with a decoder"):
        RewardModel(model=str(folder), precision="fp32").check()


def test_an_option_that_a_judges_template_never_reads(saved):
    options = {"verdicts": ["w7", "w8"], "min_verdict_mass": 0, "template_options": {"enable_thinkng": False}}
    with pytest.raises(JudgeError, match=r"^judge\.template_options\.enable_thinkng: .* never reads it"):
        LLMJudge(model=str(saved()), precision="fp32", **options).check()


# Of eight tokens all, two or none are no word of the vocabulary, w6 to w59.
@pytest.mark.parametrize(
    ("texts", "share"),
    [(["zz1 zz2 zz3", "a b c d e"], 1.0), (["w6 zz w7", "w8 zz w9 w10 w11"], 0.25), (["w6 w7"], 0.0)],
)
def test_the_share_of_tokens_that_no_word_is_known_for(make_tokenizer, texts, share):
    assert vocabulary.unknown_share(make_tokenizer(), texts) == share


def test_start_warns_of_prompts_that_the_policy_cannot_read(saved, tmp_path, caplog):
    lines = [json.dumps({"prompt": f"zz{i} zy{i} zx{i} w{6 + i}"}) for i in range(12)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    (tmp_path / "score.py").write_text("def score(response, prompt):\n    return -len(response)\n")
    values = {
        **{"iterations": 1, "policy": {"model": str(saved())}, "training": {"batch_size": 4}},
        "prompts": {"train": str(tmp_path / "prompts.jsonl"), "per_iteration": 4, "held_out": 4, "shards": 1},
        "generation": {"responses": 2, "max_new_tokens": 4},
        "judge": {"name": "verifier", "function": f"{tmp_path}/score.py:score"},
        "resources": {step: {"cpu": 1} for step in ("start", "score", "generate", "train", "evaluate")},
    }
    Pipeline(checked(values), str(tmp_path / "store")).start()
    assert (
        "its tokenizer knows no word for 75% of the prompts' tokens: the policy reads them all as '<unk>'"
        in caplog.text
    )


def test_template_options_need_a_template(saved, make_tokenizer):
    folder = saved()
    (folder / "chat_template.jinja").unlink()
    given = PolicyConfig(model=str(folder), prompt_format="{prompt}", template_options={"thinking": False})
    with pytest.raises(PolicyError, match=r"^policy\.template_options: .* no chat template to read thinking"):
        load(folder, given)
