"""Freed memory that stays with the process.

Each micro-batch frees hundreds of megabytes and asks for as many again. The C library would give them back to the
system in between, which fills every page with zeros before it lends it again: on a virtual machine, a third of an
update's time. So the process keeps what it has had, and gives it back when it begins to wait.
"""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEEP = 2**30  # bytes: an allocation beyond it still goes back at once
ALL = 2**31 - 1


def keep_memory() -> None:
    """From now on what is freed is kept for whoever asks next. Does something with glibc only."""
    if (library := _glibc()) is not None:
        library.mallopt(M_MMAP_THRESHOLD, KEEP)
        library.mallopt(M_TRIM_THRESHOLD, ALL)


def give_back() -> None:
    """Give back what is free, before a wait. By itself it would stay, where it lies between what is in use."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None
