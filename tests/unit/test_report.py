import shlex

import numpy as np
import pandas as pd
import pytest

from components.reporting.commands import killed, next_commands, resume_command
from components.reporting.report import (
    LEARNING_HEADERS,
    drawn,
    learning_rows,
    place,
    standing,
    summary_table,
    verdict,
)


def history(**changed):
    columns = {
        "iteration": [1, 2],
        "win_rate": [0.6, 0.75],
        "win_rate_low": [0.55, 0.7],
        "win_rate_high": [0.65, 0.8],
        "win_rate_previous": [0.6, 0.62],
        "kl": [0.5, 12.25],
        "reward_mean": [0.4, 0.55],
        "response_length": [20.0, 119.5],
        "truncated": [0.125, 0.0],
        "seconds_generate": [4.0, 3000.0],
        "seconds_score": [1.0, 500.0],
        "seconds_train": [6.0, 8000.0],
        "seconds_evaluate": [2.0, 525.0],
    }
    return pd.DataFrame(columns | changed)


def test_table():
    assert summary_table(history()).splitlines() == [
        "iteration  win rate  95% interval  vs previous     KL  reward  tokens  truncated        time",
        "---------  --------  ------------  -----------  -----  ------  ------  ---------  ----------",
        "1             0.600   0.550-0.650        0.600   0.50   0.400    20.0      12.5%      13.0 s",
        "2             0.750   0.700-0.800        0.620  12.25   0.550   119.5       0.0%  3 h 20 min",
    ]


def test_the_last_evaluation_counts():
    names = ("win_rate", "win_rate_low", "win_rate_high", "win_rate_previous", "kl", "reward_mean")
    names += ("response_length", "truncated")
    part = history(**{name: [0.75, np.nan] for name in names})
    assert summary_table(part).splitlines()[3] == (
        "2                 -             -            -     -       -       -          -  3 h 20 min"
    )
    assert verdict(part).startswith("After 1 iteration, the policy's win rate against the reference is 75.0%")


def test_table_fits_a_terminal():
    big = history(iteration=[99, 100], kl=1234.5, reward_mean=-1234.5678, response_length=12345.6, seconds_train=4e5)
    assert max(map(len, summary_table(big).splitlines())) <= 100


def test_a_judge_without_rewards_leaves_a_dash():
    cells = [line.split()[5] for line in summary_table(history(reward_mean=np.nan)).splitlines()[2:]]
    assert cells == ["-", "-"]


def test_where_a_run_stands():
    """Two iterations of 1 + 2 + 4 + 1 and of 1 + 2 + 5 + 2 seconds: nine in the mean, for each of three to go."""
    seconds = {"seconds_generate": [1, 1], "seconds_score": [2, 2], "seconds_train": [4, 5], "seconds_evaluate": [1, 2]}
    rates = {"win_rate": [0.5, 0.625], "win_rate_low": [0.4, 0.55], "win_rate_high": [0.6, 0.7]}
    history = pd.DataFrame({"iteration": [1, 2], **rates, **seconds})
    assert standing(history, 5) == (
        "iteration 2 of 5, win rate 0.625 (0.550 to 0.700), took 10.0 s, about 27.0 s of work to go"
    )
    assert place("score", 3, 5, history=history, shard=(1, 4)) == (
        "iteration 3 of 5 · score · shard 2 of 4 · win rate 0.625 (0.550 to 0.700) after iteration 2 · "
        "about 27.0 s of work to go"
    )
    history.loc[1, list(rates)] = float("nan")
    assert standing(history, 2) == "iteration 2 of 2, took 10.0 s"
    assert "win rate 0.500 (0.400 to 0.600) after iteration 1 ·" in place("train", 3, 5, history=history)
    history.loc[0, list(rates)] = float("nan")
    assert place("train", 3, 3, history=history) == "iteration 3 of 3 · train · about 9.0 s of work to go"


def test_where_a_first_iteration_stands():
    assert place("start", 0, 5) == "before iteration 1 · start"
    assert place("generate", 1, 5, shard=(0, 2)) == "iteration 1 of 5 · generate · shard 1 of 2"


def test_what_the_shards_drew():
    """2,500 tokens in 4 seconds."""
    counts, seconds = {"responses": 1200, "tokens_generated": 2500}, {"generate": 4.0}
    assert drawn(counts, seconds, iteration=2, last=3, shards=2) == (
        "iteration 2 of 3: 2 of 2 shards done, 1,200 responses, 2,500 tokens at 625 a second"
    )
    nothing = {"responses": 0, "tokens_generated": 0}  # an on-policy algorithm draws in `train`
    assert drawn(nothing, seconds, iteration=2, last=3, shards=2) == "iteration 2 of 3: 2 of 2 shards done"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (99.94, "99.9 s"),
        (100, "1 min 40 s"),
        (725.4, "12 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds, text):
    zero = dict.fromkeys(("seconds_generate", "seconds_score", "seconds_evaluate"), 0.0)
    assert summary_table(history(seconds_train=seconds, **zero)).endswith(f"  {text}")


@pytest.mark.parametrize(
    ("rate", "low", "high", "sentence"),
    [
        (0.75, 0.7, 0.8, "75.0% (95% interval 70.0 to 80.0%). It is better: 25.0 points above even."),
        (0.25, 0.2, 0.3, "25.0% (95% interval 20.0 to 30.0%). It is worse: 25.0 points below even."),
        (
            0.52,
            0.48,
            0.56,
            "52.0% (95% interval 48.0 to 56.0%): no difference that this evaluation can show.",
        ),
    ],
)
def test_verdict(rate, low, high, sentence):
    told = verdict(history(win_rate=rate, win_rate_low=low, win_rate_high=high))
    assert told == f"After 2 iterations, the policy's win rate against the reference is {sentence}"


def test_verdict_speaks_of_the_last_iteration():
    assert verdict(history().iloc[:1]).startswith(
        "After 1 iteration, the policy's win rate against the reference is 60.0%"
    )


def test_commands_are_words_of_a_shell():
    card, samples, export, code = (
        shlex.split(line.rpartition("  ")[2])
        for line in next_commands("my flows/wind_flow.py", "WindFlow", "12").splitlines()
    )
    assert card == ["python", "my flows/wind_flow.py", "card", "view", "12/end"]
    assert samples == ["wind", "samples", "WindFlow/12"]
    assert export[:3] == ["wind", "export", "WindFlow/12"]
    assert code[:2] == ["python", "-c"]
    assert compile(code[2], "history", "exec")


def test_resume_names_the_run():
    words = shlex.split(resume_command("my flows/wind_flow.py", "12"))
    assert words == ["python", "my flows/wind_flow.py", "resume", "--origin-run-id", "12"]


@pytest.mark.parametrize(
    ("step", "remedy"),
    [
        ("train_3", "lower training.micro_batch_size, or raise resources.train.memory"),
        ("generate_1", "raise prompts.shards or lower generation.max_new_tokens, run fewer tasks at once"),
        ("start", "no memory left for it: raise resources.start.memory"),
    ],
)
def test_a_task_that_was_killed(step, remedy):
    assert killed(step).startswith(f"A task of {step} was killed from outside.")
    assert remedy in killed(step)


# Did training learn?


def learned(**changed):
    """Two passes in the first iteration, one in the second, which a run with other settings added."""
    columns = {
        "risk_before": [0.25, 0.2],
        "risk_after": [0.1, 0.15],
        "risk_1": [0.125, np.nan],
        "risk_2": [0.1, np.nan],
        "winners_moved": [1.25, 0.5],
        "winners_target": [2.5, np.nan],
        "losers_moved": [-1.75, -0.5],
        "losers_target": [-2.5, np.nan],
        "kl_step": [0.5, np.nan],
        "kl_step_token": [0.025, np.nan],
        "warnings": ["", ""],
    }
    return history(**columns | changed)


def test_what_training_did():
    rows = learning_rows(learned())
    assert all(len(row) == len(LEARNING_HEADERS) for row in rows)
    assert rows == [
        ["1", "0.25 → 0.125 → 0.1", "+1.25", "+2.5", "-1.75", "-2.5", "0.5", "0.025"],
        ["2", "0.2 → 0.15", "+0.5", "-", "-0.5", "-", "-", "-"],
    ]


def test_only_training_that_was_measured_is_told_of():
    assert learning_rows(history()) == []
    assert [row[0] for row in learning_rows(learned(risk_before=[np.nan, 0.2]))] == ["2"]


def test_the_verdict_passes_warnings_on():
    plain = verdict(learned())
    warned = verdict(learned(warnings=["It rose from 1 to 2.", ""]))
    assert warned == f"{plain}\n\nTraining in iteration 1: It rose from 1 to 2."
