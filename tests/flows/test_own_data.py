"""A user's own model, prompts and judge through WindFlow, and out again as a Hugging Face directory."""

import hashlib
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from components import stages
from components.run_config import RunConfig, parse
from components.stages.context import open_workspace
from components.store import open_store
from support.flows.wind_runs import FLOW, figures
from support.models.words import make_model

pytestmark = pytest.mark.slow

TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a>{% endif %}"
)
JUDGE = '''"""Prefers the sum; before that is learnt, many digits."""


def score(response, prompt):
    digits = sum(c.isdigit() for c in response)
    return float(response.strip() == prompt.answer) + digits / (1 + len(response))
'''
CONFIG = {
    "iterations": 1,
    "policy": {"model": "model"},
    "prompts": {"train": "sums.jsonl", "held_out": 6, "per_iteration": 8, "shards": 1},
    "generation": {"responses": 4, "max_new_tokens": 5},
    "live_cards": [],  # each takes processes of its own
    "training": {"batch_size": 4, "micro_batch_size": 2, "learning_rate": 0.01},
}
SUMS = [{"prompt": f"{a} + {b}", "answer": a + b, "level": "easy"} for a in range(4) for b in range(5)]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A user's working directory: model, prompts and judge, each named in the config by a relative path."""
    home = tmp_path_factory.mktemp("own")
    (home / ".metaflow").mkdir()
    save_model(home / "model")
    (home / "sums.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in SUMS))
    (home / "my_judge.py").write_text(JUDGE)
    for name, function in [("file.yaml", "my_judge.py:score"), ("module.yaml", "my_judge:score")]:
        config = {**CONFIG, "judge": {"name": "verifier", "function": function}}
        (home / name).write_text(yaml.safe_dump(config))
    return home


def save_model(directory):
    """A Llama with random, tied weights and a tokenizer of one token per character."""
    special = ["</s>", "<pad>"]
    vocabulary = [*special, *pre_tokenizers.ByteLevel.alphabet()]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
    ).save_pretrained(directory)
    shape = {"vocab_size": len(vocabulary), "hidden_size": 24, "intermediate_size": 48, "initializer_range": 0.02}
    ids = {"bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    make_model("llama", **shape, **ids, tie_word_embeddings=True).save_pretrained(directory)


@pytest.fixture
def tmp_path(home):
    """All tests of this file share one datastore, and the runs in it."""
    return home


@pytest.fixture
def own(once, home, run_flow, open_run):
    """The run whose config names the judge by its file."""
    if not once:
        once["pathspec"] = run_flow(FLOW, config=home / "file.yaml").run.pathspec
    return open_run(once["pathspec"])


@pytest.fixture
def exported(own, home):
    if not (home / "exported").exists():
        env = {"METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local", "METAFLOW_PROFILE": ""}
        command = [sys.executable, "-m", "components.export", own.pathspec, "exported"]
        subprocess.run(command, cwd=home, env=os.environ | env, check=True)
    return home / "exported"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_run_trains_the_users_model_on_the_users_prompts(own, home):
    base = own["start"].task.data.policy
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert base[name]["sha256"] == digest(home / "model" / name)
    assert own.data.policy["model.safetensors"] != base["model.safetensors"]
    [row] = own.data.history.to_dict("records")
    assert (row["prompts"], row["responses"]) == (8, 32)
    # A random model hits no sum by chance here, so the mean reward is the mean share of digits: below 1.
    assert 0 <= row["reward_mean"] < 1
    texts = {line["prompt"]: str(line["answer"]) for line in SUMS}
    assert len(own.data.examples) == 6
    for example in own.data.examples:
        assert texts[example["prompt"]] == example["answer"]


@pytest.mark.thorough
def test_the_judge_as_a_module_of_the_working_directory_and_another_seed(own, home, run_flow):
    other = run_flow(FLOW, config=home / "module.yaml", seed=1).run
    assert other["start"].task.data.policy == own["start"].task.data.policy
    assert other.data.policy["model.safetensors"] != own.data.policy["model.safetensors"]
    assert not figures(other.data.history).equals(figures(own.data.history))


def test_the_exported_directory_is_the_stored_policy(own, exported):
    found = {path.name: digest(path) for path in exported.iterdir()}
    assert found.pop("README.md")  # the model card, made for the export
    assert found == {name: entry["sha256"] for name, entry in own.data.policy.items()}


def test_the_exported_directory_loads_like_any_other(home, exported):
    tokenizer = AutoTokenizer.from_pretrained(exported)
    model, base = (AutoModelForCausalLM.from_pretrained(path) for path in (exported, home / "model"))
    chat = [{"role": "user", "content": "1 + 2"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert tokenizer.decode(ids["input_ids"][0]) == "u>1 + 2\na>"
    with torch.no_grad():
        trained, untrained = model(**ids).logits, base(**ids).logits
    assert trained.dtype == torch.float32
    assert trained.shape == (1, len("u>1 + 2\na>"), 2 + 256)
    assert torch.isfinite(trained).all()
    assert (trained - untrained).abs().max() > 1e-3
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_start_takes_an_exported_policy_and_parquet_prompts(home, exported, monkeypatch):
    """What a task of `start` does, without a flow."""
    monkeypatch.chdir(home)
    pd.DataFrame(SUMS).to_parquet("sums.parquet")
    judge = {"name": "verifier", "function": "my_judge.py:score"}
    prompts = CONFIG["prompts"] | {"train": "sums.parquet"}
    text = yaml.safe_dump(CONFIG | {"policy": {"model": str(exported)}, "prompts": prompts, "judge": judge})
    config = RunConfig.model_validate(parse(text))
    with open_workspace(config, str(home / "parquet_store"), "start") as work:
        started = stages.start(work)
        train, held_out = (work.prompts(started.prompts, name) for name in ("train", "evaluation"))
        responses = work.rollout(started.evaluated)
    files = open_store(str(home / "parquet_store")).get(started.policy, home / "stored")
    without_card = [path for path in exported.iterdir() if path.name != "README.md"]
    assert {p.name: digest(p) for p in files.iterdir()} == {p.name: digest(p) for p in without_card}
    assert len(held_out) == 6
    assert {(p.text, p.answer) for p in [*train, *held_out]} == {(s["prompt"], str(s["answer"])) for s in SUMS}
    assert all(p.metadata == {"level": "easy"} for p in train)
    scope = {}
    exec(JUDGE, scope)
    assert list(responses.prompt_ids) == [p.id for p in held_out]
    rewards = [scope["score"](text, p) for i, p in enumerate(held_out) for text in responses.group(i)]
    assert len(rewards) == 6 * 2
    assert started.reward == pytest.approx(sum(rewards) / len(rewards), rel=1e-12)
