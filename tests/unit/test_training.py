"""Training: schedule, order, accumulation, optimiser state, and one step against a plain computation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from components.algorithms import leave_one_out
from components.algorithms.ipo import Ipo
from components.algorithms.wind import Wind
from components.config.sections import PolicyConfig, TrainingConfig
from components.data.records import Ragged, Rollout, Scored
from components.policy import model as policies
from components.policy.logprobs import score_responses
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import learning_rate, load_optimizer, make_optimizer, save_optimizer
from components.training.state import TrainingState
from support.models.tiny import (
    EOS,
    OPTIMIZERS,
    WORDS,
    make_policy,
    make_prompts,
    make_scored,
    needs_bitsandbytes,
    wide_policy,
)


def settings(**changed):
    return TrainingConfig(**{"batch_size": 8, "micro_batch_size": 8, "learning_rate": 1e-2, **changed})


def fit(
    policy, data, *, algorithm=None, config=None, optimizer=None, iteration=1, iterations=1, seed=0, since=0, **calls
):
    """One iteration of training with a fresh optimiser unless one is given."""
    config = config or settings()
    state = TrainingState(policy, optimizer or make_optimizer(policy, config), config.micro_batch_size)
    schedule = Schedule(config, iteration, iterations, seed, since)
    return train(state, data, algorithm or Wind(beta=0.02, eta=10.0, clip=None), schedule, **calls)


def order(prompts, *, seed, iteration, epoch):
    return Schedule(settings(), iteration, 9, seed).order(prompts, epoch)


def weights(policy):
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


def assert_same(left, right):
    """Bit for bit."""
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def log_probs(policy, data):
    """log pi(response | prompt), (n, K): the whole model on one row at a time, log-softmax of all its logits."""
    rollout, k = data.rollout, data.rollout.shape[1]
    sums = []
    for row in range(len(rollout.tokens)):
        prompt, response = rollout.prompt_tokens[row // k], rollout.tokens[row]
        ids = torch.tensor([[*prompt, *response]])
        logp = policy.model(input_ids=ids).logits[0].log_softmax(-1)
        sums.append(sum(logp[len(prompt) + i - 1, token] for i, token in enumerate(response.tolist())))
    return torch.stack(sums).reshape(-1, k)


# Schedule and order


def test_learning_rate_by_hand():
    """Ten steps, two of them warm-up: 1/2 and 1 of the peak, then eight that fall from 1 to 1/8 (linear)."""
    config = {"warmup_ratio": 0.2, "learning_rate": 2.0}

    def rates(schedule):
        return [learning_rate(settings(**config, schedule=schedule), step, 10) for step in range(10)]

    assert rates("linear") == pytest.approx([1.0, 2.0, 2.0, 1.75, 1.5, 1.25, 1.0, 0.75, 0.5, 0.25])
    assert rates("constant") == pytest.approx([1.0] + [2.0] * 9)
    # 1 + cos(pi·i/8); cos(pi/4) = sqrt(1/2)
    half = math.sqrt(0.5)
    assert rates("cosine")[::2] == pytest.approx([1.0, 2.0, 1 + half, 1.0, 1 - half])
    assert rates("cosine")[-1] == pytest.approx(1 + math.cos(7 * math.pi / 8))


def test_without_warm_up_the_first_step_has_the_peak():
    assert learning_rate(settings(warmup_ratio=0.0, learning_rate=2.0), 0, 10) == 2.0


def test_warm_up_is_the_share_that_was_asked_for():
    """7 % of 100 steps are 7, though 0.07·100 is 7.000000000000001."""
    config = settings(warmup_ratio=0.07, learning_rate=1.0, schedule="constant")
    assert [learning_rate(config, step, 100) for step in (5, 6, 7)] == pytest.approx([6 / 7, 1.0, 1.0])


def test_prompts_without_information_are_left_out():
    """Ten prompts, of which four tie: batches of 4 and 2 of the other six instead of 4, 4 and 2, twice an iteration.

    The schedule counts the steps that all ten would take.
    """
    policy = make_policy()
    data = make_scored(policy, n=10, k=2)
    preference = data.preference.copy()
    preference[:, 0, 1], preference[:, 1, 0] = 1.0, 0.0
    tied = [1, 4, 5, 8]
    preference[tied] = 0.5
    data = replace(data, preference=preference)
    config = settings(batch_size=4, micro_batch_size=4, epochs=2, learning_rate=12.0e-3, warmup_ratio=0.0)
    optimizer = make_optimizer(policy, config)
    rates, calls = [], []

    def progress(done, total, **figures):
        rates.append(optimizer.param_groups[0]["lr"])
        calls.append((done, total))

    run = {"config": config, "optimizer": optimizer, "iterations": 2, "progress": progress}
    for iteration in (1, 2):
        fit(policy, data, algorithm=Ipo(), iteration=iteration, **run)
    # 12 steps in all; of each iteration's six, those with the indices 0, 6·1/4, 6·2/4 and 6·3/4, rounded down.
    assert np.array(rates) == pytest.approx(1e-3 * np.array([12, 11, 9, 8, 6, 5, 3, 2]))
    assert calls == 2 * [(done, 4) for done in (1, 2, 3, 4)]


def test_left_out_prompts_change_nothing_for_a_loss_that_ignores_them():
    """IPO on the informative prompts alone: the gradient's direction is that of all, so AdamW's first step agrees."""
    data = make_scored(make_policy(), n=8, k=3)
    preference = data.preference.copy()
    preference[3:] = 0.5
    data = replace(data, preference=preference)

    class EveryPrompt(Ipo):
        def informative(self, win_rate):
            return np.ones(len(win_rate), dtype=bool)

    ends = []
    for algorithm in (Ipo(), EveryPrompt()):
        policy = make_policy()
        fit(policy, data, algorithm=algorithm, config=settings(max_grad_norm=1e-3, warmup_ratio=0.0))
        ends.append(weights(policy))
    for name, after in ends[0].items():
        torch.testing.assert_close(after, ends[1][name], rtol=0, atol=1e-3)


def test_an_iteration_of_ties_leaves_the_policy_alone():
    policy = make_policy()
    data = make_scored(policy, n=4, k=2)
    data = replace(data, preference=np.full_like(data.preference, 0.5))
    before = weights(policy)
    assert fit(policy, data, algorithm=Ipo()) == {}
    assert_same(before, weights(policy))


def test_warm_up_over_the_whole_run():
    config = settings(warmup_ratio=0.99, learning_rate=1.0)
    assert [learning_rate(config, step, 2) for step in (0, 1)] == [0.5, 1.0]


def test_steps_per_iteration_counts_the_short_batch():
    assert Schedule(settings(batch_size=4, micro_batch_size=4), 1, 1, 0).steps(8) == 2
    assert Schedule(settings(batch_size=4, micro_batch_size=4, epochs=3), 1, 1, 0).steps(9) == 9
    assert Schedule(settings(batch_size=4, micro_batch_size=1), 1, 1, 0).steps(1) == 1


def test_schedule_runs_on_over_iterations():
    """Two iterations of three steps (ten prompts, batches of 4, 4 and 2): six rates from the peak to 1/6 of it."""
    policy = make_policy()
    data = make_scored(policy, n=10, k=2)
    config = settings(batch_size=4, micro_batch_size=4, learning_rate=6e-3, warmup_ratio=0.0)
    optimizer = make_optimizer(policy, config)
    rates, calls = [], []

    def progress(done, total, **figures):
        rates.append(tuple(group["lr"] for group in optimizer.param_groups))
        calls.append((done, total, sorted(figures)))

    for iteration in (1, 2):
        fit(policy, data, config=config, optimizer=optimizer, iteration=iteration, iterations=2, progress=progress)
    assert np.array(rates) == pytest.approx(np.array([[6e-3 - 1e-3 * i] * 2 for i in range(6)]))
    assert calls == 2 * [(done, 3, ["grad_norm", "logp_change", "loss"]) for done in (1, 2, 3)]


def test_order_is_a_permutation_of_its_own():
    orders = [
        order(50, seed=seed, iteration=iteration, epoch=epoch)
        for seed in (0, 1)
        for iteration in (1, 2)
        for epoch in (0, 1)
    ]
    assert all(sorted(o) == list(range(50)) for o in orders)
    assert len({tuple(o) for o in orders}) == len(orders)
    assert (order(50, seed=1, iteration=2, epoch=1) == orders[-1]).all()


def test_each_epoch_visits_every_prompt_once_in_its_order():
    """With batches that do not divide the prompts and micro-batches that do not divide the batches."""
    policy = make_policy()
    data = make_scored(policy, n=10, k=3)
    seen = []

    class Watched(Wind):
        clip: float | None = None

        def loss(self, group):
            seen.append(group.logp_old.numpy())
            return super().loss(group)

    config = settings(batch_size=7, micro_batch_size=3, epochs=2)
    fit(policy, data, algorithm=Watched(), config=config, iteration=2, iterations=2, seed=5)
    assert [len(rows) for rows in seen] == 2 * [3, 3, 1, 3]
    logp_old = data.logp_old.astype(np.float32)
    for epoch in (0, 1):
        visits = order(10, seed=5, iteration=2, epoch=epoch)
        batches = [np.concatenate(seen[4 * epoch : 4 * epoch + 3]), seen[4 * epoch + 3]]
        for batch, expected in zip(batches, (visits[:7], visits[7:]), strict=True):
            assert sorted(batch.tolist()) == sorted(logp_old[expected].tolist())


# The step


def test_starts_where_the_responses_were_drawn():
    """Before the first step h is beta·(logp_old - logp_ref), and the policy has not moved."""
    policy = make_policy()
    data = make_scored(policy, n=8, k=3)
    figures = fit(policy, data, algorithm=Wind(clip=None, beta=0.5))
    expected = (0.5 * (data.logp_old - data.logp_ref) + 0.5 - leave_one_out(data.preference)) ** 2
    assert abs(figures["logp_change"]) < 1e-5
    assert figures["loss"] == pytest.approx(expected.mean(), rel=1e-5)


@pytest.fixture
def norms_in_full_precision(monkeypatch):
    """Llama's norms round to fp32 on the way, forwards and backwards, whatever the weights are."""

    def forward(self, hidden):
        return self.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


@pytest.mark.usefixtures("norms_in_full_precision")
@pytest.mark.parametrize("max_grad_norm", [1e-3, 1e6])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_step_equals_a_plain_computation(max_grad_norm, optimizer):
    """fp64, responses one by one without padding, the first step by hand: whatever the micro-batch size."""
    start = make_policy(dtype=torch.float64)
    data = make_scored(start, n=8, k=3)
    wind = Wind(clip=None, beta=0.5, eta=2.0)
    logp = log_probs(start, data)
    h = (2 * logp - torch.tensor(data.logp_old + data.logp_ref)) / 2
    ((h + 0.5 - torch.tensor(leave_one_out(data.preference))) ** 2).mean().backward()
    gradients = {name: parameter.grad for name, parameter in start.model.named_parameters()}
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients.values()))
    clip = min(1.0, max_grad_norm / (norm + 1e-6))
    expected = {}
    for name, before in weights(start).items():
        gradient, decay = gradients[name] * clip, 0.1 * (before.ndim == 2)  # only matrices decay
        if optimizer == "adamw":  # both moments are bias-corrected to the gradient itself and its square
            expected[name] = before * (1 - 1e-2 * decay) - 1e-2 * gradient / (gradient.abs() + 1e-8)
        else:  # the mean square begins at zero and takes a hundredth of the first
            gradient = gradient + decay * before
            expected[name] = before - 1e-2 * gradient / (0.1 * gradient.abs() + 1e-8)
    for micro_batch_size in (1, 2, 3, 8):
        policy = make_policy(dtype=torch.float64)
        config = settings(
            optimizer=optimizer,
            micro_batch_size=micro_batch_size,
            max_grad_norm=max_grad_norm,
            weight_decay=0.1,
            warmup_ratio=0.0,
        )
        figures = fit(policy, data, algorithm=wind, config=config)
        assert figures["grad_norm"] == pytest.approx(norm, rel=1e-9)
        for name, after in weights(policy).items():
            torch.testing.assert_close(after, expected[name], rtol=0, atol=1e-9)


def test_logp_change_is_in_nats_per_response():
    """Two steps over the same eight prompts: the second sees what the first one changed; their mean is reported."""
    policy, moved = make_policy(), make_policy()
    data = make_scored(policy, n=8, k=2)
    figures = fit(policy, data, config=settings(epochs=2, schedule="constant", warmup_ratio=0.0))
    fit(moved, data, config=settings(schedule="constant", warmup_ratio=0.0))
    with torch.no_grad():
        change = (log_probs(moved, data).numpy() - data.logp_old).mean()
    assert abs(change) > 1e-2
    assert figures["logp_change"] == pytest.approx(change / 2, abs=1e-5)


def test_winners_become_likelier_than_losers():
    """Four one-word responses to each prompt, `a` beats `b` beats `c` beats `d`: v = 1, 2/3, 1/3, 0.

    The minimum has gaps of eta/3 = 3.3 nats between neighbours; half of that must be reached.
    """
    policy = make_policy()
    prompts = make_prompts(8)
    rows = [[WORDS.index(word), EOS] for _ in prompts for word in "abcd"]
    tokens, responses = Ragged.of([policy.encode(p) for p in prompts]), Ragged.of(rows)
    beats = np.triu(np.ones((4, 4)), 1) + np.eye(4) / 2
    logp = score_responses(policy, tokens, responses)
    rollout = Rollout([p.id for p in prompts], tokens, responses, [*"abcd"] * 8, np.ones((8, 4), bool))
    data = Scored(rollout, logp, logp, np.tile(beats, (8, 1, 1)), np.full((8, 4), np.nan))
    fit(policy, data, algorithm=Wind(clip=None, beta=0.0, eta=10.0), config=settings(epochs=40))
    with torch.no_grad():
        change = log_probs(policy, data).numpy() - logp
    gaps = -np.diff(change.mean(0))
    assert (gaps > 5 / 3).all()
    assert (change[:, 0] > change[:, 3] + 5).all()


class BestAndWorst(Wind):
    """WIND on the best and the worst response only."""

    clip: float | None = None

    def select(self, win_rate):
        return np.stack([win_rate.argmax(1), win_rate.argmin(1)], axis=1)


def total_order(n):
    """Preferences (n, 4, 4) in which response i of prompt p is beaten by those after it, turned by p places."""
    place = np.stack([np.roll(np.arange(4), p) for p in range(n)])
    return (np.sign(place[:, :, None] - place[:, None, :]) + 1) / 2


def test_trains_on_the_selected_responses_only():
    """Of a total order the best has v = 1 and the worst v = 0: at the start both losses are 1/4.

    All four would give (1/4 + 1/36 + 1/36 + 1/4) / 4 = 5/36. Log-probs of the others are NaN: nobody may look.
    """
    policy, other = make_policy(), make_policy()
    data = replace(make_scored(policy, n=8, k=4), preference=total_order(8))
    data = replace(data, logp_ref=data.logp_old)
    assert fit(other, data)["loss"] == pytest.approx(5 / 36, rel=1e-5)
    win_rate = leave_one_out(data.preference)
    hidden = np.where((win_rate == 0) | (win_rate == 1), data.logp_old, np.nan)
    figures = fit(policy, replace(data, logp_old=hidden, logp_ref=hidden), algorithm=BestAndWorst())
    assert figures["loss"] == pytest.approx(1 / 4, rel=1e-5)
    assert abs(figures["logp_change"]) < 1e-5


def test_same_seed_same_weights():
    def result(seed):
        policy = make_policy()
        fit(policy, make_scored(policy, n=10, k=3), config=settings(batch_size=4, micro_batch_size=2), seed=seed)
        return weights(policy)

    first = result(0)
    assert_same(result(0), first)
    assert not torch.equal(result(1)["lm_head.weight"], first["lm_head.weight"])


class Infinite(Wind):
    """A loss of zero whose gradient is infinite."""

    clip: float | None = None

    def loss(self, group):
        return (group.logp - group.logp.detach()).sqrt()


@pytest.mark.parametrize("case", ["loss", "gradient"])
def test_divergence_stops_before_it_reaches_the_weights(case):
    policy = make_policy()
    data = make_scored(policy, n=8, k=2)
    if case == "loss":
        data.logp_old[5, 1] = np.nan
    before = weights(policy)
    config = settings(weight_decay=0.1, micro_batch_size=2)
    optimizer = make_optimizer(policy, config)
    with pytest.raises(FloatingPointError, match="diverged"):
        fit(
            policy,
            data,
            algorithm=Infinite() if case == "gradient" else Wind(beta=0.02, eta=10.0, clip=None),
            config=config,
            optimizer=optimizer,
        )
    assert_same(weights(policy), before)
    assert not optimizer.state


# The optimiser's state


def reload(policy, tmp_path):
    """The policy as another process would load it."""
    tmp_path.mkdir()
    if policy.folder is None:
        policy.model.save_pretrained(tmp_path)
        policy.tokenizer.save_pretrained(tmp_path)
    else:
        policies.save(policy, tmp_path)
    return policies.load(tmp_path, PolicyConfig(), device=torch.device("cpu"))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_goes_on_from_files_as_if_never_interrupted(tmp_path, tied, name):
    config = settings(optimizer=name, batch_size=4, micro_batch_size=2, weight_decay=0.01, schedule="cosine")
    data = make_scored(wide_policy(tied=tied), n=10, k=3)

    straight = wide_policy(tied=tied)
    optimizer = make_optimizer(straight, config)
    for t in (1, 2):
        fit(straight, data, config=config, optimizer=optimizer, iteration=t, iterations=2)

    first = reload(wide_policy(tied=tied), tmp_path / "base")
    optimizer = make_optimizer(first, config)
    fit(first, data, config=config, optimizer=optimizer, iteration=1, iterations=2)
    path = save_optimizer(first, optimizer, tmp_path / "optimizer.safetensors")
    second = reload(first, tmp_path / "first")
    optimizer = make_optimizer(second, config)
    load_optimizer(second, optimizer, path)
    fit(second, data, config=config, optimizer=optimizer, iteration=2, iterations=2)

    assert_same(weights(second), weights(straight))
    tied_names = {name for name in load_file(path) if "lm_head" in name}
    assert bool(tied_names) != tied

    forgetful = reload(first, tmp_path / "again")
    fit(forgetful, data, config=config, iteration=2, iterations=2)
    assert not torch.equal(forgetful.model.model.norm.weight, straight.model.model.norm.weight)


@needs_bitsandbytes
def test_eight_bit_moments_take_a_byte_each(tmp_path):
    """But for vectors, weights of fewer than 4096 numbers, and embeddings, tied or not."""
    config = settings(optimizer="adamw_8bit")
    for tied in (False, True):
        policy = wide_policy(tied=tied)
        optimizer = make_optimizer(policy, config)
        fit(policy, make_scored(policy, n=8, k=2), config=config, optimizer=optimizer)
        found = load_file(save_optimizer(policy, optimizer, tmp_path / "optimizer.safetensors"))
        for name, parameter in policy.model.named_parameters():
            in_bytes = parameter.numel() >= 4096 and "embed_tokens" not in name
            dtype = torch.uint8 if in_bytes else torch.float32
            assert [found[f"{m}.{name}"].dtype for m in ("state1", "state2")] == [dtype, dtype]
            assert found[f"step.{name}"].item() == 1
            if in_bytes:  # and a scale for every 256 of them
                assert found[f"absmax1.{name}"].shape == (-(-parameter.numel() // 256),)
        assert any(t.dtype == torch.uint8 for t in found.values())


@needs_bitsandbytes
def test_eight_bit_adamw_follows_adamw():
    """The first step does not see the rounding of moments; of eight, a few percent of the distance come from it."""

    def moved(name, epochs):
        policy = wide_policy()
        before = torch.nn.utils.parameters_to_vector(policy.model.parameters()).detach()
        config = settings(optimizer=name, epochs=epochs, weight_decay=0.1, warmup_ratio=0.0, schedule="constant")
        fit(policy, make_scored(policy, n=8, k=2), config=config)
        return torch.nn.utils.parameters_to_vector(policy.model.parameters()).detach() - before

    torch.testing.assert_close(moved("adamw_8bit", 1), moved("adamw", 1), rtol=0, atol=1e-5)
    rounded, exact = moved("adamw_8bit", 8), moved("adamw", 8)
    assert 1e-3 < (rounded - exact).norm() / exact.norm() < 0.1


def trained_optimizer(policy):
    config = settings()
    optimizer = make_optimizer(policy, config)
    fit(policy, make_scored(policy, n=8, k=2), config=config, optimizer=optimizer)
    return optimizer


def test_missing_moment_is_an_error(tmp_path):
    policy = make_policy()
    path = save_optimizer(policy, trained_optimizer(policy), tmp_path / "optimizer.safetensors")
    moments = load_file(path)
    del moments["exp_avg_sq.model.norm.weight"]
    save_file(moments, path)
    with pytest.raises(KeyError, match=r"exp_avg_sq\.model\.norm\.weight"):
        load_optimizer(policy, make_optimizer(policy, settings()), path)


def test_frozen_weights_stay_out(tmp_path):
    policy = make_policy()
    policy.model.model.embed_tokens.weight.requires_grad_(False)
    before = weights(policy)
    optimizer = trained_optimizer(policy)
    after = weights(policy)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == before.keys() - {"model.embed_tokens.weight"}
    path = save_optimizer(policy, optimizer, tmp_path / "optimizer.safetensors")
    assert {name.split(".", 1)[1] for name in load_file(path)} == moved
    restored = make_optimizer(policy, settings())
    load_optimizer(policy, restored, path)
    assert policy.model.model.embed_tokens.weight not in restored.state
    assert torch.equal(
        restored.state[policy.model.lm_head.weight]["exp_avg"], optimizer.state[policy.model.lm_head.weight]["exp_avg"]
    )


def test_weight_without_gradient_is_restored_as_untouched(tmp_path):
    """An expert that no token met yet has no moments; the next iteration may meet it."""
    policy = make_policy()
    policy.model.register_parameter("expert", torch.nn.Parameter(torch.ones(3, 3)))
    path = save_optimizer(policy, trained_optimizer(policy), tmp_path / "optimizer.safetensors")
    config = settings(learning_rate=1e-2)
    optimizer = make_optimizer(policy, config)
    load_optimizer(policy, optimizer, path)
    policy.model.expert.grad = torch.full((3, 3), 0.5)
    optimizer.step()
    # AdamW's first step is lr·sign(gradient).
    torch.testing.assert_close(policy.model.expert.detach(), torch.full((3, 3), 0.99), rtol=0, atol=1e-6)


def test_only_matrices_decay():
    policy = make_policy()
    decaying, others = make_optimizer(policy, settings(weight_decay=0.1)).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in policy.model.named_parameters()}
    vectors = {names[id(parameter)] for parameter in others["params"]}
    assert vectors == {name for name in names.values() if "norm" in name}
    assert len(decaying["params"]) + len(others["params"]) == len(names)
