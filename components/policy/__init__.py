"""Policies: model and tokenizer as a Hugging Face directory holds them, adapters, log-probs."""
