"""Algorithms side by side, on one task: what a comparison runs, and what its results say."""
