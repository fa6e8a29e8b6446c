"""Keeping the memory that a training step frees.

A step allocates and frees the same large tensors over and over. glibc hands each block above 128 KiB back to the kernel
at once, and the next step pays a page fault for every 4 KiB of it again: a third of a step and more on small models.
"""

from __future__ import annotations

import ctypes
import ctypes.util

# Parameters of mallopt(3), from <malloc.h>; the values are the largest that its `int` takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Ask the allocator of this process to reuse large blocks instead of unmapping them. A no-op without glibc."""
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST)
