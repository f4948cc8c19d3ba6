"""The machine: GPUs, processes, temporary folders, progress."""
