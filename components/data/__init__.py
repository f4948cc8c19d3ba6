"""What flows from stage to stage: prompts, responses, their judgements, and seeds."""
