"""What `start` learns about the judge from its verdicts on the reference's responses to the held-out prompts."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from components.data.records import Prompt, Rollout
from components.judges import Judgement
from components.judges._orders import consistency
from components.stages import sampling
from components.stages.context import Workspace
from components.training import ties

logger = logging.getLogger(__name__)


def judge(work: Workspace, held_out: Sequence[Prompt], responses: Rollout) -> Judgement:
    """The verdicts; says how far they follow the order of two responses, and warns of what they foretell."""
    judgement = sampling.judge(work.config.judge, held_out, [responses], work.progress("judge responses"))
    if foretold := ties.at_start(judgement):
        logger.warning("%s", foretold)
    for said, warns in consistency(judgement.orders):
        if warns:
            logger.warning("%s", said)
        else:
            print(said)
    return judgement
