"""The stages of a run, one function per kind of step: manifests in, manifests out.

A flow step reads its artifacts, calls one of these and keeps the result; without a flow they run just as well.
"""

from components.stages.handover import EvaluateInput, Node, Started, TrainInput, TrainResult
from components.stages.iteration import (
    add_row,
    evaluate,
    evaluation_due,
    examples,
    gather,
    generate,
    plan,
    score,
    train,
    train_on,
)
from components.stages.preparation import start
from components.stages.update import forget_unfinished

__all__ = [
    "EvaluateInput",
    "Node",
    "Started",
    "TrainInput",
    "TrainResult",
    "add_row",
    "evaluate",
    "evaluation_due",
    "examples",
    "forget_unfinished",
    "gather",
    "generate",
    "plan",
    "score",
    "start",
    "train",
    "train_on",
]
