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
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from drawing import drawn

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
    "demo": Case("the demo's model of 0.46 M parameters", prompts=512, responses=8, new_tokens=16, step=16),
    "llama": Case("a Llama of 25 M parameters, random weights", prompts=2, responses=8, new_tokens=256, step=2),
    "smollm2": Case("SmolLM2-135M-Instruct", prompts=4, responses=6, new_tokens=64, step=4),
    "half-billion": Case(
        "a Llama of 0.5 B parameters, random weights, on a GPU", prompts=32, responses=8, new_tokens=256, step=4
    ),
}


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
    from components.generation.transformers import TransformersEngine
    from components.judges import preference_from_scores
    from components.policy import logprobs
    from components.policy import model as policies
    from components.runtime import buffers
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
    rollout = drawn(policy, engine, asked, case.responses, case.new_tokens)
    parts["generate"] = time.perf_counter() - begin
    reward = np.array([[judged(text) for text in rollout.group(i)] for i in range(len(asked))])
    known = rollout.token_logp
    old = logprobs.score_tokens(policy, rollout.prompt_tokens, rollout.tokens) if known is None else known
    reference = policies.load(folder / "policy", config, precision=precision, frozen=True)
    ref = logprobs.score_tokens(reference, rollout.prompt_tokens, rollout.tokens)
    parts["score"] = time.perf_counter() - begin - parts["generate"]
    del reference
    sums = [rollout.tokens.sums(logp).reshape(rollout.shape) for logp in (old, ref)]
    scored = Scored(rollout, *sums, preference_from_scores(reward), reward, old, ref)
    train(state, scored, Wind(beta=BETA), Schedule(settings, 1, 1, 0))
    seconds = time.perf_counter() - begin
    parts["train"] = seconds - parts["generate"] - parts["score"]
    return Measured(seconds, len(rollout.texts), len(rollout.tokens.values), peak(), parts)


def trl(case: Case, precision: str, folder: Path) -> Measured:
    """An iteration of TRL's GRPO with as many optimiser steps over as many completions; else its defaults."""
    import torch
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
            use_cpu=not torch.cuda.is_available(),
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
    """The process's peak of memory in MB: of the GPU's where there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


SIDES = {"ours": ours, "trl": trl}

if __name__ == "__main__":
    _, side, name, *rest = sys.argv
    case = CASES[name]
    if name == "half-billion":  # a GPU's libraries load their kernels when they are first used
        SIDES[side](replace(case, prompts=2 * case.step), rest[0], Path(rest[1]))
    print(json.dumps(vars(SIDES[side](case, rest[0], Path(rest[1])))))
