"""The samples as one HTML file: data, style and script in it, and nothing loaded from anywhere.

Texts of prompts and responses are nobody's to trust. In the file they are JSON in which no `<` stands, so that nothing
in them ends its block; the script shows them as text alone, and the page's policy lets no other script run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

from components.config.errors import UserError
from components.samples.records import Samples
from components.store.files import begins_with, replacing

FOLDER = Path(__file__).parent
SCRIPTS = ("diff.js", "table.js", "detail.js", "page.js")
MARK = '<!doctype html>\n<html lang="en" data-made-by="wind samples">'  # begins every page


def render(samples: Samples) -> str:
    """The page."""
    style = (FOLDER / "page.css").read_text("utf-8")
    script = "\n".join((FOLDER / name).read_text("utf-8") for name in SCRIPTS)
    values = {
        "mark": MARK,
        "policy": f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(f"Samples of {samples.run}"),
        "style": style,
        "script": script,
        "data": as_json(samples),
    }
    # In one pass: what is put in is not looked through again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], (FOLDER / "page.html").read_text("utf-8"))


def as_json(samples: Samples) -> str:
    """The samples as JSON without the sign `<`."""
    text = json.dumps(samples, default=vars, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # outside texts JSON has none


def write(samples: Samples, path: Path) -> int:
    """Writes the page and gives its bytes; an older page is replaced, see `check`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = render(samples).encode()
    with replacing(path, path.parent) as file:
        file.write(content)
    return len(content)


def check(path: Path) -> None:
    """Raises UserError where something stands that is no such page."""
    if path.is_dir():
        raise UserError(f"{path}: is a directory. Name the HTML file to write, such as {path / 'samples.html'}.")
    if path.exists() and not begins_with(path, MARK):
        raise UserError(f"{path}: is there already and is no page of samples. Name another file, or remove it.")


def _hash(text: str) -> str:
    """As a content security policy names what stands in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
