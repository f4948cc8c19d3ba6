"""Log-probs against a plain computation from the model's own logits, for every architecture of support.models.words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertLMHeadModel, LlamaForCausalLM

from components.config.errors import PolicyError
from components.policy import batches
from components.policy.batches import collate
from components.policy.head import head_logits
from components.policy.logprobs import check_head, response_logprobs
from support.logprobs import CPU, EOS, PAD, VOCABULARY, gradients, groups, ours, plain, ragged


@pytest.fixture(params=[1, 256], ids=["many-parts", "one-part"])
def overhead(request, monkeypatch):
    """Tokens that another forward pass may cost: few, so that each length has its own, or many."""
    monkeypatch.setattr(batches, "OVERHEAD", request.param)


@pytest.fixture
def pairs():
    """Prompts and responses of unequal lengths: an empty response, one of EOS alone, one longer than any window."""
    rng = np.random.default_rng(0)
    responses = ragged(rng, [3, 0, 9, 1, 5, 5, 2])
    responses[3][:] = EOS
    return ragged(rng, [4, 2, 7, 1, 3, 3, 8]), responses


@pytest.mark.thorough(but=["4"])
@pytest.mark.usefixtures("overhead")
@pytest.mark.parametrize("tokens_per_chunk", [1, 4, 25, 1000])
@pytest.mark.parametrize("grad", [True, False])
def test_fp64_agrees_with_full_logits(model, make_policy, pairs, tokens_per_chunk, grad):
    model.double()
    with torch.set_grad_enabled(grad):
        logp = ours(make_policy(model), *pairs, tokens_per_chunk * VOCABULARY)
    assert logp.dtype == torch.float64
    assert logp[1] == 0
    torch.testing.assert_close(logp.detach(), plain(model, *pairs).detach(), rtol=0, atol=1e-10)


def test_fp32_agrees_with_fp64(model, make_policy, pairs):
    logp = ours(make_policy(model), *pairs).detach()
    exact = plain(model.double(), *pairs).detach()
    torch.testing.assert_close(logp.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.thorough(but=["many-parts-gemma2", "one-part-llama"])
@pytest.mark.usefixtures("overhead")
def test_gradients_agree_with_full_logits(model, make_policy, pairs):
    """Norms compute in fp32 whatever the weights are, hence the tolerance against unpadded rows."""
    model.double()
    policy, weights = make_policy(model), torch.linspace(-1, 2, len(pairs[0]), dtype=torch.float64)
    expected = gradients(model, plain(model, *pairs) @ weights)
    assert expected.abs().max() > 0.1
    unchunked = gradients(model, ours(policy, *pairs) @ weights)
    torch.testing.assert_close(unchunked, expected, rtol=1e-5, atol=1e-6)
    for tokens_per_chunk in (1, 7):
        chunked = gradients(model, ours(policy, *pairs, tokens_per_chunk * VOCABULARY) @ weights)
        torch.testing.assert_close(chunked, unchunked, rtol=1e-10, atol=1e-10)


@pytest.mark.thorough(but=["4"])
@pytest.mark.usefixtures("overhead")
@pytest.mark.parametrize("tokens_per_chunk", [4, 1000])
def test_a_prompt_read_once_for_its_responses_agrees_with_full_logits(model, make_policy, tokens_per_chunk):
    prompts, responses, repeated = groups()
    model.double()
    logp = ours(make_policy(model), prompts, responses, tokens_per_chunk * VOCABULARY)
    exact = plain(model, repeated, responses)
    torch.testing.assert_close(logp.detach(), exact.detach(), rtol=0, atol=1e-10)
    weights = torch.linspace(-1, 2, len(responses), dtype=torch.float64)
    expected = gradients(model, exact @ weights)
    torch.testing.assert_close(gradients(model, logp @ weights), expected, rtol=1e-5, atol=1e-6)


def test_prompts_of_one_length_need_no_mask(model, make_policy):
    rng = np.random.default_rng(3)
    prompts, responses = ragged(rng, [7, 7]), ragged(rng, [3, 10, 9, 1])
    model.double()
    batch = collate(prompts, responses, PAD, CPU)
    assert batch.prefix.mask is None
    with torch.no_grad():
        logp = response_logprobs(make_policy(model), batch)
        exact = plain(model, [prompts[0], prompts[0], prompts[1], prompts[1]], responses)
    torch.testing.assert_close(logp, exact, rtol=0, atol=1e-10)


def test_a_prompt_read_once_in_fp32_agrees_with_fp64(model, make_policy):
    prompts, responses, repeated = groups()
    with torch.no_grad():
        logp = ours(make_policy(model), prompts, responses)
        exact = plain(model.double(), repeated, responses)
    torch.testing.assert_close(logp.double(), exact, rtol=1e-5, atol=0)


def test_bf16_is_close(model, make_policy, pairs):
    """bf16 keeps 8 bits of every activation: with these wide weights, up to 0.05 nats a token."""
    with torch.no_grad():
        logp = ours(make_policy(model, precision="bf16"), *pairs)
        exact = plain(model.double(), *pairs)
    assert logp.dtype == torch.float32
    assert not torch.equal(logp.double(), exact)
    tokens = torch.tensor([len(response) for response in pairs[1]])
    assert ((logp - exact).abs() <= 0.1 * tokens).all()


def test_bf16_chunks_agree(make_policy, pairs):
    policy = make_policy(precision="bf16")
    whole, chunked = ours(policy, *pairs), ours(policy, *pairs, 4 * VOCABULARY)
    torch.testing.assert_close(chunked, whole, rtol=1e-6, atol=1e-6)


def test_padding_length_changes_nothing(model, make_policy, pairs):
    policy = make_policy(model.double())
    prompts, responses = pairs
    rng = np.random.default_rng(1)
    with torch.no_grad():
        short = ours(policy, prompts, responses)
        long = ours(policy, [*prompts, *ragged(rng, [20])], [*responses, *ragged(rng, [20])])
    torch.testing.assert_close(long[:-1], short, rtol=0, atol=1e-10)


class Largest(TorchDispatchMode):
    """The largest number of elements of any tensor that an operation makes, in forward and backward."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


@pytest.mark.parametrize("grad", [True, False])
def test_full_logits_never_exist(make_model, make_policy, grad):
    vocabulary, tokens, per_chunk = 4000, 16 * 20, 10
    policy = make_policy(make_model(vocab_size=vocabulary))
    rng = np.random.default_rng(0)
    prompts, responses = ragged(rng, [5] * 16), ragged(rng, [20] * 16)

    def largest(logits_per_chunk):
        with Largest() as mode, torch.set_grad_enabled(grad):
            logp = ours(policy, prompts, responses, logits_per_chunk)
            if grad:
                logp.sum().backward()
        return mode.numel

    assert largest(vocabulary * tokens) == vocabulary * tokens
    weights = vocabulary * 16  # of the head, whose gradient must exist
    assert largest(vocabulary * per_chunk) <= max(vocabulary * per_chunk, weights)


def test_chunks_keep_no_logits_for_backward(make_model, make_policy):
    """Chunks that were kept would add up to the full logits."""
    vocabulary, kept = 4000, []
    policy = make_policy(make_model(vocab_size=vocabulary))
    rng = np.random.default_rng(0)
    prompts, responses = ragged(rng, [5] * 4), ragged(rng, [20] * 4)

    def keep(tensor):
        kept.append(tensor.shape)
        return tensor

    def logits_kept(logits_per_chunk):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            ours(policy, prompts, responses, logits_per_chunk)
        return sum(shape.numel() for shape in kept if len(shape) == 2 and shape[1] == vocabulary)

    assert logits_kept(vocabulary * 80) >= vocabulary * 80
    assert logits_kept(vocabulary * 10) == 0


def test_head_is_fed_with_the_last_hidden_state(model):
    fed = []
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: fed.append(args[0]))
    ids = torch.arange(6, 16)[None]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        hidden = model.base_model(input_ids=ids).last_hidden_state
        assert torch.equal(hidden, fed[0])
        torch.testing.assert_close(head_logits(model, hidden), logits, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_check_head_passes(model, make_policy, dtype):
    check_head(make_policy(model.to(dtype)))


def test_check_head_refuses_altered_logits(make_model, make_policy):
    class Altered(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits[..., 7] -= 0.01
            return output

    model = Altered(make_model().config)
    with pytest.raises(PolicyError, match=r"Altered changes its logits after the head by up to 0.01"):
        check_head(make_policy(model.eval()))


def test_check_head_refuses_what_shows_in_bf16(make_model, make_policy):
    class Scaled(LlamaForCausalLM):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits *= 1.1
            return output

    with pytest.raises(PolicyError, match=r"Scaled changes its logits after the head"):
        check_head(make_policy(Scaled(make_model().config).to(torch.bfloat16).eval()))


def test_check_head_refuses_models_that_look_ahead(make_policy):
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    with pytest.raises(PolicyError, match="BertLMHeadModel is not causal"):
        check_head(make_policy(BertLMHeadModel(config).eval()))
