"""What stands in a run's `history`, column by column."""

COLUMNS = [
    "iteration", "algorithm", "win_rate", "win_rate_low", "win_rate_high", "win_rate_previous", "kl",
    "reward_mean", "response_length", "prompts", "responses", "truncated", "tokens_generated",
    "seconds_generate", "seconds_score", "seconds_train", "seconds_evaluate", "micro_batch_size",
    "kl_token", "risk_before", "risk_after", "winners_moved", "winners_target", "losers_moved", "losers_target",
    "kl_step", "kl_step_token", "tied", "win_rate_lc", "win_rate_lc_low", "win_rate_lc_high",
    "response_length_reference", "truncated_reference", "distinct_1", "distinct_1_reference", "distinct_2",
    "distinct_2_reference", "distinct_3", "distinct_3_reference", "distinct_1_across", "distinct_1_across_reference",
    "distinct_2_across", "distinct_2_across_reference", "distinct_3_across", "distinct_3_across_reference",
    "repetition", "repetition_reference", "similarity", "similarity_reference", "text_warnings", "warnings",
]  # fmt: skip
COUNTS = ["iteration", "prompts", "responses", "tokens_generated", "micro_batch_size"]
TEXTS = ["algorithm", "text_warnings", "warnings"]
NOT_ASKED_FOR = ["similarity", "similarity_reference"]  # without a model for it
