"""A small config, the models and lengths that its costs by hand are of, and what such a run took."""

from __future__ import annotations

import math

import pandas as pd
import yaml

from components.plan.costs import Lengths, Models, Shape
from components.plan.memory import BF16
from components.run_config import checked

POLICY = Shape(parameters=1e9, layers=10, hidden=100, intermediate=200, kv=50)
MODELS = Models(POLICY, 0.0, BF16, [])
LENGTHS = Lengths(prompt=10, response=20)
SMALL = """
iterations: 2
policy: {model: nowhere}
prompts: {train: prompts.jsonl, per_iteration: 100, held_out: 50}
generation: {responses: 4, max_new_tokens: 30, engine: {name: transformers, batch_size: 8}}
training: {batch_size: 20, micro_batch_size: 2}
judge: {name: verifier, function: "m:f"}
"""

HISTORY = pd.DataFrame(
    {
        "iteration": [1, 2],
        "prompts": [50, 50],
        "seconds_generate": [1800.0, 5400.0],
        "seconds_score": [360.0, 360.0],
        "seconds_train": [3600.0, 3600.0],
        "seconds_evaluate": [100.0, 720.0],
        "win_rate": [math.nan, 0.5],  # of the first, nothing was evaluated
    }
)


def config(**changes):
    """The small config with sections changed, or replaced if they choose a plug-in."""
    values = yaml.safe_load(SMALL)
    for key, value in changes.items():
        whole = not isinstance(values.get(key), dict) or "name" in value
        values[key] = value if whole else {**values[key], **value}
    return checked(values)
