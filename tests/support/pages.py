"""What the project's Markdown files hold: headings, links, code, and the commands that a reader would type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:wind|python|make|pip|vllm) [^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

# A whole config of a reader, of which documents show parts.
MINE = {
    "policy": {"model": "organisation/model"},
    "prompts": {"train": "prompts.jsonl"},
    "judge": {"name": "verifier", "function": "my_judge:score"},
}


def files() -> list[Path]:
    """All of them, but for what is installed or generated beside the sources."""
    folders = ["*.md", "docs/*.md", "examples/**/*.md", "infra/**/*.md"]
    return sorted(path for pattern in folders for path in ROOT.glob(pattern))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, *languages: str) -> list[str]:
    """The fenced code in one of the languages."""
    return [code for language, code in FENCE.findall(path.read_text("utf-8")) if language in languages]


def prose(path: Path) -> str:
    """The text without fenced code."""
    return FENCE.sub("", path.read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """The names under which GitHub finds the headings: lower case, no punctuation, hyphens for spaces, numbered."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = "".join(letter for letter in text if letter.isalnum() or letter in " -_").replace(" ", "-")
        again = [slug, *(f"{slug}-{number}" for number in range(1, 100))]
        found.add(next(name for name in again if name not in found))
    return found


def links(path: Path) -> list[tuple[Path, str]]:
    """Relative links, each as the file that it leads to and the anchor in that file, if there is one."""
    targets = [target for target in LINK.findall(prose(path)) if "://" not in target]
    split = [target.partition("#") for target in targets]
    return [((path.parent / file).resolve() if file else path, anchor) for file, _, anchor in split]


def commands(path: Path) -> Iterator[list[str]]:
    """Commands as words, of shell blocks and of code within lines; what follows `>` is left out."""
    lines = [line for block in blocks(path, "bash") for line in block.replace("\\\n", " ").splitlines()]
    consoles = [line for block in blocks(path, "console") for line in block.splitlines()]
    lines += [line[2:] for line in consoles if line.startswith("$ ")]
    lines += INLINE.findall(prose(path))
    for line in lines:
        words = shlex.split(line, comments=True)
        if words:
            yield words[: words.index(">")] if ">" in words else words
