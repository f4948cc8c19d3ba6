"""One policy, fitted to prompts while its loss and log-probs are monitored."""

from __future__ import annotations

import numpy as np

from components.config.sections import TrainingConfig
from components.data.records import Ragged, Rollout, Scored
from components.policy.logprobs import score_responses
from components.training.loop import Schedule
from components.training.monitor import Monitor
from components.training.off_policy import train
from components.training.optimizer import make_optimizer
from components.training.state import TrainingState
from support.models.tiny import EOS, WORDS, make_prompts


def settings(**changed):
    values = {
        "batch_size": 4,
        "micro_batch_size": 4,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup_ratio": 0.0,
    }
    return TrainingConfig(**values | changed)


def one_word(policy, *, n, words):
    """One-word responses to each of n prompts, the first beats the second and so on; the reference is the policy."""
    prompts = make_prompts(n)
    rows = [[WORDS.index(word), EOS] for _ in prompts for word in words]
    k = len(words)
    tokens, responses = Ragged.of([policy.encode(p) for p in prompts]), Ragged.of(rows)
    logp = score_responses(policy, tokens, responses)
    rollout = Rollout([p.id for p in prompts], tokens, responses, [*words] * n, np.ones((n, k), bool))
    beats = np.triu(np.ones((k, k)), 1) + np.eye(k) / 2
    return Scored(rollout, logp, logp, np.tile(beats, (n, 1, 1)), np.full((n, k), np.nan))


def begin(policy, config):
    return TrainingState(policy, make_optimizer(policy, config), config.micro_batch_size)


def fit(state, data, algorithm, config, saved=lambda _: None, seed=0):
    """Trains one iteration, monitored; the monitor."""
    schedule = Schedule(config, 1, 1, seed)
    monitor = Monitor.of(data, algorithm, schedule)
    train(state, data, algorithm, schedule, saved=monitor.around(saved))
    return monitor
