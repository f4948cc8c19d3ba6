"""The plan in docs/running.md is what the command prints, for models of the sizes that its preset names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from components.plan.__main__ import main

ROOT = Path(__file__).parents[2]
PRESET = ROOT / "flows" / "configs" / "qwen_24gb.yaml"
COMMAND = "$ wind plan flows/configs/qwen_24gb.yaml --gpu RTX4090 --price 0.5\n"


# Of the library's own code, when it first imports DeBERTa
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_the_example_of_a_plan(tmp_path, capsys):
    """Numbers of the config.json of Qwen2.5-1.5B-Instruct, and of Qwen3-0.6B, on which the judge is built."""
    from transformers import Qwen2Config, Qwen3Config

    Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        dtype="bfloat16",
    ).save_pretrained(tmp_path / "policy")
    Qwen3Config(
        vocab_size=151936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        num_labels=1,
        dtype="bfloat16",
    ).save_pretrained(tmp_path / "judge")
    run = yaml.safe_load(PRESET.read_text())
    run["policy"]["model"], run["judge"]["model"] = str(tmp_path / "policy"), str(tmp_path / "judge")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    main([str(tmp_path / "run.yaml"), "--gpu", "RTX4090", "--price", "0.5"])
    told = capsys.readouterr().out.partition("\n\nFLOP = ")[0]
    shown = (ROOT / "docs" / "running.md").read_text().partition(COMMAND)[2].partition("\n```")[0]
    assert told == shown
