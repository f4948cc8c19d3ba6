"""The benchmark of a preference that is no score: styles, who beats whom, and how far a mix is from the answer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LIST, QUESTION, SHORT, PLAIN = range(4)
PROSE = "This sentence has quite a few more words than eight."


@pytest.fixture
def styles(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import styles

    return styles


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Reasons:\n- one\n- two", LIST),
        ("1. one\n2) two\nAnd is that not all that there is to say about it?", LIST),
        ("- one item alone is prose, at least where it has so many words", PLAIN),
        ("Would you not say so?\n", QUESTION),
        (f"{PROSE} Or has it? {PROSE}", PLAIN),
        ("Yes, they do.", SHORT),
        ("", SHORT),
        ("one two three four five six seven eight", SHORT),
        ("one two three four five six seven eight nine", PLAIN),
    ],
)
def test_style(styles, text, expected):
    assert styles.style(text) == expected


def test_each_style_beats_the_next(styles):
    beats = styles.BEATS
    assert beats[LIST, QUESTION] == beats[QUESTION, SHORT] == beats[SHORT, LIST] == 0.9
    assert (beats[:3, PLAIN] == 0.9).all()
    np.testing.assert_allclose(beats + beats.T, 1)


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ([1 / 3, 1 / 3, 1 / 3, 0], 0.5),  # (0.5 + 0.9 + 0.1) / 3, whatever plays against it
        ([1, 0, 0, 0], 0.9),
        ([0, 0, 0, 1], 0.9),
        ([0.5, 0.5, 0, 0], 0.7),  # lists: (0.5 + 0.9) / 2; short ones: (0.9 + 0.1) / 2
    ],
)
def test_what_exploits_a_mix(styles, mix, expected):
    assert styles.exploited(np.array(mix)) == pytest.approx(expected)


def test_verdicts_by_hand(styles):
    """A list, a question, a short one and prose: win rates (0.9 + 0.1 + 0.9) / 3 of the three, 0.1 of prose."""
    texts = ["- a\n- b", "Is it?", "No.", PROSE]
    preference, reward = styles.Styles.verdicts(None, ["prompt"], [SimpleNamespace(group=lambda _: texts)])
    np.testing.assert_allclose(reward, [[1.9 / 3, 1.9 / 3, 1.9 / 3, 0.1]])
    assert preference[0, LIST].tolist() == pytest.approx([0.5, 0.9, 0.1, 0.9])


def test_table_by_hand(styles):
    """Two policies of one style each: the list beats the question."""
    rows = [
        {
            "arm": {"name": name},
            "styles": dict(zip(styles.STYLES, mix, strict=True)),
            "exploited": told,
            "kl_to_reference": 1,
        }
        for name, mix, told in (("a", [1, 0, 0, 0], 0.9), ("b", [0, 1, 0, 0], 0.8))
    ]
    *_, b, a = styles.table(rows).splitlines()
    assert b == "| b | 1 | 0.800 | 0.00 | 1.00 | 0.00 | 0.00 | 1.00 | 0.50 | 0.10 |"
    assert a == "| a | 1 | 0.900 | 1.00 | 0.00 | 0.00 | 0.00 | 1.00 | 0.90 | 0.50 |"
