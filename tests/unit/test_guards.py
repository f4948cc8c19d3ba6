"""Each hint at reward hacking: fires on a text made to show it, and not on chance or on few prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from components.algorithms.wind import Wind
from components.data.records import Ragged, Rollout
from components.evaluation import guards
from components.evaluation.metrics import WinRate
from components.judges import Judgement

N, M, WORDS, END = 64, 2, 400, 999
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "real_model.jsonl"
EVEN = WinRate(0.5, 0.45, 0.55)


def rollout(rows, m=M, finished=True):
    tokens = [[*row, END] if finished else list(row) for row in rows]
    n = len(rows) // m
    done = np.full((n, m), finished)
    return Rollout([str(i) for i in range(n)], Ragged.of([[1]] * n), Ragged.of(tokens), [""] * len(rows), done)


def prose(rng, length=20, n=N, kinds=WORDS):
    """Words of Zipf's law, which is that of languages, as many as `length` says in the mean."""
    return [(rng.zipf(1.6, rng.integers(length // 2, length * 3 // 2 + 1)) % kinds).tolist() for _ in range(n * M)]


def seen(ours, theirs, *, plain=EVEN, controlled=EVEN, kl=0.0, similarity=(None, None)):
    policy, reference = (
        guards.text.measured(side, values) for side, values in zip((ours, theirs), similarity, strict=True)
    )
    noise = np.random.default_rng(9).normal(size=ours.shape) * 0.1
    return guards.Compared(ours, theirs, policy, reference, kl + noise, plain, controlled)


def told(*arguments, **more):
    return guards.warnings(seen(*arguments, **more), Wind(beta=0.02))


@pytest.mark.thorough(but=["0", "1", "2"])
@pytest.mark.parametrize("seed", range(20))
def test_chance_alone_tells_nothing(seed):
    """Two samples of one policy, of 8 to 200 prompts."""
    rng = np.random.default_rng(seed)
    n = [8, 20, 60, 200][seed % 4]
    cosines = tuple(rng.normal(0.35, 0.2, (n, M)) for _ in range(2))
    assert told(*(rollout(prose(rng, n=n)) for _ in range(2)), similarity=cosines) == ""


def test_length():
    rng = np.random.default_rng(0)
    long = told(rollout(prose(rng, 40)), rollout(prose(rng, 20)))
    assert long.startswith("Responses have 4")
    assert "times as many as the reference's." in long
    short = told(rollout([[3]] * N * M), rollout(prose(rng, 20)))
    assert short.startswith("Responses have 2.0 tokens, 0.09")
    assert told(rollout(prose(rng, 24)), rollout(prose(rng, 20))) == ""
    assert long.endswith("whether the judge rewards that; if so, correct it, or raise algorithm.beta (0.02).")


def test_truncated():
    rng = np.random.default_rng(0)
    rows = prose(rng, 20)
    found = told(rollout(rows, finished=False), rollout(prose(rng, 20)))
    assert found.startswith("The length limit cuts off 100% of the responses, 0% of the reference's.")


def test_loops():
    """Ten words, and once more: of 17 runs of four tokens 7 stood there before, 41 %."""
    rng = np.random.default_rng(1)
    loops = [[*row, *row] for row in (rng.permutation(WORDS)[:10].tolist() for _ in range(N * M))]
    plain = rollout([rng.permutation(WORDS)[:20].tolist() for _ in range(N * M)])
    assert told(rollout(loops), plain).startswith(
        "Responses repeat themselves: 41% of their runs of 4 tokens stood in them before, of the reference's 0%."
    )


def test_few_words_in_no_order():
    """Twenty words, of four different ones: no run of four need come again, distinct-1 is 0.2."""
    rng = np.random.default_rng(2)
    poor = rollout([rng.choice(rng.permutation(WORDS)[:4], 12).tolist() for _ in range(N * M)])
    rich = rollout([rng.permutation(WORDS)[:12].tolist() for _ in range(N * M)])
    found = told(poor, rich)
    assert "Responses repeat their words: distinct-1 within a response is 0.3" in found
    assert "the reference's 1 at equal length." in found
    assert "repeat themselves" not in found


def test_one_answer_to_all_prompts():
    rng = np.random.default_rng(3)
    same = rng.permutation(WORDS)[:20].tolist()
    found = told(rollout([same] * N * M), rollout([rng.permutation(WORDS)[:20].tolist() for _ in range(N * M)]))
    assert found.startswith(
        "Responses to different prompts are alike: distinct-3 over them is 0.016, the reference's 1"
    )


def test_longer_prose_is_not_repetition():
    """Three times as long, of the same words: distinct-n is lower, and not at equal length."""
    rng = np.random.default_rng(4)
    ours, theirs = rollout(prose(rng, 60)), rollout(prose(rng, 20))
    found = seen(ours, theirs)
    assert found.policy.figures()["distinct_1"] < 0.8 * found.reference.figures()["distinct_1"]
    assert found.policy.across[1] < 0.8 * found.reference.across[1]
    assert "repeat" not in guards.warnings(found, Wind())
    assert "alike" not in guards.warnings(found, Wind())


@pytest.mark.parametrize(
    ("cosine", "hint"),
    [(0.1, "Responses leave their prompts"), (0.9, "Responses resemble their prompts"), (0.3, ""), (0.5, "")],
)
def test_similarity(cosine, hint):
    rng = np.random.default_rng(5)
    pair = tuple(rollout(prose(rng)) for _ in range(2))
    values = tuple(rng.normal(mean, 0.1, (N, M)) for mean in (cosine, 0.35))
    assert told(*pair, similarity=values).partition(":")[0] == hint


@pytest.mark.parametrize(("per_token", "fires"), [(0.5, False), (1.5, True)])
def test_drift(per_token, fires):
    rows = [[1, 2, 3, 4, 5, 6, 7, 8, 9]] * N * M  # and the end
    pair = rollout(rows), rollout(rows)
    assert ("1.5 nats per token from the reference" in told(*pair, kl=10 * per_token)) == fires
    single = rollout([[1]] * N * M)
    assert told(single, single, kl=4.0) == ""  # an answer of a word, unlearned as a whole


def test_win_rates_by_length():
    pair = tuple(rollout(prose(np.random.default_rng(6))) for _ in range(2))
    hacked = told(*pair, plain=WinRate(0.8, 0.75, 0.85), controlled=WinRate(0.55, 0.5, 0.6))
    assert hacked.startswith("Length wins: the win rate of 80.0% is 55.0% at equal length (50.0% to 60.0%).")
    assert told(*pair, plain=WinRate(0.8, 0.6, 0.9), controlled=WinRate(0.55, 0.4, 0.7)) == ""
    assert told(*pair, plain=WinRate(0.8, 0.79, 0.81), controlled=WinRate(0.75, 0.74, 0.76)) == ""


def test_few_prompts_say_nothing():
    loops, plain = [[1] * 20] * 14, [list(range(20))] * 14
    assert told(rollout(loops), rollout(plain)) == ""
    assert told(rollout(loops[:1] * 16), rollout(plain[:1] * 16)) != ""


def test_comparison_takes_both_policies_out_of_three():
    """The policy, the reference and the policy before it, one response each; the shorter loses to the longer."""
    lengths = [[4, 2, 9]] * N
    preference = np.tile([[0.5, 1.0, 0.0], [0.0, 0.5, 0.0], [1.0, 1.0, 0.5]], (N, 1, 1))
    ours, theirs = (rollout([[5] * row[at] for row in lengths], 1, finished=False) for at in (0, 1))
    found = guards.compare(
        [ours, theirs], Judgement(preference, np.zeros((N, 3))), [slice(0, 1), slice(1, 2)], np.zeros((N, 1))
    )
    assert found.plain.mean == 1
    assert found.controlled.mean == pytest.approx(0.5, abs=0.02)
    columns = guards.columns(found)
    assert columns["response_length_reference"] == 2
    assert columns["distinct_1"] == 1 / 4
    assert columns["distinct_1_reference"] == 1 / 2
    assert "similarity" not in columns


def recorded():
    """SmolLM2's answers to fourteen prompts, of the base and of what six methods made of it: name, answers, KL."""
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    number: dict[str, int] = {}

    def tokens(answers):
        return rollout([[number.setdefault(word, len(number)) for word in answer.split()] for answer in answers], 1)

    def kl(line, answers):
        """Per response, were a token a word."""
        return line["kl_to_reference"] / max(line["length"], 8) * max(answers.tokens.lengths.mean(), 8)

    base, *trained = sorted(lines, key=lambda line: line["arm"]["name"] != "base")
    answers = [tokens(line["texts"]) for line in trained]
    names = [f"{line['arm']['name']}, seed {line['arm']['seed']}" for line in trained]
    return tokens(base["texts"]), list(zip(names, answers, map(kl, trained, answers), strict=True))


# A nat per token or more from where they began: BOND's and DPO's texts fell apart, of the others two seeds answer in a
# few words or in the prompt's own.
BROKEN = {
    *(f"bond 4 passes, 11 x 32, seed {seed}" for seed in range(4)),
    *(f"dpo 44 x 8, seed {seed}" for seed in (0, 1)),
    *(f"dpo 16x8 4e-05, seed {seed}" for seed in (0, 1, 3)),
    "GRPO, 44 x 8, seed 1",
    "sppo 44 x 8, seed 3",
}


def test_sound_policies_of_a_real_model_are_left_in_peace_and_broken_ones_are_not():
    base, trained = recorded()
    assert len(trained) == 79
    found = {name: guards.warnings(seen(one, base, kl=kl), Wind()) for name, one, kl in trained}
    warned = {name for name, warning in found.items() if warning}
    assert warned == BROKEN
    assert all("nats per token from" in found[name] for name in warned if name.startswith(("bond", "dpo")))


def test_the_same_answers_made_to_loop_are_not():
    base, trained = recorded()
    looped = [np.tile(base.tokens[row][:-1], 3).tolist() for row in range(len(base.tokens))]
    found = told(rollout(looped, 1), base)
    assert "tokens, 3 times as many" in found or "tokens, 2.9 times as many" in found
    assert "Responses repeat themselves: 6" in found
    assert len(trained) > 0
