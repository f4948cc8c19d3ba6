"""Flows as a user runs them, and faults to inject."""
