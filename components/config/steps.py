"""The kinds of steps of a run, in their order; steps of iteration t are named `<kind>_t`."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["start", "plan", "generate", "score", "gather", "train", "evaluate", "end"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BODY = KINDS[1:-1]  # of one iteration

SHARDED: tuple[Kind, ...] = ("generate", "score")  # one task for each shard
SAMPLING: tuple[Kind, ...] = ("start", "generate", "evaluate")  # draw responses with the engine
JUDGING: tuple[Kind, ...] = ("start", "score", "evaluate")  # have the judge compare responses
SPENT: tuple[Kind, ...] = ("generate", "score", "train")  # what an iteration costs; evaluation only measures
TIMED: tuple[Kind, ...] = (*SPENT, "evaluate")  # have a column of seconds in `history`

WithModel = Literal["start", "generate", "score", "train", "evaluate"]
WITH_MODEL: tuple[WithModel, ...] = get_args(WithModel)
