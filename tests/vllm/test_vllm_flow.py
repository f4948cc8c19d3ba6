"""WindFlow on vLLM: it ends as on the transformers engine but for chance, and vLLM's server answers with its policy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openai
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.data import rollouts
from components.store import Manifest, open_store
from support.flows.flow_home import Home, card_content
from support.loopback_server import kept_port
from support.models.served import needs_vllm

pytestmark = [pytest.mark.vllm, pytest.mark.slow, needs_vllm, pytest.mark.thorough]

M = 8  # responses to each prompt in evaluation
SAMPLING_ERROR = 4  # standard errors: exceeded by chance once in 16,000 comparisons
PROMPT = "Sort 5 2 8 1"
CARD = """
import sys
from metaflow import Run, namespace
from metaflow.cards import get_cards
namespace(None)
print(get_cards(Run(sys.argv[1])["end"].task, id="report")[0].get())
"""


def changes(engine: dict[str, Any]) -> dict[str, Any]:
    """A policy that is often right, with attention heads as vLLM wants them on a CPU, and enough of it to compare."""
    return {
        "demo": {"hidden_size": 64, "heads": 2, "steps": 200, "prompts": 160, "held_out": 96},
        "prompts": {"per_iteration": 64, "held_out": 96, "shards": 1},
        "generation": {"engine": engine, "responses": 4, "max_new_tokens": 8},
        "evaluation": {"responses": M},
        "training": {"learning_rate": 1e-3},
    }


class Outcome(NamedTuple):
    """What a run with one of the engines left."""

    home: Home
    run: str
    history: pd.DataFrame
    lengths: np.ndarray  # (prompts, M) of the reference's responses, tokens
    rewards: np.ndarray  # of the same


def run_on(engine: dict[str, Any], folder: Path) -> Outcome:
    home = Home(folder, changes=changes(engine))
    run = home.flow("local", "run")
    found = home.artifacts(run, ("history", "evaluated_reference", "store_root"))
    manifest: Manifest = found["evaluated_reference"]
    file = open_store(found["store_root"]).get(manifest, folder / "reference") / "rollout.parquet"
    lengths = rollouts.load_rollout(file).tokens.lengths.reshape(-1, M)
    return Outcome(home, run, found["history"], lengths, rollouts.load_reward(file, M))


@pytest.fixture(scope="module")
def on_vllm(tmp_path_factory) -> Outcome:
    engine = {"name": "vllm", "enforce_eager": True, "kv_cache_mb": 256}
    return run_on(engine, tmp_path_factory.mktemp("vllm"))


@pytest.fixture(scope="module")
def on_transformers(tmp_path_factory) -> Outcome:
    return run_on({"name": "transformers"}, tmp_path_factory.mktemp("transformers"))


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Standard errors between the means of (prompts, M) figures; the prompts are the same."""
    differences = ours.mean(1) - theirs.mean(1)
    return abs(float(differences.mean())) / (float(differences.std(ddof=1)) / np.sqrt(len(differences)))


def test_the_reference_answers_alike_on_both_engines(on_vllm, on_transformers):
    assert 0.1 < on_vllm.rewards.mean() < 0.9
    assert apart(on_vllm.rewards, on_transformers.rewards) < SAMPLING_ERROR
    assert apart(on_vllm.lengths, on_transformers.lengths) < SAMPLING_ERROR
    assert not np.array_equal(on_vllm.rewards, on_transformers.rewards)  # each draws in its own way


def test_both_runs_end_alike(on_vllm, on_transformers):
    """Each is trained on the responses that its engine drew."""
    rates = [outcome.history.iloc[-1] for outcome in (on_vllm, on_transformers)]
    half_widths = [(row["win_rate_high"] - row["win_rate_low"]) / 2 for row in rates]
    error = float(np.hypot(*half_widths)) / 1.96
    assert abs(rates[0]["win_rate"] - rates[1]["win_rate"]) < SAMPLING_ERROR * error
    assert all(row["kl"] > 0.1 for row in rates)  # nats: they have learned something


def test_the_card_tells_how_far_the_engine_is_from_the_trainer(on_vllm, on_transformers):
    assert "logp_difference" not in on_transformers.history
    [difference] = on_vllm.history["logp_difference"]
    assert 0 < difference < 1e-3
    page = on_vllm.home.python("-W", "ignore", "-c", CARD, f"WindFlow/{on_vllm.run}")
    assert f"differ by at most {difference:.2g} nats per response" in card_content(page)


@pytest.fixture(scope="module")
def exported(on_vllm) -> Path:
    """The run's policy, as the printed command writes it."""
    on_vllm.home.python("-m", "components.export", f"WindFlow/{on_vllm.run}", "exported")
    return on_vllm.home.folder / "exported"


@pytest.fixture
def port() -> Iterator[int]:
    with kept_port() as port:
        yield port


@pytest.fixture
def client(exported, wait_for, port) -> Iterator[openai.OpenAI]:
    """Of vLLM's OpenAI-compatible server with that policy, on loopback."""
    options = ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"]
    options += ["--kv-cache-memory-bytes", str(2**28), "--served-model-name", "aligned"]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(exported), *options]
    log = exported.parent / "server.log"
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=file) as process,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=300) as client,
    ):
        try:
            wait_for(lambda: process.poll() is not None or serves(client), seconds=900)
            assert process.poll() is None, log.read_text()
            yield client
        finally:
            process.terminate()


def serves(client: openai.OpenAI) -> bool:
    try:
        return [model.id for model in client.models.list()] == ["aligned"]
    except openai.APIConnectionError:
        return False


def test_the_exported_policy_is_served(exported, client):
    """A greedy chat completion is what the model's own greedy decoding says."""
    messages = [{"role": "user", "content": PROMPT}]
    answer = client.chat.completions.create(model="aligned", messages=messages, temperature=0, max_tokens=8)

    tokenizer, model = AutoTokenizer.from_pretrained(exported), AutoModelForCausalLM.from_pretrained(exported)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        output = model.generate(ids, do_sample=False, max_new_tokens=8)
    before, whole = (tokenizer.decode(row, skip_special_tokens=True) for row in (ids[0], output[0]))
    expected = whole.removeprefix(before)  # as a server has it, the space between the two included
    assert expected.split()
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == ids.shape[1]
