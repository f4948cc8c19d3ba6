"""One distribution throughout: at a temperature, what is drawn is what is scored, trained and compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from components.config.sections import PolicyConfig
from components.data.records import Prompt, Ragged
from components.evaluation import metrics
from components.generation import Engine, Samples, Sampling, _sampler
from components.policy.batches import collate
from components.policy.logprobs import response_logprobs, score_responses
from components.policy.model import load
from components.stages.sampling import generate
from support.models.tiny import make_policy

PROMPT = [4, 5, 6]


@torch.no_grad()
def likely(policy, temperature, ids=PROMPT):
    """The model's own distribution of the next token, in float64."""
    logits = policy.model(input_ids=torch.tensor([ids])).logits[0, -1].double()
    return (logits / temperature).softmax(-1).numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_log_probs_are_at_the_temperature(temperature):
    policy = replace(make_policy(), temperature=temperature)
    response = [7, 8, 1]
    logp = score_responses(policy, Ragged.of([PROMPT]), Ragged.of([response]))[0, 0]
    steps = [likely(policy, temperature, PROMPT + response[:i])[token] for i, token in enumerate(response)]
    assert logp == pytest.approx(np.log(steps).sum(), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_kl_is_that_of_what_is_drawn(temperature):
    """Against the sum over all first tokens, of two policies that differ."""
    policies = [replace(make_policy(seed=seed), temperature=temperature) for seed in (0, 1)]
    p, q = (likely(policy, temperature) for policy in policies)
    exact = (p * np.log(p / q)).sum()
    error = np.sqrt((p * np.log(p / q) ** 2).sum() - exact**2) / np.sqrt(4000)
    seeds = np.arange(4000, dtype=np.uint64)[None]
    drawn = _sampler.sample(policies[0], [PROMPT], seeds, Sampling(1, temperature), batch_size=4000)
    logp, logp_ref = (score_responses(policy, Ragged.of([PROMPT]), drawn.tokens) for policy in policies)
    assert metrics.kl(logp, logp_ref) == pytest.approx(exact, abs=4 * error)
    assert exact > 8 * error


def test_the_gradient_of_the_log_prob_has_mean_zero_under_what_is_drawn():
    """E[grad log pi] = 0 for the distribution that is drawn from, and for no other: J-BOND's estimate stands on it."""
    policy = replace(make_policy(), temperature=0.5)
    weights = torch.tensor(likely(policy, 0.5), dtype=torch.float32)
    batch = collate([PROMPT], [[token] for token in range(len(weights))], policy.pad_id, policy.device)

    def gradient(found):
        found.model.zero_grad()
        (weights * response_logprobs(found, batch)).sum().backward()
        return torch.cat([p.grad.reshape(-1) for p in found.model.parameters()]).norm().item()

    assert gradient(policy) < 1e-4
    assert gradient(replace(policy, temperature=1.0)) > 0.1


class Told(Engine):
    """An engine that tells log-probs at temperature 1."""

    name: str = "told"

    def check(self):
        """Nothing."""

    def sample(self, policy, prompts, seeds, sampling, progress=None):
        n, k = seeds.shape
        return Samples(Ragged.of([[7, 1]] * (n * k)), np.ones((n, k), bool), np.full((n, k), -3.0))


@pytest.mark.parametrize(("temperature", "known"), [(1.0, True), (0.7, False)])
def test_an_engines_log_probs_are_compared_at_temperature_one_alone(temperature, known):
    prompt = Prompt("p", ({"role": "user", "content": "a b"},))
    arguments = {"responses": 2, "sampling": Sampling(4, temperature), "seed": 0, "purpose": "train", "iteration": 1}
    rollout = generate(make_policy(), Told(), [prompt], **arguments)
    assert (rollout.logp_engine is not None) == known


def test_every_step_loads_the_policy_at_the_configs_temperature(tmp_path):
    from components.run_config import parse
    from components.stages.context import open_workspace

    policy = make_policy()
    policy.model.save_pretrained(tmp_path / "model")
    policy.tokenizer.save_pretrained(tmp_path / "model")
    values = f"policy: {{model: {tmp_path / 'model'}}}\nprompts: {{train: p.jsonl}}\ngeneration: {{temperature: 0.5}}\n"
    from components.run_config import RunConfig

    config = RunConfig.model_validate(parse(values + "judge: {name: verifier, function: m:f}\n"))
    with open_workspace(config, str(tmp_path / "store"), "score") as work:
        assert work.policy(work.store.put(tmp_path / "model")).temperature == 0.5
    assert load(tmp_path / "model", PolicyConfig()).temperature == 1.0
