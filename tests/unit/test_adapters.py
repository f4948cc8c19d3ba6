"""LoRA: what an adapter leaves alone, how it is kept, and that the merged model is the same one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from components.config.errors import ConfigError, PolicyError
from components.config.sections import LoraConfig, PolicyConfig
from components.policy import lora
from components.policy.batches import collate
from components.policy.logprobs import response_logprobs
from components.policy.model import load
from support.models.adapters import LORA, disturb
from support.models.words import EACH

IDS = torch.arange(6, 26).reshape(2, 10)  # of the models in support.models.words


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.fixture(params=EACH)
def folder(request, tmp_path, make_model, make_tokenizer):
    """A directory of each architecture, and in it an adapter that does something."""
    directory = tmp_path / "policy"
    model = make_model(request.param)
    model.save_pretrained(directory)
    make_tokenizer("{{ messages[0]['content'] }}").save_pretrained(directory)
    lora.add(model, LORA, 0)
    disturb(model)
    return lora.save(model, directory)


def test_a_fresh_adapter_changes_no_bit_and_freezes_the_rest(model):
    before = logits(model)
    names = {name for name, _ in model.named_parameters()}
    lora.add(model, LORA, 0)
    assert torch.equal(logits(model), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == lora.weights(model).keys()
    assert len(trained) == 2 * sum(".lora_A." in name for name in trained) > 0
    assert len(names) == len(list(model.parameters())) - len(trained)
    assert not any("lm_head" in name or "embed" in name for name in trained)
    assert not any(module.training for module in model.modules())


def test_all_linear_layers_or_those_named(make_model):
    """Two layers of seven matrices; or of them queries and values, and one layer's output by its whole name."""
    every, some = make_model(), make_model()
    lora.add(every, LORA, 0)
    lora.add(some, LoraConfig(target_modules=["q_proj", "v_proj", "layers.1.self_attn.o_proj"]), 0)
    assert len(lora.weights(every)) == 2 * 2 * 7
    targets = {name.partition(".lora_")[0] for name in lora.weights(some)}
    layers = [f"model.layers.{i}.self_attn" for i in (0, 1)]
    assert targets == {f"{at}.{name}" for at in layers for name in ("q_proj", "v_proj")} | {f"{layers[1]}.o_proj"}
    assert {p.shape[0] for name, p in lora.weights(some).items() if "lora_A" in name} == {16}


def test_the_seed_makes_the_adapter_and_nothing_else_is_drawn(make_model):
    def drawn(seed):
        model = make_model()
        before = torch.get_rng_state()
        lora.add(model, LORA, seed)
        assert torch.equal(torch.get_rng_state(), before)
        return torch.cat([p.detach().reshape(-1) for p in lora.weights(model).values()])

    torch.rand(1)
    first = drawn(0)
    torch.rand(1)
    assert torch.equal(drawn(0), first)
    assert not torch.equal(drawn(1), first)


@pytest.mark.parametrize("targets", [["q_proj"], ["layers.0.mlp.up_proj", "v_proj"], "all-linear"])
def test_targets_that_are_there(make_model, targets):
    lora.check(make_model(), LoraConfig(target_modules=targets))


@pytest.mark.parametrize("target", ["query", "lm_head", "embed_tokens", "self_attn", "proj", "q_proj.weight"])
def test_targets_that_are_not(make_model, target):
    message = (
        rf"^training\.lora\.target_modules: '{target}' is no linear layer of LlamaForCausalLM\. Choose from "
        "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj, or write all-linear."
    )
    with pytest.raises(ConfigError, match=message):
        lora.check(make_model(), LoraConfig(target_modules=["q_proj", target]))


def test_an_adapter_comes_back_bit_for_bit(folder):
    expected = AutoModelForCausalLM.from_pretrained(folder)
    lora.load(expected, folder / "adapter")
    again = load(folder, PolicyConfig(), device=torch.device("cpu"))
    assert {name for name, p in again.model.named_parameters() if p.requires_grad} == {*lora.weights(expected)}
    assert torch.equal(logits(again.model), logits(expected))
    lora.save(again.model, folder / "again")
    files = ["adapter_config.json", "adapter_model.safetensors"]
    assert sorted(file.name for file in (folder / "again" / "adapter").iterdir()) == files
    for name in files:
        assert (folder / "again" / "adapter" / name).read_bytes() == (folder / "adapter" / name).read_bytes()


def test_an_adapter_is_peft_s_own(folder):
    from peft import PeftModel

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), folder / "adapter").eval()
    ours = load(folder, PolicyConfig(), device=torch.device("cpu")).model
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-5, atol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert (logits(ours) - logits(plain)).abs().max() > 0.1


def test_a_missing_weight_is_an_error(folder):
    from safetensors.torch import save_file

    file = folder / "adapter" / "adapter_model.safetensors"
    found = load_file(file)
    name = sorted(found)[-1]
    del found[name]
    save_file(found, file)
    with pytest.raises(KeyError, match=name):
        load(folder, PolicyConfig())


def test_a_damaged_adapter_is_named(folder):
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"damaged!" * 9)
    with pytest.raises(PolicyError, match=r"policy\.model: .* cannot be loaded"):
        load(folder, PolicyConfig())


@pytest.mark.thorough(but=["llama"])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # PEFT, of GPT-2's layers where the config does not say
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not JSON"),
        ("[]", "it holds list"),
        ('{"r": 4,\n"r": 8}', "line 2: the key 'r' stands twice"),
        ('{"peft_type": "NONESUCH"}', "NONESUCH"),
        ('{"peft_type": "LORA", "r": -1, "target_modules": "all-linear"}', "value passed is -1"),
        ('{"peft_type": "LORA", "r": 4, "target_modules": ["nowhere"]}', "nowhere"),
    ],
)
def test_a_damaged_config_of_an_adapter_is_named(folder, text, said):
    (folder / "adapter" / "adapter_config.json").write_text(text)
    with pytest.raises(
        PolicyError, match=r"policy\.model: its adapter in .* cannot be loaded: .*adapter_config"
    ) as caught:
        load(folder, PolicyConfig())
    assert said in str(caught.value)


def test_an_adapter_of_another_shape_is_refused(folder):
    from safetensors.torch import save_file

    file = folder / "adapter" / "adapter_model.safetensors"
    found = load_file(file)
    name = sorted(found)[0]
    save_file({**found, name: torch.ones(1, 1)}, file)
    with pytest.raises(PolicyError, match=rf"{name} is of shape \[1, 1\], and the model takes .* Use the adapter"):
        load(folder, PolicyConfig())


def test_the_merged_model_is_the_same(folder, tmp_path):
    unmerged = load(folder, PolicyConfig(), device=torch.device("cpu")).model
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "eos_token_id": 1}))
    merged = lora.merge(folder, tmp_path / "merged")
    found, expected = logits(AutoModelForCausalLM.from_pretrained(merged)), logits(unmerged)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    base = {file.name for file in folder.iterdir() if file.is_file()}
    assert {file.name for file in merged.iterdir()} == base
    for name in ("tokenizer.json", "generation_config.json"):
        assert (merged / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_merged_weights_are_rounded_once_to_the_base_s_dtype(tmp_path, make_model, make_tokenizer, name):
    """In fp64 by hand: W + alpha/rank · BA, its transpose where the layer is a Conv1D; all others as they were."""
    model, directory = make_model(name).to(torch.bfloat16), tmp_path / "policy"
    model.save_pretrained(directory)
    make_tokenizer().save_pretrained(directory)
    base = load_file(directory / "model.safetensors")
    lora.add(model, LORA, 0)
    assert {p.dtype for p in lora.weights(model).values()} == {torch.float32}
    disturb(model)
    merged = load_file(lora.merge(lora.save(model, directory), tmp_path / "merged") / "model.safetensors")
    assert merged.keys() == base.keys()
    changed = 0
    for key, weight in base.items():
        expected = weight
        found = {n: p for n, p in lora.weights(model).items() if n.startswith(key.removesuffix("weight") + "lora")}
        if found:
            a, b = (p.detach().double() for p in found.values())
            change = 12 / 3 * b @ a
            expected = (weight.double() + (change.T if name == "gpt2" else change)).to(torch.bfloat16)
            changed += 1
        assert merged[key].dtype == torch.bfloat16
        # fp32 and fp64 sums may fall on different sides of the middle between two bf16 numbers
        assert (merged[key] != expected).float().mean() < 0.01
        torch.testing.assert_close(merged[key], expected, rtol=2**-7, atol=1e-6)
    assert changed == {"llama": 14, "gpt2": 8}[name]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_frozen_base_takes_the_precision_and_an_adapter_does_not(folder, precision, dtype):
    policy = load(folder, PolicyConfig(), precision=precision, frozen=True, device=torch.device("cpu"))
    own = lora.weights(policy.model)
    assert {p.dtype for p in own.values()} == {torch.float32}
    assert {p.dtype for name, p in policy.model.named_parameters() if name not in own} == {dtype}


@pytest.mark.thorough(but=["llama"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_begins_with_the_reference_s_log_probs(folder, precision):
    """Bit for bit, though one model has an adapter and the other none; with gradients and without."""
    (folder / "adapter").rename(folder.parent / "elsewhere")
    reference, policy = (
        load(folder, PolicyConfig(), precision=precision, frozen=True, device=torch.device("cpu")) for _ in "12"
    )
    lora.add(policy.model, LORA, 0)
    rng = np.random.default_rng(0)
    rows = [rng.integers(6, 60, length) for length in (4, 2, 7, 3, 9, 1, 5)]
    batch = collate(rows[:2], rows[2:6], 2, torch.device("cpu"))
    with torch.no_grad():
        expected = response_logprobs(reference, batch)
        assert torch.equal(response_logprobs(policy, batch), expected)
    assert torch.equal(response_logprobs(policy, batch).detach(), expected)
