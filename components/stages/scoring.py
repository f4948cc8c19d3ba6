"""Log-probs of responses: drawing them in fp32 has shown those under their policy, others take a pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from components.algorithms import Algorithm
from components.data.records import Rollout, Scored
from components.judges import Judgement
from components.stages.context import Workspace
from components.store import Manifest

if TYPE_CHECKING:
    from components.policy.model import Policy


def scored(work: Workspace, policy: Manifest, reference: Manifest, responses: Rollout, judgement: Judgement) -> Scored:
    """Judged responses of a policy with its log-probs and the reference's, token by token if training wants them."""
    algorithm, verdicts = work.config.algorithm, (judgement.preference, judgement.reward)
    if not (isinstance(algorithm, Algorithm) and algorithm.needs_tokens):
        known = _known(responses)
        old = _sums(work, work.policy(policy), responses, "policy") if known is None else known
        ref = old if policy == reference else of_reference(work, work.policy(reference), responses)
        return Scored(responses, old, ref, *verdicts)
    drawn = responses.token_logp
    tokens = _tokens(work, work.policy(policy), responses, "policy") if drawn is None else drawn
    tokens_ref = tokens if policy == reference else _tokens(work, work.policy(reference), responses, "reference")
    old, ref = (_summed(responses, figures) for figures in (tokens, tokens_ref))
    return Scored(responses, old, ref, *verdicts, tokens, tokens_ref)


def of_own(work: Workspace, policy: Policy, responses: Rollout) -> NDArray[np.float64]:
    """Log-probs of responses under the policy that drew them, (n, K)."""
    known = _known(responses)
    return _sums(work, policy, responses, "policy") if known is None else known


def of_reference(work: Workspace, reference: Policy, responses: Rollout) -> NDArray[np.float64]:
    """Log-probs of responses under the reference, (n, K)."""
    return _sums(work, reference, responses, "reference")


def _known(responses: Rollout) -> NDArray[np.float64] | None:
    return None if responses.token_logp is None else _summed(responses, responses.token_logp)


def _summed(responses: Rollout, figures: NDArray[np.float32]) -> NDArray[np.float64]:
    """Figures of tokens, (total,), as those of responses, (n, K)."""
    return responses.tokens.sums(figures).reshape(responses.shape)


def _sums(work: Workspace, policy: Policy, responses: Rollout, name: str) -> NDArray[np.float64]:
    from components.policy.logprobs import score_responses

    shown = work.progress(f"log-probs under the {name}")
    return score_responses(policy, responses.prompt_tokens, responses.tokens, progress=shown)


def _tokens(work: Workspace, policy: Policy, responses: Rollout, name: str) -> NDArray[np.float32]:
    from components.policy.logprobs import score_tokens

    shown = work.progress(f"log-probs under the {name}")
    return score_tokens(policy, responses.prompt_tokens, responses.tokens, progress=shown)
