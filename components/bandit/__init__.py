"""Exact laboratory: contextual bandits small enough to compute every policy, win rate and equilibrium exactly.

Policies are float64 natural log-probs of shape (n, Y): n prompts, Y responses each. Symbols are those of WIND,
"Faster WIND: Accelerating Iterative Best-of-N Distillation for LLM Alignment" (AISTATS 2025, arXiv 2410.20727).
"""
