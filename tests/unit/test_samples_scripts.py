"""The scripts of `wind samples`: words that differ, searching, and a list too long for a browser's scroll bar."""

from __future__ import annotations

import pytest

from components.samples import page
from components.samples.records import Asked, Batch, Samples, Side
from support.chromium import browser, installed

pytestmark = [
    pytest.mark.skipif(installed() is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.thorough,
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A page of two responses to one prompt, of a run that has evaluated nothing but its reference."""
    batch = Batch(1, 2, [0], ["one", "two"], [False] * 2, [1, 2], [None] * 2, {}, [0.5] * 2, [0.0] * 2, [-1.0] * 2)
    answers = Batch(0, 2, [0], ["three", "four"], [False] * 2, [1, 2], [1.0, 2.0], {"toString": [1.0, 0.0]})
    prompts = [Asked("p", [("user", "which?")], None, {})]
    folder = tmp_path_factory.mktemp("small")
    page.write(
        Samples("WindFlow/1", [], Side(prompts, ["constructor"], [batch]), Side(prompts, [], [answers])),
        folder / "a.html",
    )
    with browser(folder / "profile") as opened:
        opened.resize(1400, 900)
        opened.open(folder / "a.html")
        yield opened
        assert opened.errors == []


@pytest.mark.parametrize(
    ("left", "right", "expected"),  # the words that differ in brackets
    [
        ("", "", ("", "")),
        ("a b", "a  b\n", ("a b", "a  b\n")),
        ("a b c", "a x c", ("a [b ]c", "a [x ]c")),
        ("", " new", ("", "[ new]")),
        ("the cat sat.", "a cat sat!", ("[the ]cat sat[.]", "[a ]cat sat[!]")),
        ("東京都", "東北都", ("東[京]都", "東[北]都")),
        ("a b c d", "c d a b", ("[a b ]c d", "c d [a b]")),
    ],
)
def test_words_that_differ(small, left, right, expected):
    brackets = "side.map(({text, changed}) => changed ? `[${text}]` : text).join('')"
    assert tuple(small.run(f"diff({left!r}, {right!r}).map(side => {brackets})")) == expected


def test_texts_too_long_for_a_table_are_told_apart_at_their_ends(small):
    code = "diff('same ' + 'a '.repeat(5000) + 'end', 'same ' + 'b '.repeat(5000) + 'end')"
    found = small.run(f"{code}.map(side => side.map(({{text, changed}}) => [text.length, changed]))")
    assert found == [[[5, False], [10000, True], [3, False]]] * 2


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("", "anything", True),
        ("  Two  words ", "with two\n\twords in it", True),
        ("two words", "twowords", False),
        ("a.c", "abc", False),
        ("[x](y) $1 ^ a|b {2} \\d / -", "so [x](y) $1 ^ A|B {2} \\d / - it is", True),
        ("straße", "STRASSE", False),
        ("ÄÖÜ 日本", "äöü 日本語", True),
    ],
)
def test_searching(small, query, text, found):
    assert small.run(f"matcher({query!r})({text!r})") is found


def test_figures_that_are_missing_come_last(small):
    figures = "[3, null, 1, null, 2]"
    for descending, expected in (("true", [0, 4, 2, 1, 3]), ("false", [2, 4, 0, 1, 3])):
        assert small.run(f"sorted([0, 1, 2, 3, 4], i => {figures}[i], {descending})") == expected
    assert small.run("[mean([1, null, 4]), mean([null]), mean([])]") == [2.5, None, None]


def test_a_reference_alone_is_shown_without_a_rival(small):
    small.run("$('tab-held_out').click()")
    told = small.run("$('detail').innerText")
    assert [
        part for part in ("the reference's answers", "three", "four", "reward 1", "toString 0") if part not in told
    ] == []
    small.run("$('tab-trained').click()")
    assert small.run("[...$('group').options].length") == 1  # a field that no prompt has, whatever objects inherit


def test_a_list_taller_than_a_browser_can_show(small):
    """300,000 rows of 84 pixels; the last and the middle are reached by key and by scroll bar."""
    rendered = "new Promise(done => setTimeout(done, 100))"
    positions = "[...document.querySelectorAll('.row')].map(row => Number(row.getAttribute('aria-posinset')))"
    seen = "[...document.querySelectorAll('.row')].filter(row => row.getBoundingClientRect().top < innerHeight).length"
    small.run("view.rows = Array.from({length: 300000}, (_, i) => i % 2), view.at = 0, renderRows(), list.focus()")
    small.press("End")
    small.run(rendered)
    assert small.run(positions)[-1] == 300_000
    assert small.run("document.querySelector('[aria-selected=true]').getBoundingClientRect().bottom <= innerHeight")
    small.run(f"list.scrollTop = (list.scrollHeight - list.clientHeight) / 2, {rendered}")
    assert 149_990 < small.run(positions)[0] < 150_000
    assert small.run(seen) >= 8
    small.press("Home")
    small.run(rendered)
    assert small.run(positions)[0] == 1
