"""Large buffers of a process on the CPU."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of glibc's mallopt, see malloc.h


def reuse() -> None:
    """Lets the C library keep freed buffers for the next ones, where it is glibc.

    Otherwise each large tensor is a mapping of its own, and the kernel clears its pages anew: 35 ms for 64 MB.
    The price is memory, since what is kept has gaps.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)
