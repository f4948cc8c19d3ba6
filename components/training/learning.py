"""Whether an iteration's training learned: its risk, how far log-probs moved, and warnings with a remedy.

All figures are of the monitored responses, which are among those trained on: what training does to its own data, not
how good the policy is, which `evaluation` measures on held-out prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from components.algorithms import Algorithm
    from components.config.sections import TrainingConfig

COLUMNS = (
    "risk_before", "risk_after", "winners_moved", "winners_target", "losers_moved", "losers_target",
    "kl_step", "kl_step_token",
)  # fmt: skip

# Training lowers the risk of its own data or leaves it; a rise of 1 % can be a policy that hardly moves.
RISE = 0.05
# Near its least the risk goes up and down with each step. A later pass counts that takes back a quarter of what those
# before it had gained.
TAKEN_BACK = 0.25
TINY = 1e-6  # mean loss that is rounding
# A rise on few prompts may be chance: it counts from two standard errors of its mean. One that doubles the risk counts
# from one: overshooting hits some prompts a hundred times harder than others, which makes that error large.
# A policy gradient's loss is 0 before training, so any rise is a multiple of it: from three.
CLEAR, DOUBLED, FROM_NOTHING = 2.0, 1.0, 3.0
# The demo moves winners and losers apart by a quarter to a half of the target in each iteration. Where fifty iterations
# would take them there, the judge and the sampler work in vain.
HARDLY = 0.02
# A target further away gives the direction and is not meant to be reached: half a nat is a move.
FAR = 25.0  # nats between winners' and losers' targets
# A policy that moved winners and losers alike, by a tenth of the target's distance or more, needs no higher rate.
STILL = 0.1
# Beyond twice the target the squared risk is higher than before training. Where a loss holds only differences of
# log-probs, their level may drift so far unseen; the target's mean over few responses can be near 0, so not 2.
BEYOND = 5.0
# Sound iterations raised winners, or let them fall by a nat; those that unlearned let them fall by 4 to 11 nats.
FELL = 3.0  # nats per response
# Whole alignment runs end at 0.01 to 0.2 nats per token from the reference, and sampled text has 1 to 3 nats of
# entropy per token. A single iteration that gives up half a nat of each token has another policy before it.
FALL = 0.5
# An answer of a word or two is right or wrong as a whole, and unlearning a wrong one may take some nats of it.
SHORT = 8  # tokens; a shorter response counts as so many


@dataclass(frozen=True)
class Seen:
    """What training did to m of the K responses to each of n prompts."""

    risk: NDArray[np.float64]  # (passes + 1, n), mean loss of a prompt's responses: before training, after each pass
    moved: NDArray[np.float64]  # (n, m), log pi_theta - log pi_t after the last pass, nats
    target: NDArray[np.float64]  # (n, m), the move at which the loss is least; NaN where there is none
    win_rate: NDArray[np.float64]  # (n, m)
    tokens: NDArray[np.int64]  # (n, m), lengths
    sample: bool  # whether the m are all K, so a sample of pi_t

    @property
    def passes(self) -> int:
        """How often training has visited each prompt."""
        return len(self.risk) - 1

    def fall(self) -> float:
        """log pi_t - log pi_theta, mean over responses, nats."""
        return -float(self.moved.mean())

    def winners(self, values: NDArray[np.float64]) -> float:
        """Mean of (n, m) values over responses with v > 1/2; NaN if there are none."""
        return _mean(values[self.win_rate > 0.5])

    def losers(self, values: NDArray[np.float64]) -> float:
        """Mean of (n, m) values over responses with v < 1/2; NaN if there are none."""
        return _mean(values[self.win_rate < 0.5])


def figures(seen: Seen) -> dict[str, float]:
    """`COLUMNS` by name, and `risk_1`, `risk_2` … after each pass if there are several.

    risk_before, risk_after: mean loss under pi_t and under pi_{t+1}, in the loss's own unit.
    winners_moved, losers_moved: mean log pi_{t+1} - log pi_t of responses with v > 1/2 and v < 1/2, nats per response.
    winners_target, losers_target: what that would be where the loss is least; NaN for losses without such a place.
    kl_step: mean log pi_t - log pi_{t+1} over responses of pi_t, the plain estimate of KL(pi_t || pi_{t+1}), nats per
        response. It may be negative. Lower than the true KL, since training raised winners among these very responses.
        The estimator exp(r) - 1 - r of r = log pi_{t+1} - log pi_t has the same mean and is never negative, but a
        single response at r = 10 outweighs 20,000 others. NaN where an algorithm trains on a selection of the K
        responses, the best and the worst say, which is no sample of pi_t.
    kl_step_token: the same in nats per token, summed log-ratios over all tokens.
    """
    risks = seen.risk.mean(1).tolist()
    fall = seen.fall() if seen.sample else math.nan
    passes = {f"risk_{number}": risk for number, risk in enumerate(risks[1:], 1)} if seen.passes > 1 else {}
    return {
        "risk_before": risks[0],
        "risk_after": risks[-1],
        "winners_moved": seen.winners(seen.moved),
        "winners_target": seen.winners(seen.target),
        "losers_moved": seen.losers(seen.moved),
        "losers_target": seen.losers(seen.target),
        "kl_step": fall,
        "kl_step_token": fall / float(seen.tokens.mean()),
        **passes,
    }


def warnings(seen: Seen, algorithm: Algorithm, settings: TrainingConfig, *, pace: float = 1.0) -> str:
    """What went wrong and how to fix it, a sentence each and its remedy; empty if nothing did.

    `pace` is the iteration's mean learning rate as a share of `training.learning_rate`: where the schedule ends, a
    policy should hardly move.
    """
    found = [text for text in (_rose(seen, algorithm, settings), _ran_away(seen, algorithm, settings)) if text]
    hardly = None if found else _hardly_moved(seen, algorithm, settings, pace)
    return " ".join([*found, *([hardly] if hardly else [])])


def _rose(seen: Seen, algorithm: Algorithm, settings: TrainingConfig) -> str | None:
    """The largest clear rise, over the iteration or within a pass after the first."""
    risk, passes = seen.risk.mean(1), seen.passes
    spans = [(0, passes)] if _clear(seen.risk[0], seen.risk[-1]) else []
    spans += [
        (p - 1, p)
        for p in range(2, passes + 1)
        if _clear(seen.risk[p - 1], seen.risk[p]) and risk[p] - risk[p - 1] > TAKEN_BACK * (risk[0] - risk[:p].min())
    ]
    if not spans:
        return None
    a, b = max(spans, key=lambda span: risk[span[1]] - risk[span[0]])
    where = f"in pass {b} of {passes}" if a else "over the iteration"
    return (
        f"The risk rose from {risk[a]:.3g} to {risk[b]:.3g} {where}: training overshot. "
        f"{_remedy([_lower_rate(settings), _fewer_epochs(settings), _further(algorithm)])}"
    )


def _clear(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether risks (n,) of the same prompts rose by more than `RISE`, and by more than chance would have it."""
    rises, level = after - before, abs(before.mean())
    rise = rises.mean()
    if len(rises) < 2 or rise <= RISE * level:
        return False
    enough = FROM_NOTHING if level < TINY else DOUBLED if rise > level else CLEAR
    return bool(rise > enough * rises.std(ddof=1) / math.sqrt(len(rises)))


def _ran_away(seen: Seen, algorithm: Algorithm, settings: TrainingConfig) -> str | None:
    moves = {"winners": seen.winners(seen.moved), "losers": seen.losers(seen.moved)}
    targets = {"winners": seen.winners(seen.target), "losers": seen.losers(seen.target)}
    name = max(moves, key=lambda side: np.nan_to_num(abs(moves[side])))
    furthest = max((abs(target) for target in targets.values() if not math.isnan(target)), default=math.inf)
    if abs(moves[name]) > BEYOND * furthest:
        return (
            f"Log-probs of {name} moved by {moves[name]:+.3g} nats per response, where the algorithm asks for "
            f"{targets[name]:+.3g}: training ran away. {_remedy([_lower_rate(settings), _fewer_epochs(settings)])}"
        )
    if targets["winners"] > 0 and moves["winners"] < -FELL:
        return (
            f"Log-probs of winners fell by {-moves['winners']:.3g} nats per response, where the algorithm asks for a "
            f"rise: training overshot. {_remedy([_lower_rate(settings), _fewer_epochs(settings)])}"
        )
    fall, tokens = seen.fall(), float(seen.tokens.mean())
    if fall <= FALL * max(tokens, SHORT):
        return None
    return (
        f"Log-probs of the responses fell by {fall / tokens:.2g} nats per token: the policy left the one that drew "
        f"them. {_remedy([_lower_rate(settings), _fewer_epochs(settings), _closer(algorithm)])}"
    )


def _hardly_moved(seen: Seen, algorithm: Algorithm, settings: TrainingConfig, pace: float) -> str | None:
    won, lost = seen.winners(seen.moved), seen.losers(seen.moved)
    apart, wanted = won - lost, seen.winners(seen.target) - seen.losers(seen.target)
    how = "of winners and losers moved apart"
    if math.isnan(lost):  # none was trained on
        apart, wanted, lost, how = won, seen.winners(seen.target), 0.0, "of winners rose"
    near = min(wanted, FAR)
    if not (apart < HARDLY * pace * near and max(abs(won), abs(lost)) < STILL * near):  # nor if one of them is NaN
        return None
    more = [f"raise training.learning_rate ({settings.learning_rate:g})", f"raise training.epochs ({settings.epochs})"]
    return (
        f"Log-probs {how} by {apart:.2g} of the {wanted:.3g} nats that the algorithm asks "
        f"for: training hardly moved the policy. {_remedy([*more, _nearer(algorithm)])}"
    )


def _lower_rate(settings: TrainingConfig) -> str:
    return f"lower training.learning_rate ({settings.learning_rate:g})"


def _fewer_epochs(settings: TrainingConfig) -> str:
    return f"lower training.epochs ({settings.epochs})" if settings.epochs > 1 else ""


def _eta(verb: str, algorithm: Algorithm) -> str:
    eta = getattr(algorithm, "eta", None)
    return "" if eta is None else f"{verb} algorithm.eta ({eta:g})"


def _further(algorithm: Algorithm) -> str:
    """What puts the targets further away: up to 1 / beta, which is what holds them where eta is beyond that."""
    return _beta("lower", algorithm) if _held(algorithm) else _eta("raise", algorithm)


def _nearer(algorithm: Algorithm) -> str:
    """What puts the targets nearer; nothing of a loss without any."""
    return _beta("raise", algorithm) if _held(algorithm) else _eta("lower", algorithm)


def _closer(algorithm: Algorithm) -> str:
    """What holds a policy nearer to the previous one, or to the reference."""
    return _nearer(algorithm) or _beta("raise", algorithm)


def _held(algorithm: Algorithm) -> bool:
    """Whether beta, more than eta, says how far the targets lie: eta / (1 + beta·eta) is at most 1 / beta."""
    return float(getattr(algorithm, "eta", 0.0)) * float(getattr(algorithm, "beta", 0.0)) > 1


def _beta(verb: str, algorithm: Algorithm) -> str:
    beta = getattr(algorithm, "beta", None)
    return "" if beta is None else f"{verb} algorithm.beta ({beta:g})"


def _remedy(ways: Sequence[str]) -> str:
    *others, last = [way for way in ways if way]
    text = f"{', '.join(others)} or {last}" if others else last
    return f"{text[0].upper()}{text[1:]}."


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan
