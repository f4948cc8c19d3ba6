"""What the laboratory computes: one cell per setting, method and seed, and the sample-complexity curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from components.bandit import sampling
from components.bandit.config import LabConfig, SamplingConfig, players
from components.bandit.games import Bandit
from components.bandit.methods import Method
from components.bandit.metrics import duality_gap
from components.bandit.policies import Array, expectation, kl
from components.bandit.solver import equilibrium
from components.data.seeds import generator
from components.runtime.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Cell:
    """One method in one setting with one seed."""

    setting: str
    method: str
    seed: int


def cells(config: LabConfig) -> list[Cell]:
    """All cells of a run, in the order of the config."""
    methods = config.methods
    return [
        Cell(where, label, seed)
        for where, setting in config.settings.items()
        for label in players(setting, methods)
        for seed in config.seeds
    ]


def play(config: LabConfig, cell: Cell, progress: Progress = silent) -> pd.DataFrame:
    """All iterations of a cell, the reference as iteration 0: see `trajectory` for the columns.

    The bandit depends on setting and seed only, so all methods play the same one.
    """
    rng = generator("bandit", cell.setting, cell.seed)
    bandit = config.settings[cell.setting].bandit(rng)
    rows = trajectory(bandit, config.methods[cell.method], config.iterations, progress)
    for place, name in enumerate(("setting", "method", "seed")):
        rows.insert(place, name, getattr(cell, name))
    return rows


def trajectory(bandit: Bandit, method: Method, iterations: int, progress: Progress = silent) -> pd.DataFrame:
    """A row per iteration t = 0 … `iterations`, starting at the reference. All figures are means over prompts.

    | column | meaning |
    |---|---|
    | iteration | t |
    | evaluations | win rates P(y > pi), or best-of-N policies, computed so far |
    | gap | duality gap of the game with KL strength beta |
    | kl_equilibrium | KL(pi* || pi_t) in nats, pi* the equilibrium of that game |
    | kl_target | KL in nats from the policy that the method is after; NaN if there is none |
    | kl_reference | KL(pi_t || pi_ref) in nats |
    | win_rate | P(pi_t > pi_ref) |
    | reward | expected reward; NaN without rewards |
    """
    import pandas as pd

    log_star, log_target, log_pi = equilibrium(bandit), method.target(bandit), bandit.log_ref
    against_reference = bandit.game.win_rate(bandit.log_ref)
    rows = []
    for t in range(iterations + 1):
        figures = {
            "gap": duality_gap(bandit, log_pi),
            "kl_equilibrium": kl(log_star, log_pi),
            "kl_target": _unknown(log_pi) if log_target is None else kl(log_target, log_pi),
            "kl_reference": kl(log_pi, bandit.log_ref),
            "win_rate": expectation(log_pi, against_reference),
            "reward": _unknown(log_pi) if bandit.rewards is None else expectation(log_pi, bandit.rewards),
        }
        means = {name: float(values.mean()) for name, values in figures.items()}
        rows.append({"iteration": t, "evaluations": t * method.evaluations, **means})
        progress(t, iterations, gap=means["gap"])
        if t < iterations:
            log_pi = method.step(bandit, log_pi)
    return pd.DataFrame(rows)


def sample_complexity(config: SamplingConfig, seed: int) -> pd.DataFrame:
    """Error of one sampled iteration for each M and repetition: columns seed, samples, repeat, error.

    The error is the total variation from the exact update, averaged over prompts.
    """
    import pandas as pd

    bandit = sampling.random_log_linear(
        generator("bandit", "log-linear", seed),
        prompts=config.prompts,
        responses=config.responses,
        features=config.features,
        beta=config.beta,
        eta=config.eta,
    )
    rows = []
    for samples in config.samples:
        for repeat in range(config.repeats):
            rng = generator("bandit", "samples", seed, samples, repeat)
            theta = sampling.sampled_iteration(bandit, samples, config.group, rng)
            rows.append({"seed": seed, "samples": samples, "repeat": repeat, "error": sampling.error(bandit, theta)})
    return pd.DataFrame(rows)


def _unknown(log_pi: Array) -> Array:
    return np.full(len(log_pi), np.nan)
