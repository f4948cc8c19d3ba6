"""PairRM: a checkpoint with the original's parameter names, its input, its head worked out by hand, both orders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.config.errors import JudgeError
from components.config.registry import build
from components.data.records import Prompt
from components.judges import Answers, Judge
from components.judges.pairrm import PairRM

# Of the library's own code, when it first imports DeBERTa
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *"abcdefghijklmnop"]
CLS, SEP = 1, 2
A, B, C, D, E, F = range(5, 11)
SOURCE, FIRST, SECOND = 21, 22, 23  # markers follow the words
SIZE, LAYERS = 16, 2
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
PROMPTS = [
    Prompt("short", ({"role": "user", "content": "a"},)),
    Prompt("long", ({"role": "user", "content": "a b c d e"},)),
]
RESPONSES = [["b", "c d e", "d d"], ["f", "e e e e e e", ""]]


@pytest.fixture
def folder(tmp_path):
    """A checkpoint as the original's `save_pretrained` leaves it, written without our class."""
    from transformers import DebertaV2Config, DebertaV2Model, DebertaV2Tokenizer

    settings = {
        "vocab_size": 32,
        "hidden_size": SIZE,
        "intermediate_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "type_vocab_size": 0,
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    encoder = DebertaV2Model(DebertaV2Config(**settings))
    weights = {f"pretrained_model.{name}": tensor for name, tensor in encoder.state_dict().items()}
    weights["head_layer.1.weight"], weights["head_layer.1.bias"] = torch.randn(SIZE, 2 * SIZE), torch.randn(SIZE)
    weights["head_layer.4.weight"], weights["head_layer.4.bias"] = torch.randn(1, SIZE), torch.randn(1)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    markers = {"source_prefix_id": SOURCE, "cand1_prefix_id": FIRST, "cand2_prefix_id": SECOND, "cand_prefix_id": 24}
    own = {"architectures": ["DebertaV2PairRM"], "model_type": "deberta-v2", "drop_out": 0.05, "n_tasks": 1}
    (tmp_path / "config.json").write_text(json.dumps({**settings, **own, **markers, "sep_token_id": SEP}))
    pieces = [(word if word.startswith("[") else f"▁{word}", 0.0) for word in WORDS]
    tokenizer = DebertaV2Tokenizer(vocab=pieces, unk_id=3)
    tokenizer.add_tokens(["<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>"])
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def judge(folder, **settings):
    return build("judges", {"name": "pairrm", "model": str(folder), **settings}, Judge)


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


# Limits: source_tokens counts [CLS], marker and [SEP]; candidates share what the source leaves


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


# What is refused


def refused(folder, *parts):
    with pytest.raises(JudgeError) as caught:
        judge(folder).check()
    for part in parts:
        assert part in str(caught.value)


def test_check_takes_a_good_checkpoint(folder):
    judge(folder).check()


@pytest.mark.parametrize("name", ["head_layer.4.weight", "pretrained_model.encoder.layer.1.output.dense.bias"])
def test_check_refuses_a_checkpoint_that_lacks_a_weight(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    refused(folder, f"judge.model: {folder} lacks 1 weights of a PairRMModel, {name} among them.")


def test_check_refuses_a_model_whose_markers_are_others(folder):
    edit(folder / "config.json", cand2_prefix_id=24)
    refused(folder, "is no PairRM: its config.json has cand2_prefix_id 24, its tokenizer the id 23 for <|candidate2|>.")


def test_check_refuses_a_plain_deberta(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["n_tasks"]
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, f"judge.model: {folder} cannot be loaded: its config.json has no n_tasks, so it is no PairRM")


def test_it_reads_no_thinking_if_told(folder):
    """The last response is all thinking: the model reads an empty one."""
    settings = {"precision": "fp32", "cut_thinking": ["d", "f"]}
    known = judge(folder, **settings)
    given = Answers([["d a f b", "c", "d e"]], np.zeros((1, 3), bool), [""])
    found, expected = known.verdict(PROMPTS[:1], given), known.judge(PROMPTS[:1], [["b", "c", ""]])
    np.testing.assert_array_equal(found.preference, expected.preference)
    np.testing.assert_array_equal(found.reward, expected.reward)
    assert np.ptp(known.judge(PROMPTS[:1], given.texts).preference - expected.preference) > 1e-4
