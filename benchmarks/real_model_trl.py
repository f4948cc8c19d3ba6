"""TRL's GRPO on the same task, prompts, judge and budget as an arm of real_model.py, evaluated by the same code.

    pip install trl==1.16.0
    python benchmarks/real_model_trl.py MODEL_DIR ARM.json RESULTS.jsonl [--search]

ARM.json holds one arm as real_model.py reads it, of whose sections `training` (learning_rate, schedule, epochs,
batch_size) and the sizes count; everything else is TRL's default.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from real_model_run import Arm, Run
from trl import GRPOConfig, GRPOTrainer

from components import prompts


def settings(arm: Arm, training: Any, folder: str) -> GRPOConfig:
    """TRL's settings for the arm: as many optimiser steps, over as many completions, as ours takes."""
    steps = -(-arm.prompts // training.batch_size)
    return GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=training.batch_size * arm.responses,
        steps_per_generation=steps,
        gradient_accumulation_steps=1,
        num_generations=arm.responses,
        num_iterations=training.epochs,
        max_steps=steps * training.epochs * arm.iterations,
        max_completion_length=arm.max_new_tokens,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=round(training.warmup_ratio * steps * training.epochs * arm.iterations),
        temperature=1.0,
        shuffle_dataset=False,
        gradient_checkpointing=False,
        bf16=False,
        save_strategy="no",
        logging_steps=steps,
        report_to="none",
        disable_tqdm=True,
        seed=arm.seed,
    )


def train(run: Run, folder: str) -> list[dict[str, Any]]:
    """Trains the run's policy in place; TRL's log."""
    arm = run.arm
    chosen = [
        p
        for t in range(1, arm.iterations + 1)
        for p in prompts.choose(run.train, per_iteration=arm.prompts, iteration=t, seed=arm.seed)
    ]
    known = {prompt.text: prompt for prompt in chosen}

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        asked = (known[turns[-1]["content"]] for turns in prompts)
        return [float(run.score(c[0]["content"], p)["score"]) for c, p in zip(completions, asked, strict=True)]

    trainer = GRPOTrainer(
        model=run.policy.model,
        reward_funcs=reward,
        args=settings(arm, run.settings, folder),
        train_dataset=Dataset.from_list([{"prompt": list(p.messages)} for p in chosen]),
        processing_class=run.policy.tokenizer,
    )
    trainer.train()
    run.policy.model.eval()
    return list(trainer.state.log_history)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("arm", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--search", action="store_true")
    options = parser.parse_args()
    arm = Arm(**json.loads(options.arm.read_text()))
    begin = time.perf_counter()
    run = Run(arm, options.model, options.search)
    with tempfile.TemporaryDirectory() as folder:
        log = train(run, folder)
    found = run.evaluate(run.policy, arm.iterations)
    line = {"arm": asdict(arm), "search": options.search, "log": log, **found, "seconds": time.perf_counter() - begin}
    with options.results.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{arm.name} seed {arm.seed}: {found['met']}, {line['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
