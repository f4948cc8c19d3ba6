"""The samples on the report card: which are chosen, how large they get, and how a browser shows them."""

from __future__ import annotations

import html
import re
import warnings
from types import SimpleNamespace

import pytest

from components.reporting.sample_cards import sample_frame
from components.samples import page
from components.samples.excerpt import excerpt
from components.samples.records import Asked, Batch, Samples, Side
from support.chromium import browser, installed

with warnings.catch_warnings():  # of Metaflow's own copy of yaml
    warnings.filterwarnings("ignore", "The _yaml extension module", DeprecationWarning)
    from metaflow.plugins.cards.card_modules.basic import BlankCard

HOSTILE = '"></iframe><img src=x onerror="parent.hacked=1">\n\n# Heading\n\n<script>top.hacked=2</script> \'&quot;'


def prompts(n, text="question"):
    return [Asked(f"p{i}", [("user", f"{text} {i}")], None, {}) for i in range(n)]


def answers(t, rewards, texts):
    n = len(rewards)
    return Batch(t, 1, list(range(n)), texts, [False] * n, [1] * n, rewards, {"part": rewards})


def drawn(ratios, rates, k=2):
    n = len(ratios) // k
    texts = [f"response {row}" for row in range(n * k)]
    known = [0.0] * n * k
    return Batch(2, k, list(range(n)), texts, [False] * n * k, [1] * n * k, known, {}, rates, ratios, known)


def samples(trained, reference, policy):
    """Of as many prompts as there are responses."""
    held_out = Side(prompts(len(policy.texts)), [], [reference, policy])
    return Samples("WindFlow/12", ["A note."], Side(prompts(len(trained.prompts)), [], [trained]), held_out)


MOVED = drawn([0.1, -0.3, 2.0, -1.0, 0.0, 0.0], [0.5] * 6)  # by 0.2, 1.5 and 0 in the mean


def test_the_most_changed_come_first_by_hand():
    """Rewards change by 1, 3 and 2, and log-ratios by 0.2, 1.5 and 0."""
    whole = samples(MOVED, answers(0, [0.0, 4.0, 0.0], ["a", "b", "c"]), answers(2, [1.0, 1.0, -2.0], ["d", "e", "f"]))
    few = excerpt(whole, most=2)
    assert [prompt.id for prompt in few.held_out.prompts] == ["p1", "p2"]
    assert [(batch.iteration, batch.texts, batch.prompts) for batch in few.held_out.batches] == [
        (0, ["b", "c"], [0, 1]),
        (2, ["e", "f"], [0, 1]),
    ]
    assert few.held_out.batches[1].reward == few.held_out.batches[1].parts["part"] == [1.0, -2.0]
    assert [prompt.id for prompt in few.trained.prompts] == ["p1", "p0"]
    assert few.trained.batches[0].texts == ["response 2", "response 3", "response 0", "response 1"]
    assert few.trained.batches[0].log_ratio == [2.0, -1.0, 0.1, -0.3]
    assert few.notes[0] == "A note."
    assert few.notes[1].startswith(
        "The responses that changed most first: 2 of 3 training prompts and 2 of 3 held-out prompts;"
    )


def test_without_rewards_words_decide_and_before_any_step_the_spread():
    unknown = [None, None, None]
    texts = ["one two three four", "same words here now", "one two"]
    whole = samples(
        drawn([0.0] * 6, [0.5, 0.5, 0.9, 0.1, 0.6, 0.4]),
        answers(0, unknown, texts),
        answers(2, unknown, ["one two five six", "same words here now", "five six"]),  # half, none and all are new
    )
    few = excerpt(whole)
    assert [prompt.id for prompt in few.held_out.prompts] == ["p2", "p0", "p1"]
    assert [prompt.id for prompt in few.trained.prompts] == ["p1", "p2", "p0"]


def test_long_texts_are_cut_and_the_whole_has_a_limit():
    long = ["x" * 5000, "y" * 5000, "z"]
    whole = samples(MOVED, answers(0, [0.0, 1.0, 2.0], ["", "", ""]), answers(2, [9.0, 2.0, 2.5], long))
    few = excerpt(whole, limit=3000)
    assert [prompt.id for prompt in few.held_out.prompts] == ["p0"]
    assert few.held_out.batches[1].texts == ["x" * 1999 + "…"]
    nothing = excerpt(whole, limit=100)
    assert (nothing.held_out.prompts, nothing.held_out.batches) == ([], [])
    page.render(nothing)


def test_of_a_policy_that_draws_for_itself_only_answers_are_there():
    whole = samples(MOVED, answers(0, [0.0], ["a"]), answers(2, [1.0], ["b"]))
    few = excerpt(Samples(whole.run, [], Side([], [], []), whole.held_out))
    assert (few.trained.prompts, len(few.held_out.prompts)) == ([], 1)


def hostile():
    """Texts that would leave frame and page."""
    rewards = [1.0, 2.0]
    whole = samples(MOVED, answers(0, [0.0, 0.0], [HOSTILE, "old"]), answers(2, rewards, ["new words", HOSTILE]))
    whole.held_out.prompts[0] = Asked(HOSTILE, [("user", HOSTILE)], HOSTILE, {"kind": HOSTILE})
    return excerpt(whole)


def test_the_frame_is_one_attribute_without_an_empty_line():
    shown = page.render(hostile())
    command, frame = (part.render()["source"].strip() for part in sample_frame(shown, "WindFlow/12"))
    assert command == "## Samples\n\nEvery sample: `wind samples WindFlow/12`"
    assert not set("\r\n") & set(frame)
    attributes = re.fullmatch(
        r'<iframe title="Samples" sandbox="allow-scripts" style="[^"<>]*" srcdoc="([^"<>]*)"></iframe>', frame
    )
    assert attributes
    assert html.unescape(attributes[1]) == shown


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """The card as Metaflow writes it, a file."""
    parts = [part.render() for part in sample_frame(page.render(hostile()), "WindFlow/12")]
    made = BlankCard(options={"title": "card"}, components=parts)
    path = tmp_path_factory.mktemp("card") / "card.html"
    path.write_text(made.render(SimpleNamespace(pathspec="WindFlow/12/end/1")), "utf-8")
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def in_frame(opened, code):
    """The value of an expression in the frame, which the card itself cannot reach."""
    found = [target for target in opened.call("Target.getTargets")["targetInfos"] if target["type"] == "iframe"]
    (frame,) = found
    outside = opened._session
    opened._session = opened.call("Target.attachToTarget", targetId=frame["targetId"], flatten=True)["sessionId"]
    try:
        return opened.run(code)
    finally:
        opened._session = outside


def once(condition):
    """Waits until it holds in the page."""
    return f"new Promise(done => {{const look = () => {condition} ? done(1) : setTimeout(look, 50); look()}})"


@pytest.mark.thorough
@pytest.mark.skipif(installed() is None, reason="needs Chromium: apt-get install chromium")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1400, 400])
def test_a_browser_shows_them_as_text(shared, card, width, dark):
    shared.resize(width, 1100, dark=dark)
    shared.open(card)
    shared.run(once("document.querySelector('iframe')"))
    in_frame(shared, once("document.readyState === 'complete'"))
    in_frame(shared, "document.getElementById('tab-held_out').click()")
    listed = in_frame(shared, "document.getElementById('list').innerText")
    assert "<script>top.hacked=2</script>" in listed
    assert in_frame(shared, "document.querySelectorAll('img').length + document.querySelectorAll('h1').length") == 1
    assert shared.run("[typeof hacked, document.querySelectorAll('img[src=x]').length]") == ["undefined", 0]
    wide = in_frame(shared, "[document.documentElement.scrollWidth, innerWidth, innerHeight]")
    assert wide[0] <= wide[1] <= width
    assert wide[2] >= 700
    back = in_frame(shared, "getComputedStyle(document.body).backgroundColor")
    assert back == ("rgb(20, 23, 27)" if dark else "rgb(246, 247, 249)")
