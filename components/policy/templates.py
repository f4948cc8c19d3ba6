"""What a chat template reads, and what becomes of turns in it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, nodes
from jinja2.meta import find_undeclared_variables

from components.config.errors import PolicyError

# Which the library marks an assistant's words with, and jinja itself does not know.
_GENERATION = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")
# Where an object lies in memory, which is another place in each process: `{{ message.items }}` without its call.
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")
# What every template is given, or can call.
_OWN = (
    *("messages", "add_generation_prompt", "raise_exception", "strftime_now"),
    *("range", "dict", "namespace", "cycler", "joiner", "lipsum"),
)


def _parsed(template: str) -> nodes.Template:
    return Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION.sub("", template))


def draws(template: str) -> bool:
    """Whether a template, which must be one that jinja can parse, has what draws at random, in whatever form."""
    parsed = _parsed(template)
    filters = set()
    for found in parsed.find_all(nodes.Filter):
        filters.add(found.name)
        if found.name == "map":  # which takes another filter's name
            filters |= {word.value for word in found.args if isinstance(word, nodes.Const)}
    return "random" in filters or any(word.name == "lipsum" for word in parsed.find_all(nodes.Name))


def address(text: str, turns: Sequence[Mapping[str, str]]) -> str | None:
    """The first place in memory that a template wrote into the text of turns; None if there is none."""
    written = (found[0] for found in _ADDRESS.finditer(text))
    return next((place for place in written if not any(place in turn["content"] for turn in turns)), None)


def require_read(template: str, options: Mapping[str, Any], key: str) -> None:
    """Raises PolicyError for an option that a template, which must be one that jinja can parse, never reads."""
    read = find_undeclared_variables(_parsed(template))
    unread = sorted(options.keys() - read - {"chat_template"})  # which chooses among several
    if unread:
        known = ", ".join(sorted(name for name in read if name not in _OWN and not name.endswith("_token")))
        raise PolicyError(
            f"{key}.template_options.{unread[0]}: the chat template of {key}.model never reads it. "
            + (f"Correct the name, the template reads {known}; or remove it." if known else "Remove it.")
        )


def remedy(options: Mapping[str, Any], key: str) -> str:
    """What helps against a template that fails with every prompt."""
    given = f" {key}.template_options ({', '.join(sorted(options))}) or" if options else ""
    return f"It fails with any prompt. Correct{given} the template in the directory of {key}.model."


def lost(turns: Sequence[Mapping[str, str]], text: str) -> str | None:
    """The role of a turn whose content is not in the text. Spaces do not count, nor what a model thought before."""
    left = " ".join(text.split())
    for turn in sorted(turns, key=lambda turn: -len(turn["content"])):
        content = turn["content"].rpartition("</think>")[2] if turn["role"] == "assistant" else turn["content"]
        content = " ".join(content.split())
        if not content:
            continue
        before, shown, after = left.partition(content)
        if not shown:
            return turn["role"]
        left = f"{before}\0{after}"
    return None
