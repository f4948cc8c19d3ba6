"""A preference that no score can express, on a real language model: three styles, each of which beats the next.

    python benchmarks/styles.py MODEL_DIR ARMS.jsonl RESULTS.jsonl [--processes 1]
    python benchmarks/styles.py --table RESULTS.jsonl

Arms and prompts are those of real_model.py. A response is a list, a question, short, or plain prose. Lists beat
questions, questions beat short responses, short ones beat lists, each nine times out of ten; every style beats plain
prose as often, and equals tie. Whoever ranks responses by a score chases the style that beats what is common now, round
and round. The game has an answer, each style a third of the time, and how far a policy is from it is told by the style
that beats it most: `exploited`, that style's win rate against the policy, is 1/2 for the answer and 0.9 for a policy of
one style.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from real_model import main
from real_model_run import Run

from components.algorithms import leave_one_out
from components.data.records import Prompt, Rollout
from components.evaluation import metrics
from components.policy import logprobs
from components.policy.model import Policy

STYLES = ("list", "question", "short", "plain")
WINS = 0.9
SHORT = 8  # words
ITEM = re.compile(r"^\s*([-*•]|\d+[.)])\s+\S", re.MULTILINE)
# Of row against column.
BEATS = np.array(
    [
        [0.5, WINS, 1 - WINS, WINS],
        [1 - WINS, 0.5, WINS, WINS],
        [WINS, 1 - WINS, 0.5, WINS],
        [1 - WINS, 1 - WINS, 1 - WINS, 0.5],
    ]
)


def style(text: str) -> int:
    """Index in STYLES: a list has two items or more, a question ends as one; short is what has few words."""
    if len(ITEM.findall(text)) >= 2:
        return 0
    if text.rstrip().endswith("?"):
        return 1
    return 2 if len(text.split()) <= SHORT else 3


def shares(drawn: Rollout) -> np.ndarray:
    """How often each style occurs, (4,)."""
    return np.bincount([style(text) for text in drawn.texts], minlength=len(STYLES)) / len(drawn.texts)


def exploited(by_style: np.ndarray) -> float:
    """The win rate of the pure style that beats these shares most."""
    return float((BEATS @ by_style).max())


class Styles(Run):
    """A training run under this judge."""

    headline = "exploited"

    def verdicts(self, chosen: Sequence[Prompt], drawn: Sequence[Rollout]) -> tuple[np.ndarray, np.ndarray]:
        """Preferences; as scores, for methods that need some, the win rate among the responses to the prompt."""
        found = np.array([[style(text) for one in drawn for text in one.group(i)] for i in range(len(chosen))])
        preference = BEATS[found[:, :, None], found[:, None, :]]
        return preference, leave_one_out(preference)

    def evaluate(self, judged: Policy, t: int) -> dict[str, Any]:
        """Shares of styles among responses to the evaluation prompts, and what they lose to."""
        drawn = self.sample(judged, self.held_out, self.arm.evaluated, "evaluate", t)
        logp, ref = (logprobs.score_responses(p, drawn.prompt_tokens, drawn.tokens) for p in (judged, self.reference))
        found = shares(drawn)
        return {
            "styles": dict(zip(STYLES, map(float, found), strict=True)),
            "exploited": exploited(found),
            "kl_to_reference": metrics.kl(logp, ref),
            "length": float(drawn.tokens.lengths.mean()),
            "texts": [drawn.group(i)[0] for i in range(0, len(self.held_out), max(1, len(self.held_out) // 14))],
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: each arm's shares and what exploits it, means over seeds; then win rates of each against each."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault(row["arm"]["name"], []).append(row)
    ordered = sorted(arms, key=lambda name: fmean(row["exploited"] for row in arms[name]))
    mix = {name: np.mean([[row["styles"][kind] for kind in STYLES] for row in arms[name]], axis=0) for name in ordered}
    head = ["arm", "seeds", "beaten by one style", *STYLES, "KL", *ordered]
    lines = [head, ["---"] * len(head)]
    for name in ordered:
        found = arms[name]
        against = [f"{mix[name] @ BEATS @ mix[other]:.2f}" for other in ordered]
        figures = f"{fmean(row['exploited'] for row in found):.3f}", *(f"{share:.2f}" for share in mix[name])
        kl = f"{fmean(row['kl_to_reference'] for row in found):z.2f}"
        lines.append([name, str(len(found)), *figures, kl, *against])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--table"]:
        print(table([json.loads(line) for line in Path(sys.argv[2]).read_text("utf-8").splitlines()]))
    else:
        main(Styles)
