"""Log-probs against a plain computation from the model's own logits, for every architecture of conftest.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertLMHeadModel, LlamaForCausalLM

from components.config.errors import PolicyError
from components.data.records import Ragged
from components.policy import batches
from components.policy.batches import by_length, collate, distinct_tokens, left_padded, partition, prefix_positions
from components.policy.logprobs import (
    LOGITS_PER_CHUNK,
    check_head,
    head_logits,
    response_logprobs,
    score_responses,
)

CPU = torch.device("cpu")
VOCABULARY, EOS, PAD = 60, 1, 2  # of the models in conftest.py


def ragged(rng, lengths):
    """Token ids, special ones left out."""
    return [rng.integers(6, VOCABULARY, length) for length in lengths]


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


def plain(model, prompts, responses):
    """Row by row, unpadded, from log-softmax of the full logits; (B,) in the model's dtype, differentiable."""
    rows = []
    for prompt, response in zip(prompts, responses, strict=True):
        ids = torch.tensor([*prompt, *response])
        logp = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        rows.append(sum((logp[i - 1, ids[i]] for i in range(len(prompt), len(ids))), logp.new_zeros(())))
    return torch.stack(rows)


def ours(policy, prompts, responses, logits_per_chunk=LOGITS_PER_CHUNK):
    return response_logprobs(policy, collate(prompts, responses, PAD, CPU), logits_per_chunk)


def gradients(model, value):
    """Gradients of every parameter, in one vector."""
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(value, list(model.parameters()))])


def groups():
    """Prompts of unequal length, one of a single token, three responses to each, and a prompt for each response."""
    rng = np.random.default_rng(2)
    prompts = ragged(rng, [4, 1, 9])
    responses = ragged(rng, [3, 0, 9, 1, 5, 5, 2, 12, 1])
    return prompts, responses, [prompt for prompt in prompts for _ in range(3)]


# Against plain logits


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


# Memory


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


# The head


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


# Batches


def test_collate_by_hand():
    """A row lacks the response's last token, which predicts nothing; the longest comes first."""
    batch = collate([[7, 8], [9]], [[10], [11, 12, 13]], PAD, CPU)
    assert batch.prefix is None
    assert batch.input_ids.tolist() == [[9, 11, 12], [7, 8, 10]]
    assert batch.rows.tolist() == [0, 0, 0, 1]
    assert batch.columns.tolist() == [0, 1, 2, 1]
    assert batch.targets.tolist() == [11, 12, 13, 10]
    assert batch.owners.tolist() == batch.places.tolist() == [1, 0]


def test_collate_groups_by_hand():
    """Two responses to each prompt share all but its last token."""
    batch = collate([[7, 8, 9], [6, 5]], [[10, 11], [12], [], [13]], PAD, CPU)
    assert batch.prefix.input_ids.tolist() == [[7, 8], [PAD, 6]]
    assert batch.prefix.mask.tolist() == [[1, 1], [0, 1]]
    assert batch.prefix.lengths.tolist() == [2, 1]
    assert prefix_positions(batch.prefix).tolist() == [[0, 1], [0, 0]]
    assert batch.input_ids.tolist() == [[9, 10], [9, 12], [5, 13], [5, PAD]]
    assert batch.rows.tolist() == [0, 0, 1, 2]
    assert batch.columns.tolist() == [0, 1, 0, 0]
    assert batch.targets.tolist() == [10, 11, 12, 13]
    assert batch.places.tolist() == [0, 1, 3, 2]


def test_collate_groups_without_a_prefix_by_hand():
    batch = collate([[7, 8, 9], [6, 5]], [[10, 11], [12], [], [13]], PAD, CPU, share_prompts=False)
    assert batch.prefix is None
    assert batch.input_ids.tolist() == [[7, 8, 9, 10], [7, 8, 9, 12], [6, 5, 13, PAD], [6, 5, PAD, PAD]]
    assert batch.rows.tolist() == [0, 0, 1, 2]
    assert batch.columns.tolist() == [2, 3, 2, 1]
    assert batch.targets.tolist() == [10, 11, 12, 13]
    assert batch.places.tolist() == [0, 1, 3, 2]


def test_rows_are_read_in_parts_of_similar_length(monkeypatch):
    """Rows of 10, 9, 4, 4 and 1 tokens; a cut at 4 saves 3·6 tokens, one at 9 or at 1 as much as 4."""
    lengths = np.array([10, 9, 4, 4, 1])
    for overhead, expected in [
        (0, [(0, 1), (1, 2), (2, 4), (4, 5)]),
        (2, [(0, 2), (2, 4), (4, 5)]),
        (4, [(0, 2), (2, 5)]),
        (17, [(0, 2), (2, 5)]),
        (19, [(0, 5)]),
    ]:
        monkeypatch.setattr(batches, "OVERHEAD", overhead)
        assert partition(lengths) == expected
    monkeypatch.setattr(batches, "OVERHEAD", 1)
    batch = collate([[7, 8], [9]], [[10, 11, 12], [10], [], [13]], PAD, CPU)
    assert [(part.rows, part.tokens, part.width) for part in batch.parts] == [
        (slice(0, 1), slice(0, 3), 3),
        (slice(1, 4), slice(3, 5), 1),
    ]


@pytest.mark.parametrize("overhead", [0, 5, 40, 1000])
def test_no_other_partition_is_cheaper(monkeypatch, overhead):
    """Every way to cut eight rows, by enumeration."""
    monkeypatch.setattr(batches, "OVERHEAD", overhead)
    rng = np.random.default_rng(0)

    def cost(lengths, ranges):
        return sum((end - begin) * lengths[begin] + overhead for begin, end in ranges)

    for _ in range(20):
        lengths = np.sort(rng.integers(1, 30, 8))[::-1]
        ways = []
        for bits in range(2**7):
            cuts = [0, *(i + 1 for i in range(7) if bits >> i & 1), 8]
            ways.append(cost(lengths, pairwise(cuts)))
        found = partition(lengths)
        assert cost(lengths, found) == min(ways)
        assert [i for begin, end in found for i in range(begin, end)] == list(range(8))


def test_equal_responses_to_a_prompt_share_a_row():
    """The first prompt's three responses are two rows; an equal response to the other prompt has a row of its own."""
    batch = collate([[7, 8], [9, 6]], [[10], np.array([11, 12]), [10], [10], [10], [10]], PAD, CPU)
    assert batch.input_ids.tolist() == [[8, 11], [8, 10], [6, 10]]
    assert batch.owners.tolist() == [0, 0, 1]
    assert batch.places.tolist() == [1, 0, 1, 2, 2, 2]
    assert batch.targets.tolist() == [11, 12, 10, 10]


def test_one_distinct_response_to_each_prompt_needs_no_prefix():
    batch = collate([[7, 8], [9, 6]], [[10], [10], [11], [11]], PAD, CPU)
    assert batch.prefix is None
    assert batch.input_ids.tolist() == [[7, 8], [9, 6]]


def test_distinct_tokens_by_hand():
    """Of the first three responses two are equal, of the last three all."""
    assert distinct_tokens([[1], [1], [2, 3], [1, 4], [1, 4], [1, 4]], 3).tolist() == [3, 2]


@pytest.mark.usefixtures("overhead")
def test_equal_responses_have_equal_log_probs_and_add_up_in_the_gradient(model, make_policy):
    prompts, responses, repeated = groups()
    responses[1], responses[5], responses[8] = responses[0], responses[3], responses[7]
    model.double()
    logp = ours(make_policy(model), prompts, responses)
    exact = plain(model, repeated, responses)
    torch.testing.assert_close(logp.detach(), exact.detach(), rtol=0, atol=1e-10)
    assert logp[0] == logp[1]
    weights = torch.linspace(-1, 2, len(responses), dtype=torch.float64)
    expected = gradients(model, exact @ weights)
    torch.testing.assert_close(gradients(model, logp @ weights), expected, rtol=1e-5, atol=1e-5)  # norms round to fp32


def test_prompts_of_one_token_share_nothing():
    assert collate([[7], [8]], [[10], [11], [12], [13]], PAD, CPU).prefix is None


def test_left_padded_has_a_mask_only_where_it_pads():
    assert left_padded([[7, 8], [5, 6]], PAD, CPU).mask is None
    assert left_padded([[7, 8], [5]], PAD, CPU).mask.tolist() == [[1, 1], [0, 1]]


def test_by_length_by_hand():
    """By length 9, 4, 3, 2, 1; their sizes 9, 5, 3, 7, 1 in sums of at most eight."""
    found = by_length(np.array([3, 9, 1, 4, 2]), np.array([3, 9, 1, 5, 7]), tokens_per_batch=8)
    assert [b.tolist() for b in found] == [[1], [3, 0], [4, 2]]


@pytest.mark.parametrize("budget", [1, 7, 40, 10_000])
def test_by_length_covers_each_index_once_within_the_budget(budget):
    lengths, sizes = np.random.default_rng(0).integers(1, 30, (2, 200))
    found = list(by_length(lengths, sizes, budget))
    assert sorted(np.concatenate(found)) == list(range(200))
    for batch, following in zip(found, [*found[1:], None], strict=True):
        assert len(batch) == 1 or sizes[batch].sum() <= budget
        assert following is None or sizes[batch].sum() + sizes[following[0]] > budget
    longest = [lengths[batch].max() for batch in found]
    assert longest == sorted(longest, reverse=True)


class Reads:
    """Counts the tokens that a policy's model reads."""

    def __init__(self, policy):
        self.tokens = 0
        policy.model.base_model.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs):
        self.tokens += kwargs["input_ids"].numel()


def test_score_responses_reads_a_long_prompt_once(make_policy):
    """Two prompts of 20 tokens, 4 responses of 5 to each: 2·19 + 8·5 tokens, not 8·24."""
    rng = np.random.default_rng(0)
    policy = make_policy()
    reads = Reads(policy)
    score_responses(policy, Ragged.of(ragged(rng, [20, 20])), Ragged.of(ragged(rng, [5] * 8)))
    assert reads.tokens == 2 * 19 + 8 * 5


@pytest.mark.parametrize(("overhead", "tokens"), [(1, 2 * 40 + 6 * 1), (1000, 8 * 40)])
def test_score_responses_reads_ragged_responses_in_parts(make_policy, monkeypatch, overhead, tokens):
    """One response of forty tokens to each of two prompts and three of one token: the latter are not padded to forty.

    Each row begins with a token of its prompt and lacks its own last one; of the prompts one token is the prefix.
    """
    monkeypatch.setattr(batches, "OVERHEAD", overhead)
    rng = np.random.default_rng(0)
    policy = make_policy()
    reads = Reads(policy)
    lengths = [40, 1, 1, 1, 1, 1, 40, 1]
    score_responses(policy, Ragged.of(ragged(rng, [2, 2])), Ragged.of(ragged(rng, lengths)))
    assert reads.tokens == 2 * 1 + tokens


@pytest.mark.usefixtures("overhead")
@pytest.mark.parametrize("tokens_per_batch", [1, 23, 60, 8192])
def test_score_responses_keeps_the_order(make_policy, tokens_per_batch):
    rng = np.random.default_rng(0)
    prompts, responses = ragged(rng, [5, 1, 9]), ragged(rng, [4, 8, 1, 0, 2, 6, 7, 3, 5, 1, 1, 2])
    policy, calls = make_policy(), []
    scores = score_responses(
        policy,
        Ragged.of(prompts),
        Ragged.of(responses),
        tokens_per_batch=tokens_per_batch,
        progress=lambda done, total: calls.append((done, total)),
    )
    with torch.no_grad():
        expected = plain(policy.model, [prompts[i // 4] for i in range(12)], responses).reshape(3, 4)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    assert calls[-1] == (12, 12)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
