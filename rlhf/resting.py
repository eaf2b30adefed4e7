"""Weights that rest: they lie in a file, and in memory only while somebody computes with them.

The reference is needed for one forward of an iteration, and the reward model's decoder for a few; gradients and
moments take their place while the policy learns. The system reads pages again as they are used, mostly from its cache.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlhf.backbones import device_of
from rlhf.kept_memory import give_back
from rlhf.nameless_file import NamelessFile, bytes_of

ALIGNMENT = 64  # bytes, of a vector register


@dataclass(frozen=True)
class Laid:
    """Tensors in a file. tensors: its pages, in memory only while somebody uses them. starts: each one's first byte."""

    file: NamelessFile
    pages: mmap.mmap
    tensors: list[Tensor]
    starts: list[int]

    def read(self, n: int, into: Tensor, first: int = 0) -> None:
        """Fill a contiguous tensor with the numbers of the n-th, from the first-th on. The pages are not used."""
        self.file.read([bytes_of(into)], self.starts[n] + first * into.itemsize)

    def write(self, n: int, x: Tensor, first: int = 0) -> None:
        """Put numbers into the n-th tensor, from the first-th on."""
        self.file.write([bytes_of(x.contiguous())], self.starts[n] + first * x.itemsize)

    def rest(self) -> None:
        """Let go of the pages that were used."""
        self.pages.madvise(mmap.MADV_DONTNEED)


_places: WeakKeyDictionary[nn.Module, Laid] = WeakKeyDictionary()


def lay_down(module: nn.Module) -> None:
    """Move a module's parameters into a file without a name, which goes when the module does.

    The numbers stay what they are, and writing to them still works. Nothing changes where the module is not on a CPU
    or the disk has no room.
    """
    if device_of(module).type != "cpu":
        return
    parameters = list(module.parameters())
    laid = laid_zeros([parameter.data for parameter in parameters])
    if laid is None:
        return
    try:
        for n, parameter in enumerate(parameters):
            laid.write(n, parameter.data)
    except OSError:
        return
    for parameter, data in zip(parameters, laid.tensors, strict=True):
        parameter.data = data
    _places[module] = laid
    give_back()


def laid_zeros(like: Sequence[Tensor]) -> Laid | None:
    """Zeros of these shapes and kinds in a file without a name. None where the disk has no room."""
    *starts, end = accumulate((x.nbytes + -x.nbytes % ALIGNMENT for x in like), initial=0)
    try:
        file = NamelessFile()
        file.make_room(max(1, end))
        pages = file.pages()
    except OSError:
        return None
    whole = torch.frombuffer(pages, dtype=torch.uint8)
    named = zip(like, starts, strict=True)
    tensors = [whole[start : start + x.nbytes].view(x.dtype).view(x.shape) for x, start in named]
    return Laid(file, pages, tensors, starts)


def rest(module: nn.Module) -> None:
    """Give back the memory of weights that were laid down, until they are used again."""
    if module in _places:
        _places[module].rest()


@contextmanager
def awake(module: nn.Module) -> Iterator[None]:
    """Within it, weights that were laid down are computed with from memory that the process has anyway.

    After an update much of it is free, and pages of the file would come on top.
    """
    laid = _places.get(module)
    if laid is None:
        yield
        return
    try:
        for n, parameter in enumerate(module.parameters()):
            parameter.data = torch.empty(parameter.shape, dtype=parameter.dtype)
            laid.read(n, parameter.data)
        yield
    finally:
        for parameter, data in zip(module.parameters(), laid.tensors, strict=True):
            parameter.data = data


def pick_up(module: nn.Module) -> None:
    """Take the weights into memory again, to train them."""
    if _places.pop(module, None) is not None:
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
