"""What a GPU does with a model of random weights, without files: drawing, log-probs, training.

    python benchmarks/gpu_model.py [--sizes 0.5b,1.5b,8b] [--deterministic] [--profile]

Tokens per second are those of responses. Utilisation is the operations of `components.plan.costs` (2, or 6 in training,
for each weight and token that is read) over what the GPU's peak in bf16 would do in that time; log-probs read prompts
once for all their responses. All weights are trained up to 1.5 B, beyond that an adapter over frozen bf16 weights.
Each part is done once on a few prompts before it is measured. Prints a table, and a line of JSON for results/.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu import QWEN_05B, machine, peak_of
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from components.algorithms.wind import Wind
from components.config.sections import LoraConfig, TrainingConfig
from components.data.records import Ragged, Responses, Scored
from components.generation import Sampling
from components.generation.transformers import TransformersEngine
from components.judges import preference_from_scores
from components.policy import logprobs, lora
from components.policy.model import Policy, best_device
from components.reporting.text import aligned
from components.runtime import determinism
from components.training.loop import Schedule
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.models import words

PROMPT, RESPONSES, TOKENS = 64, 8, 256
QWEN = {"model_type": "qwen2", "num_key_value_heads": 2, "tie_word_embeddings": True, "vocab_size": 151_936}


@dataclass(frozen=True)
class Size:
    """A model's shape, and how much is done with it."""

    shape: dict[str, Any]
    prompts: int
    micro: int  # prompts that training reads at once
    adapter: bool = False


def shape(base: dict[str, Any], hidden: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """Of a decoder."""
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    return {**base, **sizes, "num_attention_heads": heads}


LLAMA = {"model_type": "llama", "num_key_value_heads": 8, "tie_word_embeddings": False, "vocab_size": 128_256}
SIZES = {
    "tiny": Size(shape({**QWEN, "vocab_size": 512}, 64, 128, 2, 4), prompts=4, micro=2),
    "0.5b": Size({**QWEN, **QWEN_05B}, prompts=64, micro=4),
    "1.5b": Size(shape(QWEN, 1536, 8960, 28, 12), prompts=32, micro=2),
    "8b": Size(shape(LLAMA, 4096, 14336, 32, 32), prompts=16, micro=1, adapter=True),
}


def make_policy(size: Size) -> Policy:
    """Random weights on the GPU, in bf16 arithmetic; prompts are token ids, so its tokenizer has no say."""
    torch.manual_seed(0)
    kind = {**size.shape}
    config = AutoConfig.for_model(kind.pop("model_type"), **kind, bos_token_id=None, eos_token_id=1, pad_token_id=0)
    with best_device():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if size.adapter else torch.float32)
    if size.adapter:
        lora.add(model, LoraConfig(rank=16), 0)
    return Policy(model.eval(), words.make_tokenizer(), (1,), 0, "bf16")


class Parts:
    """Drawing, log-probs and training of one size."""

    def __init__(self, size: Size) -> None:
        self.size, self.policy = size, make_policy(size)
        settings = {"batch_size": 2 * size.micro, "micro_batch_size": size.micro, "epochs": 1, "schedule": "constant"}
        self.settings = TrainingConfig.model_validate(settings)
        self.optimizer = make_optimizer(self.policy, self.settings)

    def draw(self, prompts: Sequence[np.ndarray]) -> Ragged:
        """K responses to each prompt."""
        seeds = np.arange(len(prompts) * RESPONSES, dtype=np.uint64).reshape(-1, RESPONSES)
        return TransformersEngine(batch_size=1024).sample(self.policy, prompts, seeds, Sampling(TOKENS)).tokens

    def score(self, prompts: Sequence[np.ndarray], drawn: Ragged) -> np.ndarray:
        """Their log-probs, token by token."""
        return logprobs.score_tokens(self.policy, Ragged.of(prompts), drawn)

    def train(self, prompts: Sequence[np.ndarray], drawn: Ragged, logp: np.ndarray) -> None:
        """One pass of WIND."""
        n = len(prompts)
        reward = np.random.default_rng(1).random((n, RESPONSES))
        sums = drawn.sums(logp).reshape(n, RESPONSES)
        responses = Responses([str(i) for i in range(n)], Ragged.of(prompts), drawn)
        scored = Scored(responses, sums, sums, preference_from_scores(reward), reward, logp, logp)
        state = TrainingState(self.policy, self.optimizer, self.settings.micro_batch_size)
        train(state, scored, Wind(), Schedule(self.settings, 1, 1, 0))


def measured(name: str, profiled: bool) -> list[dict[str, Any]]:
    """Each part's figures."""
    size, rows = SIZES[name], []
    parts = Parts(size)
    vocabulary = size.shape["vocab_size"]
    prompts = list(np.random.default_rng(0).integers(2, vocabulary, (size.prompts, PROMPT)))
    few = prompts[: 2 * size.micro]
    warm = parts.draw(few)
    parts.train(few, warm, parts.score(few, warm))
    drawn = timed(rows, "draw", lambda: parts.draw(prompts))
    logp = timed(rows, "log-probs", lambda: parts.score(prompts, drawn))
    timed(rows, "train", lambda: parts.train(prompts, drawn, logp))
    weights = sum(p.numel() for p in parts.policy.model.parameters())
    flops = {"draw": 2, "log-probs": 2, "train": 4 if size.adapter else 6}
    tokens, peak = len(drawn.values), peak_of("bf16")
    for row in rows:
        read = tokens + size.prompts * PROMPT
        row["response tokens/s"] = tokens / row["seconds"]
        row["utilisation"] = flops[row["part"]] * weights * read / (row["seconds"] * peak) if peak else float("nan")
    if profiled:
        show_kernels(lambda: parts.train(few, warm, parts.score(few, warm)))
    return [{"model": name, **row} for row in rows]


def timed(rows: list[dict[str, Any]], part: str, work: Callable[[], Any]) -> Any:
    """What `work` gives; its seconds and peak memory become a row."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    result = work()
    if gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begin
    rows.append({"part": part, "seconds": seconds, "peak GB": torch.cuda.max_memory_allocated() / 1e9 if gpu else 0.0})
    return result


def show_kernels(work: Callable[[], Any]) -> None:
    """Prints what takes the time."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        work()
    print(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=14, max_name_column_width=70))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="0.5b,1.5b,8b")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.deterministic:
        determinism.require(gpu=torch.cuda.is_available())
    rows = []
    for name in options.sizes.split(","):
        rows += measured(name, options.profile)
        gc.collect()
        torch.cuda.empty_cache()
        cells = [[f"{value:.3g}" if isinstance(value, float) else value for value in row.values()] for row in rows]
        print(aligned(list(rows[0]), cells, labels=2), flush=True)
    print(json.dumps({**machine(), **vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
