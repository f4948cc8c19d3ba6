"""WIND on a part of the responses to a prompt: those whose win rates are furthest from 1/2."""

from __future__ import annotations

import numpy as np
import pytest

from components.algorithms.wind import Wind
from components.config.errors import ConfigError
from components.run_config import checked

BASE = {
    "policy": {"model": "org/model"},
    "prompts": {"train": "p.jsonl"},
    "judge": {"name": "verifier", "function": "judge:score"},
    "generation": {"responses": 6},
}


@pytest.mark.parametrize(
    ("count", "first", "second"),
    [
        (None, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
        (2, [1, 3], [4, 2]),  # 0.9 and 0.2 are 0.4 and 0.3 away; 0.0 and 0.7
        (3, [1, 3, 4], [4, 2, 3]),  # then 0.75; then 0.6
        (5, [1, 3, 4, 2, 0], [4, 2, 3, 1, 0]),
    ],
)
def test_which_are_trained_on_by_hand(count, first, second):
    win_rate = np.array([[0.5, 0.9, 0.6, 0.2, 0.75], [0.5, 0.55, 0.7, 0.6, 0.0]])
    found = Wind(trained_responses=count).select(win_rate)
    assert found.tolist() == [first, second]


@pytest.mark.parametrize(("count", "first", "second"), [(1, [1], [2]), (2, [1, 4], [2, 3]), (3, [1, 4, 2], [2, 3, 1])])
def test_the_best_by_hand(count, first, second):
    win_rate = np.array([[0.5, 0.9, 0.6, 0.2, 0.75], [0.5, 0.55, 0.7, 0.6, 0.0]])
    found = Wind(trained_responses=count, trained_part="best").select(win_rate)
    assert found.tolist() == [first, second]


@pytest.mark.parametrize("part", ["furthest", "best"])
def test_of_a_tie_the_first(part):
    assert Wind(trained_responses=2, trained_part=part).select(np.full((1, 4), 0.5)).tolist() == [[0, 1]]


@pytest.mark.parametrize("normalizer", ["monte_carlo", "group", "mixed"])
def test_a_mean_over_the_group_needs_all_of_it(normalizer):
    algorithm = {"name": "wind", "trained_responses": 3, "normalizer": normalizer}
    with pytest.raises(ConfigError, match=rf"trained_responses: 3 leaves out .* '{normalizer}'.*Use normalizer"):
        checked({**BASE, "algorithm": algorithm})


@pytest.mark.parametrize(("count", "remedy"), [(7, "7 of 6 responses .* Use 6 or fewer"), (0, "greater than or equal")])
def test_no_more_than_there_are(count, remedy):
    with pytest.raises(ConfigError, match=f"(?s)trained_responses.*{remedy}"):
        checked({**BASE, "algorithm": {"name": "wind", "trained_responses": count}})


def test_the_best_are_some_number():
    with pytest.raises(ConfigError, match=r"trained_responses does not say how many\. Give it"):
        checked({**BASE, "algorithm": {"name": "wind", "trained_part": "best"}})
