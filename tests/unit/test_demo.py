"""The demo's judge by hand, and the ordinary files that it writes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from components import demo, prompts
from components.config.errors import ConfigError, JudgeError
from components.config.sections import DemoConfig
from components.data.records import Prompt

torch.set_num_threads(1)  # on busy cores, threads that wait for each other make tiny models ten times slower

CONFIG = DemoConfig(numbers=3, prompts=12, held_out=5, steps=2, batch_size=4, hidden_size=8, layers=1, heads=2)
FILES = ["evaluation.jsonl", "policy", "train.jsonl"]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("2 9 10 31", 1.0),
        ("  2\n9  10 31 ", 1.0),
        ("10 2 31 9", 0.0),  # sorted as text
        ("2 10 9 31", 2 / 4),
        ("2 9 10", 3 / 4),
        ("2 9 10 31 31", 4 / 5),
        ("9 10 31", 0.0),  # right numbers, each a place too early
        ("2 9 10 31 40 50 60 70", 4 / 8),
        ("02 9 10 31", 3 / 4),
        ("two 9 , assistant", 1 / 4),
        ("", 0.0),
        ("   ", 0.0),
    ],
)
def test_score_by_hand(response, expected):
    prompt = Prompt("10-2-31-9", ({"role": "user", "content": "sort 10 2 31 9"},), answer="2 9 10 31")
    assert demo.score(response, prompt) == expected


def test_a_prompt_without_an_answer_is_refused():
    """As of labelled pairs, by which `wind judge` measures the judge that a config names."""
    with pytest.raises(JudgeError, match="prompt 'p': has no answer"):
        demo.score("2 9", Prompt("p", ({"role": "user", "content": "sort 9 2"},)))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    demo.build(directory, CONFIG, seed=3)
    return directory


def files(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_writes_a_policy_that_hugging_face_loads(built):
    assert sorted(path.name for path in built.iterdir()) == FILES
    tokenizer = AutoTokenizer.from_pretrained(built / "policy")
    model = AutoModelForCausalLM.from_pretrained(built / "policy")
    assert model.config.num_hidden_layers == 1
    # Each number is a token of its own; what the policy is asked begins and ends as the template says.
    turns = [{"role": "user", "content": "sort 7 99 10"}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    words = ["<s>", "user", ":", "sort", "7", "99", "10", "</s>", "assistant", ":"]
    assert tokenizer.convert_ids_to_tokens(ids) == words
    assert tokenizer.decode(tokenizer("7 99 10</s>")["input_ids"], skip_special_tokens=True) == "7 99 10"
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("</s>")
    logits = model(torch.tensor([ids])).logits
    assert logits.shape == (1, len(words), len(tokenizer))
    assert torch.isfinite(logits).all()


def test_writes_prompts_with_sorted_answers(built):
    train = prompts.load(str(built / "train.jsonl"), split="train")
    held_out = prompts.load(str(built / "evaluation.jsonl"), split="train")
    assert (len(train), len(held_out)) == (12, 5)
    for prompt in [*train, *held_out]:
        command, *numbers = prompt.text.split()
        assert command == "sort"
        assert len(numbers) == 3
        assert [int(word) for word in prompt.answer.split()] == sorted(int(number) for number in numbers)
        assert demo.score(prompt.answer, prompt) == 1.0
    assert len({prompt.text for prompt in [*train, *held_out]}) == 17
    prompts.refuse_overlap(train, held_out)


def test_same_seed_same_bytes(built, tmp_path):
    torch.rand(1)  # what others drew before does not matter
    demo.build(tmp_path, CONFIG, seed=3)
    assert files(tmp_path) == files(built)


def test_other_seed_other_demo(built, tmp_path):
    demo.build(tmp_path, CONFIG, seed=4)
    before, after = files(built), files(tmp_path)
    changed = {path.as_posix() for path in before if before[path] != after[path]}
    assert changed == {"train.jsonl", "evaluation.jsonl", "policy/model.safetensors"}


def test_progress_counts_the_steps(tmp_path):
    calls = []
    demo.build(tmp_path, CONFIG, seed=3, progress=lambda done, total, **figures: calls.append((done, total, *figures)))
    assert calls == [(1, 2, "loss"), (2, 2, "loss")]


def test_too_few_lists_is_an_error_before_training(tmp_path):
    """Two numbers below 100 make 10,000 lists."""
    config = CONFIG.model_copy(update={"numbers": 2, "prompts": 9_999, "held_out": 2})
    with pytest.raises(ConfigError, match=r"demo\.numbers: .*2 numbers do not give 10001 different prompts"):
        demo.build(tmp_path, config, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_fine_tuning_learns_to_read_the_prompt(tmp_path):
    """Nats per token: log 109 = 4.69 untrained. A policy that does not read the prompt cannot go below 2.73, as one of
    the three tokens is EOS and a number has log 2 + (log 10 + log 90) / 2 = 4.09 nats."""
    config = DemoConfig(
        **{"numbers": 2, "prompts": 40, "held_out": 20, "steps": 100, "batch_size": 64, "layers": 1, "heads": 2},
        **{"hidden_size": 32, "as_text": 0.0, "slips": 0.0, "learning_rate": 1e-2},
    )
    losses = []
    demo.build(tmp_path, config, seed=0, progress=lambda done, total, loss: losses.append(loss))
    assert losses[0] == pytest.approx(4.69, abs=0.1)
    assert losses[-1] < 2.2
