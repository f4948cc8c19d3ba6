"""Pairs per second of PairRM, in batches of one and as it batches, on random weights of its architecture.

    python benchmarks/pairrm.py [--layers 3] [--hidden 768] [--prompts 4] [--responses 4] [--words 8 24 80]

A pair is two responses to one prompt; both orders are read. Each `--words` is a length of texts, each response
of half to three halves of it. Processor seconds, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from components.data.records import Prompt
from components.judges.pairrm import PairRM

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.models.families import save_pairrm

WORDS = 1000


def save_model(folder: Path, options: argparse.Namespace) -> None:
    """A checkpoint of PairRM with random weights, of DeBERTa-v3's settings."""
    save_pairrm(
        folder,
        pieces=[f"▁w{i}" for i in range(WORDS)],
        hidden_size=options.hidden,
        intermediate_size=4 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        position_buckets=256,
        initializer_range=0.02,
    )


def texts(count: int, words: int, seed: int) -> list[str]:
    """Texts of half to three halves of `words`."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(words - words // 2, words + words // 2 + 1, count)
    return [" ".join(f"w{i}" for i in rng.integers(0, WORDS, length)) for length in lengths]


def rate(judge: PairRM, n: int, k: int, words: int) -> float:
    """Pairs per processor second."""
    prompts = [Prompt(f"p{i}", ({"role": "user", "content": text},)) for i, text in enumerate(texts(n, words, 0))]
    answers = texts(n * k, words, 1)
    rows = [answers[i * k : (i + 1) * k] for i in range(n)]
    begin = time.process_time()
    judge.judge(prompts, rows)
    return n * k * (k - 1) / 2 / (time.process_time() - begin)


def main() -> None:
    """Prints a line for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--words", type=int, nargs="+", default=[8, 24, 80])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), options)
        one, many = (PairRM(model=folder, precision=options.precision, tokens_per_batch=size) for size in (1, 8192))
        rate(many, 1, 2, 8)  # loads
        for words in options.words:
            size = options.prompts, options.responses, words
            alone, batched = (max(rate(j, *size) for _ in range(options.rounds)) for j in (one, many))
            print(
                json.dumps({"words": words, "alone": alone, "batched": batched, "times": batched / alone}), flush=True
            )


if __name__ == "__main__":
    main()
