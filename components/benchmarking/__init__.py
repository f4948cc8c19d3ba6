"""What a policy is worth by an outside benchmark, and how two of them compare; the command is in `__main__`."""
