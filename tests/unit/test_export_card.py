"""Model cards: what they tell, what they must not, and that the hub can read them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from components.comparison import analysis
from components.export import card, reproduce
from components.export.facts import Compared
from components.export.metadata import Told
from components.run_config import parse
from support.published import CONFIG, facts, history

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parents[2]


@pytest.fixture
def written(tmp_path, monkeypatch):
    """`written(told=…, **changes)`: metadata and text of a card, whose folder held the base model's."""
    monkeypatch.chdir(tmp_path)

    def write(told=None, **changes):
        folder = tmp_path / "exported"
        folder.mkdir(exist_ok=True)
        (folder / "README.md").write_text("---\nlicense: mit\n---\n# The base model's own card\n")
        path = card.write(folder, facts(**changes), told or Told("organisation/aligned"))
        loaded = ModelCard.load(path)
        return loaded.data.to_dict(), loaded.text

    return write


def test_the_front_matter(written):
    data, _ = written(Told("organisation/aligned", {"license": "apache-2.0"}))
    assert data == {
        "base_model": "organisation/base",
        "base_model_relation": "finetune",
        "datasets": ["organisation/questions"],
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["alignment", "wind-metaflow", "wind"],
        "model-index": [
            {
                "name": "organisation/aligned",
                "results": [
                    {
                        "task": {"type": "text-generation"},
                        "dataset": {
                            "name": "held-out prompts of organisation/questions",
                            "type": "organisation/questions",
                        },
                        "metrics": [
                            {
                                "type": "win_rate",
                                "value": 0.7,
                                "name": "Win rate against the base model, judged by verifier",
                                "args": {"interval": 0.95, "low": 0.65, "high": 0.75},
                            }
                        ],
                    }
                ],
            }
        ],
    }


def test_the_text_tells_figures_method_and_machine(written):
    _, text = written()
    assert "is 70.0% (95% interval 65.0 to 75.0%). It is better: 20.0 points above even." in text
    assert "| 1 | 0.600 | 0.550-0.650 | 0.600 | 1.25 | 0.500 | 20.0 | 25.0% | 40.0 s |" in text
    assert "| 2 | 0.700 | 0.650-0.750 |" in text
    assert "128 responses that the policies of the run drew themselves, to 32 prompts over 2 iterations" in text
    for cell in ("| `algorithm.eta` | `10.0` |", "| `seed` | `0` |", "| `iterations` | `2` |"):
        assert cell in text
    assert "| `hardware` | `1 × NVIDIA H100` |" in text
    assert "| precision | `bf16` |" in text
    assert "[`organisation/base`](https://huggingface.co/organisation/base)" in text
    assert "base model's own card" not in text
    assert "License: not known here; see that of the base model." in text
    assert "no benchmark was run" in text


@pytest.mark.parametrize(("adapted", "said"), [(True, "is **merged** into the weights"), (False, "All weights were")])
def test_it_says_whether_an_adapter_was_merged(written, adapted, said):
    data, text = written(adapted=adapted)
    assert said in text
    assert ("lora" in data["tags"]) == adapted


def test_the_config_in_the_card_is_that_of_the_run(written):
    _, text = written()
    [block] = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    whole = parse(CONFIG)
    again = parse(block)
    assert {k: v for k, v in again.items() if k not in reproduce.ASIDE} == {
        k: v for k, v in whole.items() if k not in reproduce.ASIDE
    }


SECRETS = {"url": "https://me:wonderland@judge.example/score?key=rabbit-hole", "key": "OPENAI_API_KEY"}


def test_no_secret_and_no_path_of_the_machine(written, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "looking-glass-7")
    config = {
        "policy": {"model": str(tmp_path / "models" / "base"), "prompt_format": "hf_abcdefghijklmnopqrst {prompt}"},
        "prompts": {"train": ["/srv/people/prompts.jsonl", "~/more.jsonl"]},
        "judge": {
            **{"name": "openai", "model": "gpt", "base_url": "https://judge.example/v1"},
            "request": {"user": "looking-glass-7", "password": "tea-party", "metadata": {"home": "/home/alice/x"}},
        },
        "trackers": [{"name": "jsonl", "folder": "/home/alice/metrics"}],
        "cluster": {"image": "registry.internal/image", "secrets": ["cheshire-cat"]},
    }
    example = {"prompt": "read /home/alice/diary.txt", "reference_response": "no", "final_response": "sk-" + "a" * 20}
    warned = history(0.6, 0.7).assign(warnings=["", f"see {tmp_path}/log"])
    data, text = written(
        Told(str(tmp_path / "exported")), config=json.dumps(config), examples=[example], history=warned
    )
    whole = json.dumps(data) + text
    for secret in ("looking-glass", "tea-party", "hf_abc", "sk-aaa", "cheshire", "registry.internal", "alice", "/srv"):
        assert secret not in whole, secret
    assert str(tmp_path) not in whole
    assert "base_model" not in data
    assert "`…/base`, from the machine of the run" in text
    assert "- …/prompts.jsonl" in text
    assert "stands for what is not told" in text
    assert "OPENAI_API_KEY" in text  # the name of a variable is none


EVIL = "x](javascript:alert(1)) <img src=x onerror=alert(1)>\n---\ntags: [evil]\n---\n# Heading | `code` ```` '\" : #"


def test_text_of_others_stays_text(written):
    config = json.loads(json.dumps(parse(CONFIG)))
    config["policy"]["model"] = config["policy"]["prompt_format"] = EVIL + "{prompt}"
    config["prompts"]["train"] = [EVIL]
    config["judge"]["function"] = EVIL
    config["generation"]["stop"] = [EVIL]
    example = dict.fromkeys(("prompt", "reference_response", "final_response"), EVIL)
    data, text = written(
        Told(EVIL, {"license": EVIL}), config=json.dumps(config), examples=[example], history=history(0.6, 0.7)
    )
    assert data["tags"] == ["alignment", "wind-metaflow", "wind"]
    assert data["license"] == EVIL
    assert data["model-index"][0]["name"] == EVIL
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    for mark in ("javascript", "<img", "# Heading", "[evil]", "| `code"):
        assert mark not in outside, mark
    headings = re.findall(r"^#+ .*$", outside, re.MULTILINE)
    assert len(headings) == len(set(headings)) == 12


def test_an_iteration_that_was_not_evaluated_has_no_figure_of_its_own(written):
    rows = history(0.6, 0.7)
    rows.loc[1, ["win_rate", "win_rate_low", "win_rate_high", "win_rate_previous"]] = float("nan")
    data, text = written(history=rows)
    assert "model-index" not in data
    assert "The policy after iteration 2. It was not evaluated after that one." in text
    assert "| 2 | - | - |" in text


def test_the_base_of_a_run(written):
    data, text = written(iteration=0, history=None, dtype=None)
    assert "nothing is trained yet" in text
    assert "## Method" not in text
    assert "model-index" not in data


def test_benchmarks_stand_in_the_front_matter(written):
    rows = history(0.6, 0.7).assign(task_gsm8k=[0.1, 0.25], task_gsm8k_reference=0.05, task_gsm8k_metric="exact_match")
    data, text = written(history=rows)
    metrics = {one["dataset"]["type"]: one["metrics"][0] for one in data["model-index"][0]["results"]}
    assert metrics["gsm8k"] == {"type": "exact_match", "value": 0.25}
    assert "| `gsm8k` | `exact_match` | 0.050 | 0.100 | 0.250 |" in text


def test_an_arm_shows_the_comparison(written):
    results = analysis.tidy(
        [(arm, seed, history(0.6, rate)) for arm, rate in (("a|b", 0.7), ("dpo", 0.6)) for seed in (0, 1)]
    )
    _, text = written(compared=Compared("a|b", results, analysis.to_reach(results, {})))
    assert "This policy is the arm `a|b` of a comparison" in text
    assert "| `a\\|b` | 0.700 |" in text
    assert "| `dpo` | 0.600 |" in text


def test_a_base_that_the_hub_does_not_know_is_not_named_as_one(written):
    data, text = written(Told("o/aligned", base_unknown=True))
    assert "base_model" not in data
    assert "which the hub does not show" in text


def test_the_citation_is_that_of_the_repository():
    paper = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))["preferred-citation"]
    plain = re.sub(r"[{}]", "", re.sub(r"\s+", " ", card.CITATION))
    assert paper["title"] in plain
    assert " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]) in plain
    assert paper["url"] in plain
    assert f"= {paper['year']}" in plain
