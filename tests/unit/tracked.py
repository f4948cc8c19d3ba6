"""A run that trackers are told of: its config, its history, and what may happen to it."""

from __future__ import annotations

import importlib.util
from typing import Any

import pandas as pd
import pytest

from components import trackers
from components.run_config import RunConfig, checked
from components.stages import tracking

RUN = "WindFlow/17"
FIGURES = {"win_rate": [0.5, 0.625, 0.75], "part_length[a b?]": [3.0, 4.0, 5.0]}
# What would lead a client elsewhere than a test wants, and where it keeps what it keeps of a user.
ADDRESSES = ("WANDB_API_KEY", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID")
FOLDERS = ("HOME", "TRACKIO_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")


def config(**tracker: Any) -> RunConfig:
    return checked({"demo": {}, "iterations": 3, "algorithm": {"name": "dpo", "beta": 0.25}, "trackers": [tracker]})


def history(count: int) -> pd.DataFrame:
    """Rows of so many iterations; `kl` was not measured."""
    rows = [
        {"iteration": t + 1, "algorithm": "dpo", **{name: values[t] for name, values in FIGURES.items()}}
        for t in range(count)
    ]
    return pd.DataFrame(rows).assign(kl=float("nan"), warnings="")


def run(root: str, settings: RunConfig) -> str:
    """A run of three iterations with a retry and a tracker that was away in the second; where its address leads."""
    tracking.begin(settings, root, RUN)
    for count in (1, 1, 3, 3):
        address = tracking.log(settings, root, RUN, history(count), 0)[settings.trackers[0].name]
    return address


def needs(*packages: str) -> Any:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {missing}: {trackers.INSTALL}")
