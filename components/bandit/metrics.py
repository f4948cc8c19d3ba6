"""How far a policy is from the equilibrium; `solver` finds the equilibrium.

The equilibrium maximises, against itself, E P(y > pi*) - beta·KL(pi* || pi_ref), so pi* ∝ pi_ref·exp(P(y > pi*)/beta).
"""

from __future__ import annotations

from components.bandit.games import Bandit
from components.bandit.policies import Array, kl, normalise


def best_response(bandit: Bandit, log_pi: Array) -> Array:
    """The policy that does best against pi: ∝ pi_ref·exp(P(y > pi)/beta), shape (n, Y)."""
    return normalise(bandit.log_ref + bandit.game.win_rate(log_pi) / bandit.beta)


def duality_gap(bandit: Bandit, log_pi: Array) -> Array:
    """Duality gap of each prompt, shape (n,): >= 0, and 0 only at the equilibrium. Needs no equilibrium.

    2·max_p [E_p P(y > pi) - beta·KL(p || pi_ref)] + 2·beta·KL(pi || pi_ref) - 1. With p the best response and
    E_pi P(y > pi) = 1/2 this is 2·beta·KL(pi || p), which is computed here: it does not cancel near the equilibrium.
    """
    gap: Array = 2 * bandit.beta * kl(log_pi, best_response(bandit, log_pi))
    return gap


def extragradient_step_size(beta: float) -> float:
    """Largest step size proved to converge: 1/(2·(beta + max |payoff|)); the payoff P - 1/2 is at most 1/2."""
    return 1 / (1 + 2 * beta)


def extragradient_step(bandit: Bandit, log_pi: Array, eta: float) -> Array:
    """One step of predictive update: a trial step, then the same step with the win rates against the trial.

    pi_{t+1} ∝ pi_t^(1-eta·beta)·pi_ref^(eta·beta)·exp(eta·P(y > trial)). Source: Cen, Wei, Chi, "Fast Policy
    Extragradient Methods for Competitive Games with Entropy Regularization", arXiv 2105.15186. There both players
    are regularised by entropy; here by the KL to the reference, and both play the same policy.
    """
    keep = 1 - eta * bandit.beta
    start = keep * log_pi + eta * bandit.beta * bandit.log_ref
    trial = normalise(start + eta * bandit.game.win_rate(log_pi))
    return normalise(start + eta * bandit.game.win_rate(trial))
