"""The risks of WIND: proper scores of a predicted win rate s against an estimate v of it.

Method: "Faster WIND: Accelerating Iterative Best-of-N Distillation for LLM Alignment" (AISTATS 2025,
arXiv 2410.20727). The formulas are this project's derivation, proved in `tests/unit/test_risks.py`.

Each risk has the gradient (s - v)·w(s) with w > 0. It is linear in v, so that a noisy v of mean P(y > pi_t) has its
least mean risk at s = P(y > pi_t).

The logarithms of `kl` and `nce` end where s leaves (0, 1), as s = h + c may. From a distance eps on, the risk
continues with the weight w frozen: the parabola of the same value and gradient whose least value is at s = v. Its
curvature is the expectation of the second derivative there. The second-order Taylor expansion of a single response's
risk does worse: its curvature of v/eps² for winners drowns all else, its least value for v = 1 lies near s = 2 (`kl`),
and for v = 0 it is concave and falls without end (`nce`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def squared(s: Tensor, v: Tensor) -> Tensor:
    """(s - v)²; w = 2. Any s; s and v broadcast, and so does the result."""
    return (s - v).square()


def kl(s: Tensor, v: Tensor, *, eps: float) -> Tensor:
    """-v·log s - (1 - v)·log(1 - s), in nats; w = 1 / [s·(1 - s)]. Shapes as in `squared`.

    Args:
        s: predicted win rate; beyond [eps, 1 - eps] the weight is frozen.
        v: win rate in [0, 1].
        eps: in (0, 1/2).
    """
    inside = s.clamp(eps, 1 - eps)
    value = -v * inside.log() - (1 - v) * (-inside).log1p()
    return value + _beyond(s, v, inside, 1 / (inside * (1 - inside)))


def nce(s: Tensor, v: Tensor, *, eps: float) -> Tensor:
    """-2v·log[2s / (1 + 2s)] + log(1 + 2s), in nats; w = 2 / [s·(1 + 2s)]. Shapes as in `squared`.

    Noise-contrastive estimation of the density ratio 2s of winners to samples of pi_t: a sample y stands among the
    winners with weight 2v, whose mean is 1, and among the noise with weight 1.

    Args:
        s: predicted win rate; below eps the weight is frozen.
        v: win rate in [0, 1].
        eps: > 0.
    """
    inside = s.clamp(min=eps)
    value = -2 * v * (2 * inside / (1 + 2 * inside)).log() + (2 * inside).log1p()
    return value + _beyond(s, v, inside, 2 / (inside * (1 + 2 * inside)))


def _beyond(s: Tensor, v: Tensor, inside: Tensor, weight: Tensor) -> Tensor:
    """What a risk gains from `inside` to s at frozen weight: w·[(s - v)² - (inside - v)²] / 2; 0 where s is inside."""
    return weight / 2 * ((s - v).square() - (inside - v).square())
