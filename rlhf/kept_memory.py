"""Freed memory that stays with the process while it computes.

Each micro-batch frees hundreds of megabytes and asks for as many again. The C library would give them back to the
system in between, which fills every page with zeros before it lends it again: 5 to 10 % of an update's time.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEEP = 2**30
USUAL = 2**25  # what glibc itself comes to at most


@contextmanager
def memory_kept() -> Iterator[None]:
    """Within it, what is freed is kept for the next that asks; at its end what is free goes back. Only with glibc."""
    if (library := _glibc()) is None:
        yield
        return
    library.mallopt(M_MMAP_THRESHOLD, KEEP)
    library.mallopt(M_TRIM_THRESHOLD, KEEP)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_THRESHOLD, USUAL)
        library.mallopt(M_TRIM_THRESHOLD, 2 * USUAL)
        give_back()


def give_back() -> None:
    """Give back what is free. By itself it would stay, where it lies between what is in use."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None
