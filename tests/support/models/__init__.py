"""Tiny models with random weights, tokenizers and model files."""
