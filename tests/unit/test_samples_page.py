"""The page of `wind samples` as a file: texts that nobody can trust stay texts, and what stood there is not lost."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from html.parser import HTMLParser

import pytest

from components.config.errors import UserError
from components.samples import page
from components.samples.records import Asked, Batch, Samples, Side

HOSTILE = [
    '</script><script>window.hacked = "end"</script>',
    "<!-- <script> -->",
    '<img src=x onerror="window.hacked = 1">',
    "{{script}} {{policy}}",
    "\u2028\u2029 \0 \x7f \\u003c \\ \" ' & &lt; \r\n\t 日本語 🙂",
    "]]> --> </title></style></SCRIPT >",
]


class Elements(HTMLParser):
    """What a browser finds: elements, and the text of each style and script."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self.open = [], {}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.open = dict(attrs).get("id", tag)

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open in ("data", "script", "style"):
            self.texts[self.open] = self.texts.get(self.open, "") + data


def hostile():
    texts = [*HOSTILE, "plain", ""]
    batch = Batch(0, 2, [0, 1, 2, 3], texts, [False] * 8, [1] * 8, [None] * 8, {HOSTILE[0]: [0.5] * 8})
    shown = [Asked(text, [(text, text)], text, {text: text}) for text in HOSTILE[:4]]
    return Samples("</title><b>&", [HOSTILE[2]], Side(shown, [], [batch]), Side(shown, HOSTILE[:1], [batch]))


def test_no_text_ends_its_block():
    rendered = page.render(hostile())
    elements = Elements(rendered)
    assert [attributes for tag, attributes in elements.found if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert not {"img", "b"} & {tag for tag, _ in elements.found}
    assert "<" not in elements.texts["data"]
    shown = json.loads(elements.texts["data"])
    assert shown["trained"]["batches"][0]["texts"] == [*HOSTILE, "plain", ""]
    assert shown["held_out"]["prompts"][1] == {
        "id": HOSTILE[1],
        "messages": [[HOSTILE[1], HOSTILE[1]]],
        "answer": HOSTILE[1],
        "metadata": {HOSTILE[1]: HOSTILE[1]},
    }
    assert rendered.encode().decode() == rendered


def test_the_page_loads_nothing_and_lets_only_its_own_script_run():
    elements = Elements(page.render(hostile()))
    [policy] = [found["content"] for tag, found in elements.found if tag == "meta" and "http-equiv" in found]
    hashes = {
        tag: base64.b64encode(hashlib.sha256(elements.texts[tag].encode()).digest()).decode()
        for tag in ("script", "style")
    }
    assert policy.split("; ") == [
        "default-src 'none'",
        f"script-src 'sha256-{hashes['script']}'",
        f"style-src 'sha256-{hashes['style']}'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    assert not [name for _, found in elements.found for name in found if name in ("src", "href", "style", "onclick")]
    assert "innerHTML" not in elements.texts["script"]
    assert "url(" not in elements.texts["style"]


def test_a_page_replaces_a_page_and_nothing_else(tmp_path):
    out = tmp_path / "new" / "samples.html"
    page.check(out)
    assert page.write(hostile(), out) == out.stat().st_size
    page.check(out)
    page.write(hostile(), out)
    assert [path.name for path in out.parent.iterdir()] == ["samples.html"]
    out.write_text("<!doctype html>\n<html>my own</html>")
    with pytest.raises(UserError, match=r"samples\.html: is there already and is no page of samples"):
        page.check(out)
    with pytest.raises(UserError, match="is a directory"):
        page.check(tmp_path)


def test_a_pipe_is_no_page_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "samples.html")
    with pytest.raises(UserError, match="is there already and is no page of samples"):
        page.check(tmp_path / "samples.html")
