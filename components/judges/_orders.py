"""How far a judge that is shown two responses in both orders follows the responses, and how far their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

TIE = 1e-9  # a preference so near to 1/2 is none
FOLLOWS_ORDER = 0.5  # share of pairs with one winner: the order alone gives 0, a toss of coins 1/2


def wins(preference: NDArray[np.float64]) -> NDArray[np.float64]:
    """1, 0 or, for a tie, 1/2."""
    return np.where(np.abs(preference - 0.5) < TIE, 0.5, (preference > 0.5).astype(np.float64))


def same_winner(orders: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where both orders of a pair give the same winner or both a tie, else 0, (P,).

    Args:
        orders: (P, 2), P(the first shown wins) with one of the two and with the other shown first.
    """
    first = wins(orders)
    same: NDArray[np.float64] = (first[:, 0] == 1 - first[:, 1]).astype(np.float64)
    return same


def both_orders(
    first_wins: NDArray[np.float64], responses: Sequence[Sequence[str]], chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The pairs of unlike texts in both orders, (P, 2): what is shown twice alike says nothing about its order.

    Args:
        first_wins: (n, K, K), entry [i, j] P(y_i > y_j) with y_i shown first.
        responses: n rows of K texts.
        chosen: (n, K, K) symmetric, which of them were shown.
    """
    pairs = [(i, a, b) for i, a, b in np.argwhere(np.triu(chosen, 1)).tolist() if responses[i][a] != responses[i][b]]
    return np.array([[first_wins[i, a, b], first_wins[i, b, a]] for i, a, b in pairs]).reshape(-1, 2)


def consistency(orders: Mapping[str, NDArray[np.float64]]) -> Iterable[tuple[str, bool]]:
    """A sentence for each judge in `Judgement.orders` with a pair, and whether it is a warning."""
    for name, pairs in orders.items():
        if not len(pairs):
            continue
        same = same_winner(pairs)
        count = f"{100 * same.mean():.0f}% of {len(same):,} pairs ({int(same.sum()):,})"
        said = f"{name}: gives the same winner when the order of two responses is swapped in {count}."
        if same.mean() > FOLLOWS_ORDER:
            yield said, False
        else:
            yield f"{said} {_CONSEQUENCE}", True


_CONSEQUENCE = (
    "Position alone would give 0%, a toss of coins 50%: most verdicts follow the order, and the mean over both says "
    "little about the responses. See it on labelled pairs with `wind judge`, change its prompt, or take a better model."
)
