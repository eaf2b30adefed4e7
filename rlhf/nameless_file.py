"""A file without a name, for numbers that need not be in memory. It goes when nobody holds it any more.

Lists of tensors are read and written in one call each: hundreds of small calls a forward would cost more than copying.
A page that the system has not lent before costs ten times what copying it does, on a virtual machine. So no memory is
mapped where reading does, and what needs a file again and again uses one that is there already.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import IO

import torch
from torch import Tensor

from rlhf.backbones import cache_folder

AT_ONCE = 512  # pieces of memory in one call; systems take 1024
SHARE = 16  # of memory; systems begin to write to disk what is longer than a tenth


class NamelessFile:
    """Raises OSError where there can be none, and where there is no room to write."""

    def __init__(self) -> None:
        if not hasattr(os, "preadv") or not hasattr(os, "posix_fallocate"):
            raise OSError("this system cannot read into several places at once, or make room beforehand")
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - open as long as this

    def write(self, parts: Sequence[memoryview], start: int) -> None:
        """Write the parts one behind the other, from byte `start` on."""
        _whole(os.pwritev, self._file.fileno(), parts, start)

    def read(self, parts: Sequence[memoryview], start: int) -> None:
        """Fill the parts one after the other with what stands from byte `start` on."""
        _whole(os.preadv, self._file.fileno(), parts, start)

    def make_room(self, size: int) -> None:
        """Be of this size, at least, with zeros where nothing was written; it is sure to fit then."""
        os.posix_fallocate(self._file.fileno(), 0, size)

    def pages(self) -> mmap.mmap:
        """The file as memory. It outlives this object."""
        return mmap.mmap(self._file.fileno(), 0)

    def spare(self) -> None:
        """Leave the file, pages and all, to whoever `borrow`s one next. Nothing in it counts any more."""
        _spare.append(self)


_spare: list[NamelessFile] = []


def borrow() -> NamelessFile:
    """A file that is there already, or else a new one. Raises OSError where there can be none."""
    return _spare.pop() if _spare else NamelessFile()


def drop_spare() -> None:
    """Give back the room of files that nobody uses, before a wait."""
    _spare.clear()


def _whole(
    call: Callable[[int, list[memoryview], int], int], file: int, parts: Sequence[memoryview], start: int
) -> None:
    """Repeat a call that moves as many bytes as it likes until all are moved."""
    left = [part for part in parts if len(part)]
    while left:
        moved = call(file, left[:AT_ONCE], start)
        if moved == 0:
            raise OSError("the file ends too early")
        start += moved
        full = 0
        while full < len(left) and moved >= len(left[full]):
            moved -= len(left[full])
            full += 1
        left = left[full:]
        if moved:
            left[0] = left[0][moved:]


def bytes_of(x: Tensor) -> memoryview:
    """The memory of a contiguous tensor on a CPU."""
    memory: memoryview = x.detach().flatten().view(torch.uint8).numpy().data
    return memory


def room() -> int:
    """Bytes that such a file may take."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // SHARE if hasattr(os, "sysconf") else 0
