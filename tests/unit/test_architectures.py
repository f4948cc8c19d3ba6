"""Five families through all stages: their special tokens once and where they belong, EOS learned, files that reload."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from components import export, stages
from components.config.sections import PolicyConfig
from components.data.records import Prompt
from components.policy.batches import collate
from components.policy.model import load
from components.run_config import RunConfig, checked
from components.stages.context import open_workspace
from components.stages.in_process import Pipeline
from support.models.families import FAMILIES, save_policy

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

N, K, LIMIT, T = 32, 16, 12, 3


def brief(response, prompt):
    """One for a response that ends within a few tokens."""
    return len(response) < 8


@dataclass
class Run:
    """A run of a family, and what it left."""

    name: str
    config: RunConfig
    root: str
    started: stages.Started
    scored: list  # of the first iteration, a manifest per shard
    trained: list  # of each iteration
    evaluated: list  # of each iteration

    @property
    def family(self):
        return FAMILIES[self.name]

    def work(self, kind="evaluate"):
        return open_workspace(self.config, self.root, kind)

    def policy(self, manifest):
        with self.work() as work:
            return work.policy(manifest)


@pytest.fixture(scope="module", params=list(FAMILIES))
def run(request, tmp_path_factory):
    """Three iterations in which shorter responses win."""
    home = tmp_path_factory.mktemp(request.param)
    model = save_policy(FAMILIES[request.param], home / "model", initializer_range=0.1)
    lines = [json.dumps({"prompt": f"What is {i} plus {i * i}?"}) + "\n" for i in range(N + 16)]
    (home / "prompts.jsonl").write_text("".join(lines))
    config = checked(
        {
            "iterations": T,
            "policy": {"model": str(model), "prompt_format": FAMILIES[request.param].prompt_format},
            "prompts": {"train": str(home / "prompts.jsonl"), "per_iteration": N, "held_out": 16, "shards": 2},
            "generation": {"responses": K, "max_new_tokens": LIMIT},
            "training": {"epochs": 4, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-2},
            "judge": {"name": "verifier", "function": f"{__name__}:brief"},
            "resources": {kind: {"cpu": 1} for kind in ("start", "score", "generate", "train", "evaluate")},
        }
    )
    root = str(home / "store")
    with open_workspace(config, root, "start") as work:
        run = Run(request.param, config, root, stages.start(work), [], [], [])
    made = list(Pipeline(config, root, precision=run.started.precision).iterate(run.started))
    run.trained.extend(iteration.trained for iteration in made)
    run.evaluated.extend(iteration.evaluated for iteration in made)
    run.scored.extend(made[0].scored)
    return run


def first_rollouts(run):
    with run.work() as work:
        return [work.rollout(manifest) for manifest in run.scored]


def test_prompts_hold_special_tokens_once(run):
    policy = run.policy(run.started.policy)
    ids = policy.encode(Prompt("p", ({"role": "user", "content": "Hi there"},)))
    assert policy.tokenizer.decode(ids) == run.family.shown
    bos = run.family.roles.get("bos_token")
    begins = [i for i, token in enumerate(ids) if bos and token == policy.tokenizer.convert_tokens_to_ids(bos)]
    assert begins == ([0] if run.family.begins_with_bos else [])


def test_every_prompt_of_a_rollout_does(run):
    tokenizer = AutoTokenizer.from_pretrained(run.config.policy.model)
    for rollout in first_rollouts(run):
        for i in range(len(rollout.prompt_tokens)):
            row = rollout.prompt_tokens[i].tolist()
            assert row.count(tokenizer.bos_token_id) == int(run.family.begins_with_bos)
            text = tokenizer.decode(row)
            begin, end = run.family.shown.split("Hi there")
            assert text.startswith(f"{begin}What is")
            assert text.endswith(f"?{end}")


def test_all_eos_tokens_end_a_response(run):
    policy = run.policy(run.started.policy)
    assert policy.eos_ids == tuple(sorted(policy.tokenizer.convert_tokens_to_ids(list(run.family.eos))))


def test_a_finished_response_ends_with_eos_and_a_truncated_one_has_none(run):
    eos = run.policy(run.started.policy).eos_ids
    kinds = set()
    for rollout in first_rollouts(run):
        for i, finished in enumerate(rollout.finished.reshape(-1)):
            row = rollout.tokens[i].tolist()
            assert [token in eos for token in row[:-1]] == [False] * (len(row) - 1)
            assert (row[-1] in eos) == finished
            assert finished or len(row) == LIMIT
            kinds.add(bool(finished))
            assert not any(token in rollout.texts[i] for token in run.family.eos)
    assert kinds == {False, True}


def test_logprobs_are_those_of_just_these_tokens(run):
    """By the library's own logits: of a truncated response no EOS is scored, of a finished one it is."""
    model = AutoModelForCausalLM.from_pretrained(run.config.policy.model, dtype=torch.float32).eval()
    with run.work() as work:
        scored = work.scored(run.scored[:1])
        finished = work.rollout(run.scored[0]).finished
    for i in (0, 1):
        for k in range(K):
            prompt, response = scored.rollout.prompt_tokens[i], scored.rollout.tokens[i * K + k]
            ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
            with torch.no_grad():
                logp = model(input_ids=ids).logits[0].double().log_softmax(-1)
            where = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
            expected = logp[where, ids[0, len(prompt) :]].sum().item()
            assert scored.logp_old[i, k] == pytest.approx(expected, rel=1e-4), finished[i, k]


def test_eos_is_learned(run):
    """Responses end sooner, because ending sooner wins; nothing else is told of EOS."""
    with run.work() as work:
        reference = work.rollout(run.started.evaluated)
    last = run.evaluated[-1]
    assert 1 - reference.finished.mean() > 0.9
    assert last.truncated < 0.7
    assert last.response_length < 0.8 * reference.tokens.lengths.mean()
    assert last.against_reference.mean > 0.6  # of 16 prompts, whose interval reaches further down


def test_training_reads_eos_where_a_response_ends_and_nowhere_else(run):
    policy = run.policy(run.started.policy)
    rollout = first_rollouts(run)[0]
    n = len(rollout.prompt_tokens)
    prompts = [rollout.prompt_tokens[i] for i in range(n)]
    batch = collate(prompts, [rollout.tokens[i] for i in range(n * K)], policy.pad_id, policy.device)
    ends = torch.isin(batch.targets, torch.tensor(policy.eos_ids))
    per_row = torch.zeros(len(batch.input_ids), dtype=torch.int64).index_add(0, batch.rows, ends.long())
    assert per_row[batch.places].tolist() == rollout.finished.reshape(-1).astype(int).tolist()


def test_the_exported_policy_reloads(run, tmp_path, monkeypatch):
    """Only the look-up of the finished run is replaced: the run went through the stages and not through a flow."""
    final = run.trained[-1].policy
    monkeypatch.setattr(
        export.policy.runs, "finished", lambda *_, **__: SimpleNamespace(policy=final, store_root=run.root)
    )
    directory = export.export("WindFlow/1", tmp_path / "exported")
    ours = load(directory, PolicyConfig(prompt_format=run.family.prompt_format))
    again = AutoModelForCausalLM.from_pretrained(directory).eval()
    base = AutoModelForCausalLM.from_pretrained(run.config.policy.model).eval()
    ids = torch.tensor([ours.encode(Prompt("p", ({"role": "user", "content": "Hi there"},)))])
    with torch.no_grad():
        trained = run.policy(final).model(input_ids=ids).logits
        assert torch.equal(again(input_ids=ids).logits, trained)
        assert (base(input_ids=ids).logits - trained).abs().max() > 0.1
    assert sorted(np.atleast_1d(again.generation_config.eos_token_id)) == list(ours.eos_ids)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (directory, run.config.policy.model)]
    texts = [t.decode(t("Hi<|eot_id|> there")["input_ids"]) for t in tokenizers]
    assert texts[0] == texts[1]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
