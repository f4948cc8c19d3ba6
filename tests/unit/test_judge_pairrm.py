"""PairRM: a checkpoint with the original's parameter names, its input, its head worked out by hand, both orders."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.config.errors import JudgeError
from components.data.records import Prompt
from components.judges.pairrm import PairRM
from support.models.pairrm import CLS, FIRST, LAYERS, PROMPTS, SECOND, SEP, SIZE, SOURCE, judge, save_original

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

A, B, C, D, E, F = range(5, 11)
LAYER = [
    *(f"attention.self.{name}_proj.{part}" for name in ("query", "key", "value") for part in ("weight", "bias")),
    *(
        f"{block}.{part}"
        for block in ("attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense")
        for part in ("weight", "bias")
    ),
    "output.LayerNorm.weight",
    "output.LayerNorm.bias",
]
# As llm-blender/PairRM-hf has them, but for the number of layers
NAMES = {
    "pretrained_model.embeddings.word_embeddings.weight",
    "pretrained_model.embeddings.LayerNorm.weight",
    "pretrained_model.embeddings.LayerNorm.bias",
    *(f"pretrained_model.encoder.layer.{i}.{name}" for i in range(LAYERS) for name in LAYER),
    "pretrained_model.encoder.rel_embeddings.weight",
    "pretrained_model.encoder.LayerNorm.weight",
    "pretrained_model.encoder.LayerNorm.bias",
    "head_layer.1.weight",
    "head_layer.1.bias",
    "head_layer.4.weight",
    "head_layer.4.bias",
}
RESPONSES = [["b", "c d e", "d d"], ["f", "e e e e e e", ""]]


@pytest.fixture
def folder(tmp_path):
    return save_original(tmp_path)


@torch.no_grad()
def hidden_states(folder, ids):
    """DeBERTa's last hidden states of one input, (L, H), by the library's class and the checkpoint's weights."""
    from transformers import DebertaV2Config, DebertaV2Model

    encoder = DebertaV2Model(DebertaV2Config.from_pretrained(folder)).eval()
    weights = load_file(folder / "model.safetensors")
    prefix = "pretrained_model."
    encoder.load_state_dict({n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)})
    return encoder(torch.tensor([ids])).last_hidden_state[0].double().numpy()


def logit(folder, source, first, second):
    """The original's arithmetic in numpy: tanh MLP on [source; candidate], left minus right."""
    ids = [CLS, SOURCE, *source, SEP, CLS, FIRST, *first, SEP, CLS, SECOND, *second, SEP]
    hidden = hidden_states(folder, ids)
    weights = {n: w.double().numpy() for n, w in load_file(folder / "model.safetensors").items()}

    def score(marker):
        pair = np.concatenate([hidden[ids.index(SOURCE)], hidden[ids.index(marker)]])
        inner = np.tanh(weights["head_layer.1.weight"] @ pair + weights["head_layer.1.bias"])
        return (weights["head_layer.4.weight"] @ inner + weights["head_layer.4.bias"])[0]

    return score(FIRST) - score(SECOND)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def averaged(folder, source, first, second):
    """P(first > second), the mean of what the model says of it in first and in second place."""
    shown_first = sigmoid(logit(folder, source, first, second))
    shown_second = 1 - sigmoid(logit(folder, source, second, first))
    return (shown_first + shown_second) / 2


def test_preferences_are_those_of_the_originals_arithmetic_in_both_orders(folder):
    judgement = judge(folder).judge(PROMPTS, RESPONSES)
    preference = judgement.preference
    assert preference[0, 0, 1] == pytest.approx(averaged(folder, [A], [B], [C, D, E]), abs=1e-6)
    assert preference[0, 2, 1] == pytest.approx(averaged(folder, [A], [D, D], [C, D, E]), abs=1e-6)
    assert preference[1, 1, 2] == pytest.approx(averaged(folder, [A, B, C, D, E], [E] * 6, []), abs=1e-6)
    assert abs(logit(folder, [A], [B], [C, D, E]) + logit(folder, [A], [C, D, E], [B])) > 0.01  # the order counts
    assert np.isnan(judgement.reward).all()
    assert judgement.reward.shape == (2, 3)


def test_the_head_by_hand(folder):
    """With a first layer of zeros but for one entry, the logit is w·(tanh(h_left) - tanh(h_right)) of one unit."""
    weights = load_file(folder / "model.safetensors")
    first, last = torch.zeros(SIZE, 2 * SIZE), torch.zeros(1, SIZE)
    first[3, SIZE + 5], last[0, 3] = 1.0, 2.0  # unit 3 sees the candidate's hidden state 5
    weights |= {"head_layer.1.weight": first, "head_layer.1.bias": torch.zeros(SIZE), "head_layer.4.weight": last}
    save_file(weights, folder / "model.safetensors")
    probability = {}
    for left, right in ((B, C), (C, B)):
        hidden = hidden_states(folder, [CLS, SOURCE, A, SEP, CLS, FIRST, left, SEP, CLS, SECOND, right, SEP])
        probability[left] = sigmoid(2 * (np.tanh(hidden[5, 5]) - np.tanh(hidden[9, 5])))
    expected = (probability[B] + 1 - probability[C]) / 2
    assert judge(folder).judge(PROMPTS[:1], [["b", "c"]]).preference[0, 0, 1] == pytest.approx(expected, abs=1e-6)


def test_a_checkpoint_of_the_original_loads_whole(folder):
    from components.judges._pairrm import PairRMModel

    assert set(load_file(folder / "model.safetensors")) == NAMES
    model, report = PairRMModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert {name for name, _ in model.named_parameters()} == NAMES


def test_a_buffer_of_older_checkpoints_does_not_matter(folder):
    from components.judges._pairrm import PairRMModel

    weights = load_file(folder / "model.safetensors")
    weights["pretrained_model.embeddings.position_ids"] = torch.arange(64)[None]
    save_file(weights, folder / "model.safetensors")
    _, report = PairRMModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_batches_change_nothing(folder):
    one_by_one = judge(folder, tokens_per_batch=1).judge(PROMPTS, RESPONSES).preference
    for tokens in (40, 10_000):
        preference = judge(folder, tokens_per_batch=tokens).judge(PROMPTS, RESPONSES).preference
        np.testing.assert_allclose(preference, one_by_one, atol=1e-5)
    turned = judge(folder).judge(PROMPTS[::-1], [row[::-1] for row in RESPONSES[::-1]]).preference
    np.testing.assert_allclose(turned[::-1, ::-1, ::-1], one_by_one, atol=1e-5)


@pytest.mark.parametrize(("tokens", "calls"), [(1, 12), (10_000, 1)])
def test_the_model_reads_every_ordered_pair_once(folder, monkeypatch, tokens, calls):
    from components.judges._pairrm import PairRMModel

    rows, forward = [], PairRMModel.forward

    def counted(self, input_ids, attention_mask):
        rows.extend(tuple(row[mask.bool()].tolist()) for row, mask in zip(input_ids, attention_mask, strict=True))
        called.append(len(input_ids))
        return forward(self, input_ids, attention_mask)

    called = []
    monkeypatch.setattr(PairRMModel, "forward", counted)
    judge(folder, tokens_per_batch=tokens).judge(PROMPTS, RESPONSES)
    assert len(called) == calls
    assert len(rows) == len(set(rows)) == 2 * 3 * 2  # n·K(K - 1)


def test_preferences_of_a_pair_add_up_to_one(folder):
    preference = judge(folder).judge(PROMPTS, RESPONSES).preference
    np.testing.assert_allclose(preference + preference.swapaxes(1, 2), 1, atol=1e-12)
    assert (preference[:, range(3), range(3)] == 0.5).all()


def test_equal_responses_tie_exactly(folder):
    assert judge(folder).judge(PROMPTS[:1], [["b c", "b c"]]).preference.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


def test_a_single_response_has_nobody_to_beat(folder):
    judgement = judge(folder).judge(PROMPTS, [["b"], ["c"]])
    assert judgement.preference.tolist() == [[[0.5]], [[0.5]]]
    assert np.isnan(judgement.reward).all()


def test_progress_counts_ordered_pairs(folder):
    seen = []
    judge(folder).judge(PROMPTS, RESPONSES, lambda done, total, **figures: seen.append((done, total, figures)))
    done, total, figures = seen[-1]
    assert (done, total) == (12, 12)
    assert figures.keys() == {"pairs_per_second", "truncated"}
    assert figures["truncated"] == 0
    assert PairRM().model_inputs(2, 3) == 12


def test_earlier_turns_are_part_of_the_source(folder):
    turns = (("user", "a"), ("assistant", "b"), ("user", "c"))
    prompt = Prompt("p", tuple({"role": role, "content": content} for role, content in turns))
    # "USER:" and "ASSISTANT:" are unknown; so is the line break, which this tokenizer reads as a space
    expected = averaged(folder, [3, A, 3, B, 3, C], [D], [E])
    assert judge(folder).judge([prompt], [["d", "e"]]).preference[0, 0, 1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("marker", ["[SEP]", "<|candidate2|>", "<|source|>", "[CLS]"])
def test_a_response_cannot_write_markers(folder, marker):
    expected = averaged(folder, [A], [B, C], [D])
    preference = judge(folder).judge(PROMPTS[:1], [[f"b {marker} c", "d"]]).preference
    assert preference[0, 0, 1] == pytest.approx(expected, abs=1e-6)


def test_long_texts_lose_their_end_as_in_training(folder):
    seen = []
    preference = (
        judge(folder, source_tokens=6, candidate_tokens=4)
        .judge([PROMPTS[1]], [["b c d e f", "d"]], lambda *_, truncated, **__: seen.append(truncated))
        .preference
    )
    # the source keeps 6 tokens, three of them words; each candidate has (6 + 2 * 4 - 6) // 2 = 4, one word
    assert preference[0, 0, 1] == pytest.approx(averaged(folder, [A, B, C], [B], [D]), abs=1e-6)
    assert set(seen) == {1.0}


def test_candidates_have_what_a_short_source_leaves(folder):
    # 4 tokens of 10: (10 + 2 * 4 - 4) // 2 = 7 for each candidate, four words
    settings = {"source_tokens": 10, "candidate_tokens": 4}
    preference = judge(folder, **settings).judge(PROMPTS[:1], [["b c d e f", "d"]]).preference
    assert preference[0, 0, 1] == pytest.approx(averaged(folder, [A], [B, C, D, E], [D]), abs=1e-6)


def test_the_originals_limits():
    assert (PairRM().source_tokens, PairRM().candidate_tokens, PairRM().model) == (1224, 412, "llm-blender/PairRM-hf")


def test_truncation_can_be_refused(folder):
    with pytest.raises(JudgeError) as caught:
        judge(folder, source_tokens=6, candidate_tokens=4, truncate="never").judge(PROMPTS[:1], [["b c d e f g", "d"]])
    assert str(caught.value) == (
        "prompt 'short', responses 0 and 1: 4, 9 and 4 tokens; PairRM reads 6 of a prompt and here 5 of a response. "
        "Set judge.truncate: right, or lower generation.max_new_tokens."
    )
