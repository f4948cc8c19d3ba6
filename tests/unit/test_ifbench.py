"""IFBench: accuracies and differences by hand, and the package's checkers on texts whose verdicts are plain."""

from __future__ import annotations

import importlib.util
import math
import random
import sys

import pytest

from components.benchmarking import ifbench
from components.benchmarking.figures import NAMES, accuracies, differences
from components.benchmarking.ifbench import Checked, Instruction, Task
from components.evaluation.benchmarks import BenchmarkError
from support.benchmarks import BROKEN, KEPT, needs_ifbench, task

HALF = Checked((True, False), (True, True))


def test_accuracies_by_hand():
    """Four prompts with five instructions: 2 of 4 and 3 of 5 strictly, 3 of 4 and 4 of 5 loosely."""
    found = accuracies([KEPT, KEPT, BROKEN, HALF])
    assert [found[name].mean for name in NAMES] == pytest.approx([2 / 4, 3 / 5, 3 / 4, 4 / 5])


def test_the_interval_of_prompts_by_hand():
    """10 of 20, and two more, a 0 and a 1: 11 of 22, whose variance is 22/4 / 21."""
    mean = accuracies([KEPT, BROKEN] * 10)["strict_prompts"]
    half = 2.0796 * math.sqrt(22 / 4 / 21 / 22) + 0.5 / 22  # Student's t of 21 degrees, from a table
    assert [mean.low, mean.high] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-4)


def test_instructions_of_one_prompt_are_not_independent():
    """Pairs that are kept or broken together say as much as one instruction each, not as two."""
    alone = accuracies([KEPT, BROKEN] * 10)["strict_instructions"]
    together = accuracies([Checked((kept, kept), (kept, kept)) for kept in (True, False)] * 10)["strict_instructions"]
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


def test_a_paired_difference_by_hand():
    """18 prompts, of which 9 are gained and none lost, and two more, -1 and 1: mean 9/20, sum of squares 11."""
    gain = differences([BROKEN] * 18, [KEPT, BROKEN] * 9)["strict_prompts"]
    half = 2.0930 * math.sqrt((11 - 20 * 0.45**2) / 19 / 20) + 1 / 20
    assert gain.mean == pytest.approx(0.5)
    assert (gain.low, gain.high) == pytest.approx((0.45 - half, 0.45 + half), abs=1e-4)


def test_no_difference_is_not_certain():
    gain = differences([KEPT, BROKEN] * 5, [KEPT, BROKEN] * 5)["strict_prompts"]
    assert gain.mean == 0.0
    assert gain.low == pytest.approx(-gain.high)
    assert 0.1 < gain.high < 0.5


@needs_ifbench
@pytest.mark.parametrize(
    ("one", "response", "strict", "loose"),
    [
        (task("count:conjunctions", small_n=2), "I came and saw, but left.", True, True),
        (task("count:conjunctions", small_n=3), "I came and saw, but left.", False, False),
        (task("format:no_whitespace"), "Sure thing:\nAbc", False, True),  # without its first line
        (task("format:no_whitespace"), " \n ", False, False),  # blank: nothing is kept
        (task("count:numbers", N=2), "7 and 8", True, True),
        # Settings that the prompt leaves out are null in the file.
        (task("count:numbers", N=2, keyword=None, options=None), "7 and 8 and 9", False, False),
    ],
)
def test_verdicts_that_are_plain(one, response, strict, loose):
    assert ifbench.check(one, response) == Checked((strict,), (loose,))


@needs_ifbench
def test_a_checker_that_fails_on_an_answer_fails_alone():
    two = Task(task("").prompt, (Instruction("words:last_first", {}), Instruction("count:numbers", {"N": 0})))
    assert ifbench.check(two, "!!!") == Checked((False, True), (False, True), ("words:last_first",))


@needs_ifbench
def test_a_checker_that_draws_draws_the_same_each_time():
    """It takes the start 0 of a span for none: of four words it may want three, two or one of them."""
    one = task("repeat:repeat_span", prompt_to_repeat="a b c d", n_start=0, n_end=3)
    state = random.getstate()
    found = [[ifbench.check(one, span).strict for span in ("a b c", "b c", "c")] for _ in range(5)]
    assert random.getstate() == state
    assert found == [found[0]] * 5
    assert sum(map(sum, found[0])) == 1


def without_data(monkeypatch):
    """NLTK as where nothing has been downloaded, nor read before."""
    import nltk
    from nltk.corpus.reader import WordListCorpusReader
    from nltk.corpus.util import LazyCorpusLoader

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk.corpus, "stopwords", LazyCorpusLoader("stopwords", WordListCorpusReader, ".*"))


@needs_ifbench
def test_all_prompts_as_the_package_itself_checks_them(monkeypatch):
    """On the responses that it brings, whole prompts at once; what lacks data is named, and nothing is downloaded."""
    import nltk

    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("downloaded"))
    without_data(monkeypatch)
    before = {name for name in sys.modules if name.partition(".")[0] == "spacy"}
    benchmark = ifbench.load()
    assert {name for name in sys.modules if name.partition(".")[0] == "spacy"} == before
    assert benchmark.left_out == {
        "format:title_case": 4,
        "ratio:stop_words": 12,
        "words:keywords_specific_position": 4,
        "words:start_verb": 6,
        "words:words_position": 3,
    }
    assert (benchmark.prompts, len(benchmark.tasks)) == (294, 294 - sum(benchmark.left_out.values()))
    assert sum(len(one.instructions) == 2 for one in benchmark.tasks) > 30

    library = sys.modules["ifbench.evaluation_lib"]
    folder = importlib.util.find_spec("ifbench").submodule_search_locations[0]
    texts = library.read_prompt_to_response_dict(f"{folder}/data/sample_output.jsonl")
    inputs = {one.key: one for one in library.read_prompt_list(f"{folder}/data/IFBench_test.jsonl")}
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    compared = 0
    for one in benchmark.tasks:
        given = inputs[one.prompt.id]
        if "repeat:repeat_span" in given.instruction_id_list or given.prompt not in texts:
            continue
        strict = library.test_instruction_following_strict(given, texts).follow_instruction_list
        loose = library.test_instruction_following_loose(given, texts).follow_instruction_list
        assert ifbench.check(one, texts[given.prompt]) == Checked(tuple(strict), tuple(loose))
        compared += 1
    assert compared > 200


@needs_ifbench
def test_data_that_is_installed_is_used(monkeypatch, tmp_path):
    import nltk

    stopwords = tmp_path / "corpora" / "stopwords" / "english"
    stopwords.parent.mkdir(parents=True)
    stopwords.write_text("the\nand\n")
    without_data(monkeypatch)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    found = ifbench.load()
    assert "ratio:stop_words" not in found.left_out
    one = task("ratio:stop_words", percentage=50)
    assert ifbench.check(one, "the cat and dog").strict == (True,)  # 2 of 4 words
    assert ifbench.check(one, "the cat and").strict == (False,)


@needs_ifbench
def test_nothing_that_can_be_checked(monkeypatch):
    without_data(monkeypatch)
    monkeypatch.setattr(ifbench, "_tasks", lambda _: (task("format:title_case"),))
    with pytest.raises(BenchmarkError, match=r"no prompt can be checked, NLTK.* Run python -m nltk\.downloader"):
        ifbench.load()


def test_the_package_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "ifbench", None)
    monkeypatch.setitem(sys.modules, "ifbench.evaluation_lib", None)
    with pytest.raises(
        BenchmarkError, match=r"ifbench.* is not installed\. Run pip install --no-deps -r requirements-if"
    ):
        ifbench.load()
