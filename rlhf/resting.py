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

    def copies(self) -> list[Tensor]:
        """The same in memory; the pages are not used."""
        copies = [torch.empty(x.shape, dtype=x.dtype) for x in self.tensors]
        for copy, start in zip(copies, self.starts, strict=True):
            self.file.read([bytes_of(copy)], start)
        return copies

    def take_back(self, copies: Sequence[Tensor]) -> None:
        """Write what has become of the copies. Raises OSError where the disk has no room any more."""
        for copy, start in zip(copies, self.starts, strict=True):
            self.file.write([bytes_of(copy)], start)

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
    if laid := in_file([parameter.data for parameter in parameters]):
        _places[module] = laid
        for parameter, copy in zip(parameters, laid.tensors, strict=True):
            parameter.data = copy
        rest(module)
        give_back()


def in_file(tensors: Sequence[Tensor]) -> Laid | None:
    """Copies of tensors in a file without a name. None where the disk has no room."""
    gaps = [-x.nbytes % ALIGNMENT for x in tensors]
    *starts, _ = accumulate((x.nbytes + gap for x, gap in zip(tensors, gaps, strict=True)), initial=0)
    try:
        file = NamelessFile()
        for tensor, gap, start in zip(tensors, gaps, starts, strict=True):
            file.write([bytes_of(tensor.contiguous()), memoryview(bytes(gap))], start)
        pages = file.pages()
    except OSError:
        return None
    whole = torch.frombuffer(pages, dtype=torch.uint8)
    named = zip(tensors, starts, strict=True)
    laid = [whole[start : start + t.nbytes].view(t.dtype).view(t.shape) for t, start in named]
    return Laid(file, pages, laid, starts)


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
    for parameter, copy in zip(module.parameters(), laid.copies(), strict=True):
        parameter.data = copy
    try:
        yield
    finally:
        for parameter, data in zip(module.parameters(), laid.tensors, strict=True):
            parameter.data = data
        laid.rest()


def pick_up(module: nn.Module) -> None:
    """Take the weights into memory again, to train them."""
    if _places.pop(module, None) is not None:
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
