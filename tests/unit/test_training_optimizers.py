"""Optimisers: their state in files, moments of 8 bits, and what is frozen or decays."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.config.sections import PolicyConfig
from components.policy import model as policies
from components.training.optimizer import load_optimizer, make_optimizer, save_optimizer
from support.models.tiny import (
    OPTIMIZERS,
    make_policy,
    make_scored,
    needs_bitsandbytes,
    wide_policy,
)
from support.training import assert_same, fit, settings, weights


def reload(policy, tmp_path):
    """The policy as another process would load it."""
    tmp_path.mkdir()
    if policy.folder is None:
        policy.model.save_pretrained(tmp_path)
        policy.tokenizer.save_pretrained(tmp_path)
    else:
        policies.save(policy, tmp_path)
    return policies.load(tmp_path, PolicyConfig(), device=torch.device("cpu"))


@pytest.mark.thorough(but=["adamw"])
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
