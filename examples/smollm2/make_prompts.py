"""Writes the prompts of this example: every one a topic, a request and a constraint that judge.py can check.

    python examples/smollm2/make_prompts.py

Topics of the evaluation never occur in training, and two kinds of constraint (`HELD_OUT`) only in the evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent

CONSTRAINTS = {
    "lower_case": "Write your whole answer in lower case letters, without any capital letter.",
    "capitals": "Write your whole answer in CAPITAL LETTERS only.",
    "no_commas": "Do not use any commas in your answer.",
    "quoted": "Wrap your whole answer in double quotation marks.",
    "ending": 'End your answer with exactly this sentence: "{wanted}"',
    "bullets": 'Answer in exactly three bullet points, each on a line of its own that begins with "* ".',
    "short": "Use at most 25 words.",
    "title": "Begin your answer with a title in double angle brackets, such as <<my title>>.",
    "postscript": 'Add a postscript at the end, on a line of its own that begins with "P.S."',
    "without_the": 'Do not use the word "the" in your answer.',
    "question": "End your answer with a question mark.",
    "json": 'Answer with a JSON object that has the single key "answer", and nothing else.',
    "hashtag": "End your answer with a hashtag, such as #example.",
    "two_sentences": "Use at most two sentences.",
}
HELD_OUT = ("hashtag", "two_sentences")
ENDINGS = (
    "That is all there is to it.",
    "Ask me if you want to know more.",
    "I hope this helps.",
    "Try it yourself one day.",
)
REQUESTS = (
    "Tell a child about {topic}.",
    "Give a piece of advice about {topic}.",
    "Say why people like {topic}.",
    "Tell something surprising about {topic}.",
)
TRAIN_TOPICS = (
    "baking bread", "chess", "the moon", "bicycles", "coffee", "gardening", "volcanoes", "the piano", "swimming",
    "photography", "honey bees", "trains", "learning a language", "rain", "cheese", "hiking", "whales", "painting",
    "the internet", "sleep", "soap", "bridges", "mushrooms", "football", "maps", "glass", "dancing", "clocks", "wool",
    "libraries", "lightning", "tea", "sailing", "robots", "owls", "salt", "castles", "running", "paper", "magnets",
    "chocolate", "earthquakes", "knitting", "dogs", "the desert",
)  # fmt: skip
EVALUATION_TOPICS = (
    "horses", "windmills", "camping", "the violin", "pottery", "snow", "apples", "submarines", "cooking rice",
    "spiders", "tennis", "rivers", "candles", "museums", "beekeeping",
)  # fmt: skip


def prompt(topic: str, kind: str, number: int) -> dict[str, str]:
    """The prompt of a topic and a kind of constraint; `number` picks its request and ending."""
    wanted = ENDINGS[number % len(ENDINGS)] if kind == "ending" else ""
    request = REQUESTS[number % len(REQUESTS)].format(topic=topic)
    text = f"{request} {CONSTRAINTS[kind].format(wanted=wanted)}"
    return {"prompt": text, "kind": kind, "topic": topic, "wanted": wanted}


def training() -> Iterator[dict[str, str]]:
    """Each topic with each kind that is not held out, in every request."""
    kinds = [kind for kind in CONSTRAINTS if kind not in HELD_OUT]
    for topic in TRAIN_TOPICS:
        for kind in kinds:
            for number in range(len(REQUESTS)):
                yield prompt(topic, kind, number)


def evaluation() -> Iterator[dict[str, str]]:
    """Each topic with each kind once; the requests take turns."""
    for i, topic in enumerate(EVALUATION_TOPICS):
        for j, kind in enumerate(CONSTRAINTS):
            yield prompt(topic, kind, i + j)


def save(name: str, rows: Iterator[dict[str, str]]) -> None:
    """Writes a JSONL file beside this one."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (HERE / name).write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    save("train.jsonl", training())
    save("evaluation.jsonl", evaluation())
