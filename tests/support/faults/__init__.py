"""Kills and faults of the network, and what has to be true after them."""
