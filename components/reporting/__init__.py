"""A run's results as text, charts and cards."""
