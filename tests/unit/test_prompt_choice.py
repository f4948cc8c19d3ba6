"""Which prompts are held out, which an iteration takes, and how they are dealt out."""

from __future__ import annotations

from collections import Counter

import pytest

from components.config.errors import PromptError
from components.data.records import Prompt
from components.prompts import choose, into_shards, refuse_overlap, split_held_out
from support.prompt_files import ids


def prompts(count: int) -> list[Prompt]:
    return [Prompt(str(i), ({"role": "user", "content": f"question {i}"},)) for i in range(count)]


def test_held_out_prompts_are_a_seeded_draw_in_the_order_given():
    items = prompts(100)
    train, evaluation = split_held_out(items, 30, seed=1)
    assert len(evaluation) == 30
    assert sorted(ids(train) + ids(evaluation), key=int) == ids(items)
    assert ids(train) == sorted(ids(train), key=int)
    assert ids(evaluation) == sorted(ids(evaluation), key=int)
    assert ids(evaluation) != ids(items)[:30]
    assert split_held_out(items, 30, seed=1) == (train, evaluation)
    assert split_held_out(items, 30, seed=2)[1] != evaluation


def test_every_prompt_is_held_out_equally_often():
    drawn = Counter(p.id for seed in range(2000) for p in split_held_out(prompts(5), 2, seed)[1])
    # 2000 draws with probability 2/5: mean 800, standard deviation 21.9
    assert all(abs(drawn[str(i)] - 800) < 4 * 21.9 for i in range(5))


def test_duplicates_of_held_out_prompts_are_not_trained_on():
    items = [Prompt(f"{i}-{copy}", p.messages) for copy in range(2) for i, p in enumerate(prompts(10))]
    train, evaluation = split_held_out(items, 4, seed=0)
    assert len(evaluation) == 4
    assert len(train) == 12
    refuse_overlap(train, evaluation)


@pytest.mark.parametrize("held_out", [3, 4])
def test_holding_out_everything_is_refused(held_out):
    with pytest.raises(PromptError, match=rf"prompts.held_out: {held_out} of 3 .* Lower prompts.held_out"):
        split_held_out(prompts(3), held_out, seed=0)


def test_overlap_is_refused_by_messages_not_by_id():
    train = prompts(20)
    refuse_overlap(train, [Prompt("0", ({"role": "user", "content": "another"},))])
    shared = [Prompt(f"e{i}", p.messages) for i, p in enumerate(train[:11])]
    with pytest.raises(PromptError) as caught:
        refuse_overlap(train, [*shared, Prompt("new", ({"role": "user", "content": "new"},))])
    message = str(caught.value)
    assert message.startswith("prompts.evaluation: 11 evaluation prompts are also training prompts: 'e0', 'e1', ")
    assert "'e9', …. Remove them from prompts.train or from prompts.evaluation." in message
    assert "e10" not in message


@pytest.mark.thorough(but=["7-4", "5-3", "1-1"])
@pytest.mark.parametrize(("count", "per_iteration"), [(5, 2), (5, 3), (7, 4), (6, 3), (4, 4), (10, 9), (1, 1)])
def test_iterations_use_every_prompt_once_per_pass(count, per_iteration):
    for seed in range(20):
        chosen = [
            ids(choose(prompts(count), per_iteration=per_iteration, iteration=t, seed=seed))
            for t in range(1, 2 * count + 1)
        ]
        assert all(len(set(names)) == per_iteration for names in chosen)
        dealt = [name for names in chosen for name in names]
        for start in range(0, len(dealt), count):
            assert sorted(dealt[start : start + count], key=int) == ids(prompts(count))


def test_the_choice_depends_on_seed_iteration_and_shuffle_alone():
    items = prompts(50)
    first = choose(items, per_iteration=50, iteration=1, seed=0)
    assert choose(items, per_iteration=50, iteration=1, seed=0) == first
    assert choose(items, per_iteration=50, iteration=1, seed=1) != first
    assert choose(items, per_iteration=50, iteration=2, seed=0) != first
    assert ids(first) != ids(items)


def test_the_choice_of_an_iteration_across_two_shuffles_is_fair():
    # Iteration 2 of 3-from-5 holds the two left over and one of the three that iteration 1 used.
    counts = Counter(p.id for seed in range(2000) for p in choose(prompts(5), per_iteration=3, iteration=2, seed=seed))
    # 2000 draws with probability 3/5: mean 1200, standard deviation 21.9
    assert all(abs(counts[str(i)] - 1200) < 4 * 21.9 for i in range(5))


def test_more_prompts_per_iteration_than_there_are_is_refused():
    with pytest.raises(PromptError, match=r"prompts.per_iteration: 4 exceeds the 3 .* Use 3 or fewer"):
        choose(prompts(3), per_iteration=4, iteration=1, seed=0)


def test_shards_are_contiguous_and_even():
    assert [ids(shard) for shard in into_shards(prompts(7), 3)] == [["0", "1", "2"], ["3", "4"], ["5", "6"]]
    assert into_shards(prompts(4), 1) == [prompts(4)]
    with pytest.raises(PromptError, match=r"5 shards cannot share 4 prompts\. Lower prompts.shards"):
        into_shards(prompts(4), 5)
