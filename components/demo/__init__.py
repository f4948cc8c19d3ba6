"""The demo's policy, prompts and judge: a small Llama that learned to sort numbers from a careless teacher.

The teacher sorts most lists as text, so that 10 comes before 9, and slips now and then. The base policy, which
imitates it, is therefore wrong on most prompts even when decoded greedily, and right often enough to learn from.

Everything it writes is ordinary: a Hugging Face directory and JSONL prompts. From there on the demo takes the path
of any other model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from components import prompts as prompt_files
from components.config.errors import ConfigError, JudgeError
from components.config.sections import DemoConfig
from components.data.records import Prompt
from components.data.seeds import derive_seed, generator
from components.policy.batches import collate
from components.policy.library import PreTrainedTokenizerFast
from components.policy.logprobs import response_logprobs
from components.policy.model import Policy
from components.runtime.progress import Progress, silent

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {{ eos_token }} {% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
WORDS = ["system", "user", "assistant", ":", "sort"]


def score(response: str, prompt: Prompt) -> float:
    """Share of positions that hold the right number; numbers too many count as wrong ones."""
    if prompt.answer is None:
        raise JudgeError(
            f"prompt {prompt.id!r}: has no answer for the demo's judge to compare with. Name another judge."
        )
    right, given = prompt.answer.split(), response.split()
    hits = sum(a == b for a, b in zip(right, given, strict=False))
    return hits / max(len(right), len(given))


def build(directory: Path, config: DemoConfig, *, seed: int, progress: Progress = silent) -> None:
    """Writes `policy/`, `train.jsonl` and `evaluation.jsonl` below `directory`."""
    questions = _distinct_lists(config, config.prompts + config.held_out, seed)
    prompts = [_prompt(numbers) for numbers in questions]
    prompt_files.save(prompts[: config.prompts], directory / "train.jsonl")
    prompt_files.save(prompts[config.prompts :], directory / "evaluation.jsonl")
    policy = _untrained(config, seed)
    _fine_tune(policy, config, seed, progress)
    policy.model.save_pretrained(directory / "policy")
    policy.tokenizer.save_pretrained(directory / "policy")


def _lists(config: DemoConfig, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Lists of numbers, (count, numbers); one digit and two are equally likely, so that the two orders differ."""
    shape = (count, config.numbers)
    return np.where(rng.random(shape) < 0.5, rng.integers(0, 10, size=shape), rng.integers(10, 100, size=shape))


def _distinct_lists(config: DemoConfig, count: int, seed: int) -> NDArray[np.int64]:
    """`count` different lists of numbers, (count, numbers)."""
    lists = _lists(config, generator(seed, "demo prompts"), 2 * count)
    distinct = lists[np.sort(np.unique(lists, axis=0, return_index=True)[1])]
    if len(distinct) < count:
        raise ConfigError(
            f"demo.numbers: lists of {config.numbers} numbers do not give {count} different prompts. "
            "Raise it, or lower demo.prompts and demo.held_out."
        )
    return distinct[:count]


def _text(numbers: Sequence[int] | NDArray[np.int64]) -> str:
    return " ".join(str(number) for number in numbers)


def _prompt(numbers: NDArray[np.int64]) -> Prompt:
    question = {"role": "user", "content": f"sort {_text(numbers)}"}
    return Prompt(id=_text(numbers).replace(" ", "-"), messages=(question,), answer=_text(np.sort(numbers)))


def _untrained(config: DemoConfig, seed: int) -> Policy:
    """A Llama with random weights and a tokenizer of one token per number."""
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = [*SPECIAL.values(), *WORDS, *map(str, range(100))]
    words = models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=SPECIAL["unk_token"])
    backend = Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=CHAT_TEMPLATE, **SPECIAL)
    torch.manual_seed(derive_seed(seed, "demo weights"))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=config.hidden_size,
            intermediate_size=config.hidden_size * 4,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=256,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return Policy(model, tokenizer, (tokenizer.eos_token_id,), tokenizer.pad_token_id, "fp32")


def _demonstrations(config: DemoConfig, rng: np.random.Generator) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Random lists and what a careless teacher makes of them: often sorted as text, sometimes with a slip."""
    lists = _lists(config, rng, config.batch_size)
    answers = list(np.sort(lists, axis=1))
    for row in np.flatnonzero(rng.random(config.batch_size) < config.as_text):
        answers[row] = np.array(sorted(lists[row], key=str))
    for row in np.flatnonzero(rng.random(config.batch_size) < config.slips):
        at = int(rng.integers(config.numbers - 1))
        answers[row][[at, at + 1]] = answers[row][[at + 1, at]]
    return lists, answers


def _fine_tune(policy: Policy, config: DemoConfig, seed: int, progress: Progress) -> None:
    """Supervised fine-tuning on the teacher's answers."""
    rng = generator(seed, "demo demonstrations")
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
    for step in range(config.steps):
        lists, answers = _demonstrations(config, rng)
        encoded = [policy.encode(_prompt(numbers)) for numbers in lists]
        targets = [[*_ids(policy, answer), policy.eos_ids[0]] for answer in answers]
        batch = collate(encoded, targets, policy.pad_id, policy.device)
        loss = -response_logprobs(policy, batch).sum() / len(batch.rows)
        for group in optimizer.param_groups:  # warm-up, then linear decay
            group["lr"] = config.learning_rate * min((step + 1) / 50, 1 - step / config.steps)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        progress(step + 1, config.steps, loss=loss.item())


def _ids(policy: Policy, numbers: NDArray[np.int64]) -> list[int]:
    return list(policy.tokenizer(_text(numbers), add_special_tokens=False)["input_ids"])
