"""The equilibrium pi* ∝ pi_ref·exp(P(y > pi*)/beta) of a bandit, at any beta.

Extragradient steps find it down to `EXTRAGRADIENT_BETA`; they need some 30/(eta·beta) of them. Below, where that number
and what rounding adds up to in so many steps are too large, Newton's method follows the equilibrium as beta falls.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from components.bandit.games import Bandit
from components.bandit.metrics import best_response, duality_gap, extragradient_step, extragradient_step_size
from components.bandit.policies import Array, normalise
from components.config.errors import ConfigError

EXTRAGRADIENT_BETA = 0.02
SMALLEST_BETA = 1e-6
EPS = float(np.finfo(np.float64).eps)
SHORTEST_STEP = 0.9995  # factor by which beta falls from one equilibrium to the next
MAX_NEWTON_STEPS = 40
MAX_HALVINGS = 30
NO_MASS = 1e-3  # of beta, the mass of all responses that may be left out of the slope of the win rates
NO_GAP = 1e-28  # a duality gap that is rounding only


def equilibrium(bandit: Bandit) -> Array:
    """pi*, log-probs of shape (n, Y).

    They differ from those of the best response to it by at most 1e-12, or by a small multiple of what rounding brings
    about: log-probs of size |log pi| carry an error of eps·|log pi|, which extragradient steps add up to
    eps·|log pi|/(eta·beta), and win rates one of eps, which 1/beta multiplies.

    Raises ConfigError where Newton's method gets stuck, seen only with beta < 1e-4 and a reference of very unequal
    probabilities.
    """
    log_pi = _by_extragradient(replace(bandit, beta=max(bandit.beta, EXTRAGRADIENT_BETA)))
    reached, factor = max(bandit.beta, EXTRAGRADIENT_BETA), 0.5
    while reached > bandit.beta:
        beta = max(bandit.beta, factor * reached)
        found = _by_newton(replace(bandit, beta=beta), log_pi)
        if found is not None:
            log_pi, reached, factor = found, beta, max(factor**1.5, 0.1)
        elif factor < SHORTEST_STEP:
            factor = math.sqrt(factor)
        else:
            raise ConfigError(
                f"beta: no equilibrium found for {bandit.beta:g}, the smallest solved is {reached:.2g}. Raise beta to "
                "that or more, or make the reference's probabilities less unequal (reference_spread)."
            )
    return log_pi


def _by_extragradient(bandit: Bandit) -> Array:
    """Raises RuntimeError if it does not converge, which theory excludes."""
    eta, log_pi, residual = extragradient_step_size(bandit.beta), bandit.log_ref, math.inf
    for _ in range(math.ceil(200 / (eta * bandit.beta))):
        residual = _residual(bandit, log_pi)
        if residual <= max(1e-12, 4 * EPS * float(np.abs(log_pi).max()) / (eta * bandit.beta)):
            return log_pi
        log_pi = extragradient_step(bandit, log_pi, eta)
    raise RuntimeError(f"no equilibrium found: log-probs still {residual:.1e} from the best response's")


def _by_newton(bandit: Bandit, log_pi: Array) -> Array | None:
    """Damped Newton steps from near the equilibrium; None if they do not get there."""
    for _ in range(MAX_NEWTON_STEPS):
        if _residual(bandit, log_pi) <= max(1e-12, 8 * EPS * (float(np.abs(log_pi).max()) + 1 / bandit.beta)):
            return log_pi
        shorter = _damped(bandit, log_pi, _newton_direction(bandit, log_pi))
        if shorter is None:
            return None
        log_pi = shorter
    return None


def _damped(bandit: Bandit, log_pi: Array, direction: Array) -> Array | None:
    """The step that raises no prompt's duality gap, a convex function of pi; None if there is none."""
    allowed = np.maximum(duality_gap(bandit, log_pi), NO_GAP * bandit.beta)
    length = np.ones((len(log_pi), 1))
    for _ in range(MAX_HALVINGS):
        trial = normalise(log_pi + length * direction)
        worse = ~(duality_gap(bandit, trial) <= allowed)
        if not worse.any():
            return trial
        length[worse] /= 2
    return None


def _newton_direction(bandit: Bandit, log_pi: Array) -> Array:
    """d with d = miss + E·d, miss = log best response - log pi and E its derivative by log pi; (n, Y).

    E = P·(diag(pi) - pi·pi^T)/beta, up to constants that normalising takes out. Columns of responses of hardly any mass
    are left out, so that the system to solve is only as large as the support.
    """
    least = NO_MASS * bandit.beta / log_pi.shape[1]
    miss = best_response(bandit, log_pi) - log_pi
    direction = np.empty_like(miss)
    for prompt, (pi, missing) in enumerate(zip(np.exp(log_pi), miss, strict=True)):
        support = np.flatnonzero(pi > least)
        preference, mass = bandit.game.against(prompt, support), pi[support]
        slope = (preference - (preference @ mass)[:, None]) * mass / bandit.beta
        inside = np.linalg.solve(np.eye(len(support)) - slope[support], missing[support])
        direction[prompt] = missing + slope @ inside
    return direction


def _residual(bandit: Bandit, log_pi: Array) -> float:
    return float(np.abs(best_response(bandit, log_pi) - log_pi).max())
