"""Properties of the derivation: what WIND's loss lands on, its targets, and the log-probs it is fed with.

* Exact update: each risk and normaliser, minimised over a tabular softmax policy, lands on the update of wind.py's
  docstring, with exact expectations over responses or over all groups of K.
* Leave-one-out win rates are unbiased. See also test_judges.py.
* Log-probs agree with a plain fp64 computation. test_logprobs.py has the fp64 paths, gradients and memory.
"""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from components.algorithms import Group, leave_one_out
from components.algorithms.wind import Wind, relative_logp
from components.data.records import Ragged
from components.policy.logprobs import collate, response_logprobs, score_responses
from support.tensors import tensor

# A game over six responses that is not transitive: 0 beats 1 beats 2 beats 0, and with ties.
GAME = np.array(
    [
        [0.5, 0.9, 0.1, 0.5, 0.7, 1.0],
        [0.1, 0.5, 0.8, 0.5, 0.5, 0.6],
        [0.9, 0.2, 0.5, 0.3, 0.5, 0.9],
        [0.5, 0.5, 0.7, 0.5, 0.0, 0.5],
        [0.3, 0.5, 0.5, 1.0, 0.5, 0.2],
        [0.0, 0.4, 0.1, 0.5, 0.8, 0.5],
    ]
)
COUNTS = np.array([1, 2, 3, 4, 5, 5])
PI_OLD = COUNTS / COUNTS.sum()
PI_REF = np.array([0.3, 0.1, 0.15, 0.05, 0.2, 0.2])
WIN_RATE = GAME @ PI_OLD
RISKS = ["squared", "kl", "nce"]
GAMES = [(0.3, 2.0), (0.02, 10.0), (0.0, 4.0)]  # beta, eta


def exact_update(beta, eta, pi_ref=PI_REF):
    """pi_{t+1} = [pi_t · pi_ref^(beta·eta) · exp(eta·P(· > pi_t))]^(1 / (1 + beta·eta)) / Z, and Z."""
    unnormalised = (PI_OLD * pi_ref ** (beta * eta) * np.exp(eta * WIN_RATE)) ** (1 / (1 + beta * eta))
    return unnormalised / unnormalised.sum(), unnormalised.sum()


def minimiser(loss, responses, win_rate, probability, pi_ref=PI_REF):
    """The tabular softmax policy of least mean loss, by LBFGS in fp64.

    Rows are groups (n, m) of responses with their win rates (n, m) and the probability (n,) of the group.
    """
    fixed = [tensor(a) for a in (np.log(PI_OLD)[responses], np.log(pi_ref)[responses], win_rate)]
    weights = tensor(probability)[:, None] / responses.shape[1]
    logits = tensor(np.zeros(len(GAME))).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        mean = (weights * loss(Group(torch.log_softmax(logits, 0)[responses], *fixed))).sum()
        mean.backward()
        return mean

    optimizer.step(closure)
    return torch.softmax(logits.detach(), 0).numpy()


def over_responses(loss, pi_ref=PI_REF, copies=1):
    """`minimiser` for one group that is pi_t itself: each response stands in it in proportion, with its exact P."""
    responses = np.repeat(np.arange(len(GAME)), copies * COUNTS)[None]
    return minimiser(loss, responses, WIN_RATE[responses], np.ones(1), pi_ref)


def over_groups(loss, k):
    """`minimiser` over all 6^K groups of K draws, each with its probability and leave-one-out win rates."""
    responses = np.array(list(itertools.product(range(len(GAME)), repeat=k)))
    win_rate = leave_one_out(GAME[responses[:, :, None], responses[:, None, :]])
    return minimiser(loss, responses, win_rate, PI_OLD[responses].prod(1))


def total_variation(p, q):
    return np.abs(p - q).sum() / 2


@pytest.mark.parametrize(("beta", "eta"), GAMES)
def test_exact_normaliser_lands_on_the_exact_update(beta, eta):
    exact, z = exact_update(beta, eta)
    c = (1 + beta * eta) / eta * math.log(z)
    policy = over_responses(lambda g: (relative_logp(g, beta=beta, eta=eta) + c - g.win_rate).square())
    assert total_variation(policy, exact) < 1e-4


@pytest.mark.thorough
@pytest.mark.parametrize(("beta", "eta"), GAMES)
@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize(("normalizer", "copies"), [("monte_carlo", 200), ("group", 200), ("mixed", 200)])
def test_consistent_normalisers_land_on_the_exact_update(risk, normalizer, copies, beta, eta):
    """A response is left out of its group's mean: that is an expectation in the limit of large groups, here 4000."""
    wind = Wind(clip=None, risk=risk, normalizer=normalizer, beta=beta, eta=eta)
    exact, _ = exact_update(beta, eta)
    assert total_variation(exact, PI_OLD) > 0.05
    assert total_variation(over_responses(wind.loss, copies=copies), exact) < 1e-4


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize(("beta", "eta"), GAMES)
def test_group_with_the_squared_risk_is_exact_at_every_size(k, beta, eta):
    """With the plain loss over all pairs, both means with the response itself, the step would be K/(K-1) too long."""

    def all_pairs(group):
        centred = relative_logp(group, beta=beta, eta=eta) - group.win_rate
        return (centred - centred.mean(-1, keepdim=True)).square()

    exact, _ = exact_update(beta, eta)
    assert total_variation(over_groups(Wind(clip=None, normalizer="group", beta=beta, eta=eta).loss, k), exact) < 1e-4
    if beta == 0:
        longer, _ = exact_update(beta, k / (k - 1) * eta)
        assert total_variation(over_groups(all_pairs, k), longer) < 1e-4
        assert total_variation(longer, exact) > 0.02


@pytest.mark.parametrize("risk", ["kl", "nce"])
def test_group_with_other_risks_nears_the_exact_update_with_its_size(risk):
    """Not linear in s, they feel the noise of the group's mean: of order 1/K."""
    exact, _ = exact_update(0.0, 4.0)
    wind = Wind(clip=None, risk=risk, normalizer="group", beta=0.0, eta=4.0)
    two, five = (total_variation(over_groups(wind.loss, k), exact) for k in (2, 5))
    assert five < two / 2
    assert five < 0.04 * total_variation(exact, PI_OLD)


ORDER_TWO = [
    ({"risk": "squared"}, PI_REF),
    ({"risk": "kl"}, PI_OLD),
    ({"risk": "nce"}, PI_OLD),
    *(({"risk": risk, "normalizer": "mixed", "mean_normalizer": "constant"}, PI_REF) for risk in RISKS),
]


@pytest.mark.thorough(but=["settings0"])
@pytest.mark.parametrize(("settings", "pi_ref"), ORDER_TWO)
def test_constant_lands_on_the_exact_update_as_eta_falls(settings, pi_ref):
    """A wrong c moves log pi by a constant that normalisation takes back; what remains is of order eta².

    The update itself is of order eta, so the error vanishes beside it.
    """
    etas = np.array([0.4, 0.2, 0.1, 0.05, 0.025])
    errors, moves = [], []
    for eta in etas:
        exact, _ = exact_update(0.3, eta, pi_ref)
        loss = Wind(clip=None, beta=0.3, eta=eta, **settings).loss
        errors.append(total_variation(over_responses(loss, pi_ref, copies=500), exact))
        moves.append(total_variation(exact, PI_OLD))
    assert np.polyfit(np.log(etas), np.log(errors), 1)[0] > 1.8
    assert errors[-1] < 1e-4
    assert errors[-1] < 0.01 * moves[-1]


@pytest.mark.parametrize(
    ("risk", "inverse_weight"), [("kl", WIN_RATE * (1 - WIN_RATE)), ("nce", WIN_RATE / 2 + WIN_RATE**2)]
)
def test_constant_is_linear_in_eta_where_the_risk_weighs_responses_unequally(risk, inverse_weight):
    """c = 1/2 is beta·KL(pi_t || pi_ref) too high. Where Σ pi_t·w(P)·(s - P)² is least, s - P is in proportion to
    1/w(P), with mean beta·KL, for a small beta. Its deviation from that mean, times eta, stays in log pi: beside the
    update it does not vanish with eta, only with beta·KL.
    """
    beta, kl = 0.004, PI_OLD @ np.log(PI_OLD / PI_REF)
    slope = beta * kl / 2 * PI_OLD @ np.abs(inverse_weight / (PI_OLD @ inverse_weight) - 1)
    for eta in (0.01, 0.005, 0.0025):
        exact, _ = exact_update(beta, eta)
        error = total_variation(over_responses(Wind(clip=None, beta=beta, eta=eta, risk=risk).loss), exact)
        assert error == pytest.approx(slope * eta, rel=0.03)


@pytest.mark.parametrize("k", [2, 4])
def test_leave_one_out_is_unbiased_where_counting_oneself_is_not(k):
    """1e5 groups around each response; with the tie with oneself, the mean is (1/2 - P)/K off."""
    rng, groups = np.random.default_rng(0), 100_000
    for y in range(len(GAME)):
        responses = rng.choice(len(GAME), size=(groups, k), p=PI_OLD)
        responses[:, 0] = y
        preference = GAME[responses[:, :, None], responses[:, None, :]]
        win_rate, with_self = leave_one_out(preference)[:, 0], preference.mean(-1)[:, 0]
        limit = 4 * win_rate.std(ddof=1) / math.sqrt(groups)
        assert abs(win_rate.mean() - WIN_RATE[y]) < limit
        assert abs(with_self.mean() - WIN_RATE[y]) > limit
        assert abs(with_self.mean() - WIN_RATE[y] - (0.5 - WIN_RATE[y]) / k) < limit


def responses_and_logits(model):
    """Prompts and responses of 1 to 8 tokens, and the fp64 logits before each response token, without padding."""
    rng = np.random.default_rng(0)
    prompts, responses = ([rng.integers(6, 60, n) for n in rng.integers(1, 9, 64)] for _ in range(2))
    logits = []
    with torch.no_grad():
        for prompt, response in zip(prompts, responses, strict=True):
            ids = torch.tensor([*prompt, *response])[None]
            logits.append(model(input_ids=ids).logits[0, len(prompt) - 1 : -1])
    return prompts, responses, logits


def padded(policy, prompts, responses, tokens_per_chunk):
    with torch.no_grad():
        batch = collate(prompts, responses, policy.pad_id, policy.device)
        return response_logprobs(policy, batch, tokens_per_chunk * 60).double()


def exact_logprobs(responses, logits):
    picked = [rows.log_softmax(-1)[range(len(r)), r].sum() for r, rows in zip(responses, logits, strict=True)]
    return torch.stack(picked)


@pytest.mark.thorough
def test_logprobs_in_fp32_agree_with_fp64(model, make_policy):
    """Padded, in one chunk and in many, and through the batches of the scoring step."""
    prompts, responses, logits = responses_and_logits(copy.deepcopy(model).double())
    exact, policy = exact_logprobs(responses, logits), make_policy(model)
    for tokens_per_chunk in (1, 7, 1000):
        logp = padded(policy, prompts, responses, tokens_per_chunk)
        torch.testing.assert_close(logp, exact, rtol=1e-5, atol=0)
    scores = score_responses(policy, Ragged.of(prompts), Ragged.of(responses), tokens_per_batch=40)
    np.testing.assert_allclose(scores[:, 0], exact, rtol=1e-5)


def test_logprobs_in_fp64_agree_through_the_scoring_step(model, make_policy):
    prompts, responses, logits = responses_and_logits(model.double())
    scores = score_responses(make_policy(model), Ragged.of(prompts), Ragged.of(responses), tokens_per_batch=40)
    np.testing.assert_allclose(scores[:, 0], exact_logprobs(responses, logits), rtol=0, atol=1e-10)


@pytest.mark.thorough
def test_logprobs_under_bf16_autocast_agree_to_the_resolution_of_bf16(model, make_policy):
    """About a dozen matrix products in a row round to 8 bits: an error of √12·2⁻⁸ = 3.5·2⁻⁸ of the logits' spread.

    Tokens err independently, so that the error of a response grows as the root of its length. Twice that is allowed.
    """
    prompts, responses, logits = responses_and_logits(copy.deepcopy(model).double())
    error = padded(make_policy(model, precision="bf16"), prompts, responses, 7) - exact_logprobs(responses, logits)
    lengths = torch.tensor([len(r) for r in responses])
    rms = (error.square() / lengths).mean().sqrt()
    resolution = 2**-8 * torch.cat(logits).std()
    assert 0.1 * resolution < rms < 7 * resolution
