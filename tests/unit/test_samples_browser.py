"""The page of `wind samples` in a browser: 10,000 responses searched, sorted and read, and none of them run."""

from __future__ import annotations

import pytest

from components.samples import page
from components.samples.records import Asked, Batch, Samples, Side
from support.chromium import browser, installed

pytestmark = [
    pytest.mark.skipif(installed() is None, reason="needs Chromium: apt-get install chromium"),
    pytest.mark.thorough,
]

N, K, T = 500, 5, 4  # prompts and responses of an iteration, iterations: 10,000 responses
HOSTILE = '</script><img src=x onerror="hacked=1"><script>hacked=2</script><b>bold</b>'
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def words(number, count=100):
    """A text of its own for each number."""
    return " ".join(WORDS[(number * 7 + i * i) % 10] for i in range(count)) + f"\nnumber {number}."


def trained(t):
    """Rewards 0 to 2,499 and, of the last, none; every tenth response is cut off."""
    count, first = N * K, (t - 1) * N * K
    texts = [words(first + row) for row in range(count)]
    if t == 2:
        texts[12] = HOSTILE  # to prompt 2
    return Batch(
        iteration=t,
        k=K,
        prompts=list(range(N)),
        texts=texts,
        truncated=[row % 10 == 0 for row in range(count)],
        tokens=[100 + row % 50 for row in range(count)],
        reward=[*map(float, range(count - 1)), None],
        parts={"met": [float(row % 2) for row in range(count)]},
        win_rate=[(row % K) / (K - 1) for row in range(count)],
        log_ratio=[-float(row) for row in range(count)],
        logp=[-100.0] * count,
    )


def answers(t):
    """The policy after iteration t beats the reference's 0 by t·i on prompt i of ten; prompt 3 gets none."""
    texts = [f"the old answer {i}" if t == 0 else f"the new answer {i} of {t}" for i in range(10)]
    reward = [None if i == 3 else float(t * i) for i in range(10)]
    return Batch(t, 1, list(range(10)), texts, [i == t for i in range(10)], [i + 1 for i in range(10)], reward, {})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    kinds = ["even", "odd"]
    chosen = [Asked(f"p{i}", [("user", f"Question {i}?")], None, {"kind": kinds[i % 2]}) for i in range(N)]
    chosen[1] = Asked("p1", [("system", HOSTILE), ("user", HOSTILE)], HOSTILE, {"kind": "odd", "<b>": HOSTILE})
    samples = Samples(
        "WindFlow/12",
        ["Something is missing."],
        Side(chosen, ["kind"], [trained(t) for t in range(1, T + 1)]),
        Side(chosen[:10], ["kind"], [answers(t) for t in range(3)]),
    )
    out = tmp_path_factory.mktemp("page") / "samples.html"
    page.write(samples, out)
    return out


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def opened(shared, path):
    """The page, newly opened."""
    shared.resize(1400, 900)
    shared.open(path)
    yield shared
    assert shared.errors == []
    assert shared.requests == [path.as_uri()]


def chosen(opened, **controls):
    """Sets filters as a user does; the text of the line that counts what matches."""
    for name, value in controls.items():
        event = "input" if name == "query" else "change"
        opened.run(f"$({name!r}).value = {value!r}, $({name!r}).dispatchEvent(new Event({event!r}))")
    if "query" in controls:
        opened.run("new Promise(done => setTimeout(done, 300))")
    return opened.run("$('count').textContent")


def rows(opened):
    """The responses of the rows in view, from the top."""
    return opened.run("[...document.querySelectorAll('.row')].map(row => row.children[1].textContent)")


def detail(opened):
    return opened.run("$('detail').innerText")


def test_ten_thousand_responses_open_at_once(opened, path, record_property):
    """How long that takes is told to whoever asks for the report, as machines differ."""
    record_property("seconds_until_ready", opened.run("performance.getEntriesByName('ready')[0].startTime") / 1000)
    assert "10,000 responses to 500 training prompts (iterations: 1, 2, 3, 4)" in opened.run("$('about').textContent")
    assert "Something is missing." in opened.run("$('about').textContent")
    assert opened.run("document.title") == "Samples of WindFlow/12"
    assert 5 < len(rows(opened)) < 30  # only those in view
    assert rows(opened)[0] == words(0).replace("\n", " ")[:240]
    opened.run("$('list').scrollTop = 5000 * 84, new Promise(done => setTimeout(done, 100))")
    assert words(5000).replace("\n", " ")[:240] in rows(opened)


def test_no_text_of_a_prompt_or_response_is_run(opened):
    assert chosen(opened, query="onerror") == "21 of 10,000 responses"  # 20 to the hostile prompt, and one
    read = "[...document.querySelectorAll('.row')].map(row => (row.click(), $('detail').innerText)).join()"
    assert f"<b>: {HOSTILE}" in opened.run(read)
    opened.run("$('tab-held_out').click()")
    chosen(opened, query="onerror")
    assert HOSTILE in detail(opened)
    assert opened.run("typeof hacked") == "undefined"
    assert opened.run("document.querySelectorAll('img, b, article script').length") == 0


def test_the_policy_of_the_page_lets_nothing_in(shared, path):
    shared.open(path)
    refused = """new Promise(done => {
        const told = [];
        document.addEventListener("securitypolicyviolation", event => told.push(event.effectiveDirective));
        document.body.append(Object.assign(document.createElement("script"), {text: "hacked = 3"}));
        document.body.append(Object.assign(document.createElement("img"), {src: "https://example.org/x.png"}));
        fetch("https://example.org/").catch(() => setTimeout(() => done(told.sort()), 100));
    })"""
    assert shared.run(refused) == ["connect-src", "img-src", "script-src-elem"]
    assert shared.run("typeof hacked") == "undefined"


def test_search_finds_texts_of_prompts_and_responses(opened):
    assert chosen(opened, query="NUMBER   7042.") == "1 of 10,000 responses"  # whatever case and white space
    assert "number 7042." in detail(opened)
    assert "p408, iteration 3" in detail(opened)  # 7042 = 2 · 2500 + 408 · 5 + 2
    assert chosen(opened, query="question 77?") == "20 of 10,000 responses"
    assert chosen(opened, query="(") == "0 of 10,000 responses"
    assert chosen(opened, query="") == "10,000 of 10,000 responses"


def test_filters_add_up(opened):
    assert chosen(opened, iteration="2") == "2,500 of 10,000 responses"
    assert chosen(opened, cut="truncated") == "250 of 10,000 responses"
    # Rows 0, 10, 20, … belong to prompts 0, 2, 4, …
    assert opened.run("[...$('group').options].map(option => option.text)") == [
        "all",
        "kind: even (250)",
        "kind: odd (250)",
    ]
    assert chosen(opened, group="1") == "0 of 10,000 responses"
    assert detail(opened).strip() == ""
    assert chosen(opened, group="0", cut="whole") == "1,000 of 10,000 responses"


def test_sorts_by_every_figure(opened):
    chosen(opened, iteration="1", sort="reward")
    assert "p499, iteration 1" in detail(opened)
    assert "reward 2498" in detail(opened)
    chosen(opened, order="lowest")
    assert "reward 0\n" in detail(opened)
    opened.run("$('list').focus()")
    opened.press("End")  # the response without a reward stands last either way
    assert words(2499) in detail(opened)
    assert chosen(opened, sort="win_rate", order="") == "2,500 of 10,000 responses"
    assert words(4) in detail(opened)  # the first of those with win rate 1
    chosen(opened, sort="log_ratio")
    assert words(0) in detail(opened)
    chosen(opened, sort="tokens")
    assert "149 tokens" in detail(opened)
    chosen(opened, sort="part met", order="lowest")
    assert words(0) in detail(opened)


def test_a_response_is_read_beside_the_others_of_its_group(opened):
    opened.run("document.querySelectorAll('.row')[6].click()")
    told = detail(opened)
    assert told.startswith("p1, iteration 1")
    order = [told.index(words(number)) for number in (6, 9, 8, 7, 5)]  # then by win rate, which grows with k
    assert order == sorted(order)
    figures = ["reward 6", "win rate 0.25", "met 0", "log-ratio −6", "log-prob −100", "106 tokens"]
    assert (
        opened.run("[...document.querySelector('.response .figures').children].map(tag => tag.textContent)") == figures
    )


def test_the_keyboard_walks_through_the_list(opened):
    opened.run("$('list').focus()")
    for _ in range(30):
        opened.press("ArrowDown")
    assert words(30) in detail(opened)
    assert opened.run("$($('list').getAttribute('aria-activedescendant')).getAttribute('aria-posinset')") == "31"
    opened.press("Home")
    assert words(0) in detail(opened)


def test_answers_to_held_out_prompts_differ_in_marked_words(opened):
    opened.run("$('tab-held_out').click()")
    assert opened.run("$('count').textContent") == "10 of 10 held-out prompts"
    chosen(opened, sort="change")
    assert rows(opened) == [f"the new answer {i} of 2" for i in (9, 8, 7, 6, 5, 4, 2, 1, 0, 3)]
    assert opened.run("document.querySelector('.row .up').textContent") == "change +18"
    assert "After iteration 2: reward 18, reference's 0" in detail(opened)
    assert opened.run("[...document.querySelectorAll('del')].map(part => part.textContent)") == ["old"]
    assert opened.run("[...document.querySelectorAll('ins')].map(part => part.textContent)") == ["new", "of 2"]
    chosen(opened, iteration="1")
    assert rows(opened)[0] == "the new answer 9 of 1"
    assert chosen(opened, cut="truncated") == "1 of 10 held-out prompts"
    assert rows(opened) == ["the new answer 1 of 1"]
    assert chosen(opened, cut="", query="answer 4 of 2") == "1 of 10 held-out prompts"  # whichever policy said so


def test_a_narrow_window_shows_the_list_or_a_sample(opened):
    opened.resize(400, 850)
    assert opened.run("document.documentElement.scrollWidth") == 400
    assert opened.run("$('detail').offsetParent") is None
    opened.run("document.querySelectorAll('.row')[1].click()")
    assert opened.run("$('list').offsetParent") is None
    assert words(1) in detail(opened)
    opened.run("document.querySelector('.back').click()")
    assert opened.run("$('detail').offsetParent") is None
    assert opened.run("document.activeElement.id") == "list"
