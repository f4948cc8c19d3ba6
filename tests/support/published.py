"""What a model card is about, by hand: no run is needed for it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from components.export.facts import Facts
from components.run_config import parse

CONFIG = """
policy: {model: organisation/base}
prompts: {train: organisation/questions}
judge: {name: verifier, function: "my_judge:score"}
algorithm: {name: wind, eta: 10.0}
iterations: 2
"""
COSTS = {f"seconds_{kind}": 10.0 for kind in ("generate", "score", "train", "evaluate")}


def history(*rates: float) -> pd.DataFrame:
    """A history with these win rates, each 0.05 from the bounds of its interval."""
    return pd.DataFrame(
        [
            {
                **{"iteration": number, "algorithm": "wind", "win_rate": rate, "win_rate_low": rate - 0.05},
                **{"win_rate_high": rate + 0.05, "win_rate_previous": rate, "kl": 1.25, "reward_mean": 0.5},
                **{"response_length": 20.0, "prompts": 16, "responses": 64, "truncated": 0.25},
                **COSTS,
            }
            for number, rate in enumerate(rates, start=1)
        ]
    )


def facts(config: str = CONFIG, **changes: Any) -> Facts:
    """Of a run of two iterations that ended at a win rate of 0.7."""
    usual: dict[str, Any] = {
        **{"run": "WindFlow/7", "config": parse(config), "iteration": 2, "history": history(0.6, 0.7)},
        **{"adapted": False, "dtype": "bfloat16", "precision": "bf16"},
        "machine": {"hardware": "1 × NVIDIA H100", "python": "3.11.9", "torch": "2.13.0"},
    }
    return Facts(**{**usual, **changes})
