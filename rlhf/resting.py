"""Weights that rest: they lie in a file, and in memory only while somebody computes with them.

The reference is needed for one forward of an iteration, and the reward model's decoder for a few; gradients and
moments take their place while the policy learns. The system reads pages again as they are used, mostly from its cache.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlhf.backbones import cache_folder, device_of
from rlhf.kept_memory import give_back

ALIGNMENT = 64  # bytes, of a vector register
_places: WeakKeyDictionary[nn.Module, mmap.mmap] = WeakKeyDictionary()


def lay_down(module: nn.Module) -> None:
    """Move a module's parameters into a file without a name, which goes when the module does.

    The numbers stay what they are, and writing to them still works. Nothing changes where the module is not on a CPU
    or the disk has no room.
    """
    if device_of(module).type != "cpu":
        return
    parameters = list(module.parameters())
    if laid := in_file([parameter.data for parameter in parameters]):
        _places[module], copies = laid
        for parameter, copy in zip(parameters, copies, strict=True):
            parameter.data = copy
        rest(module)
        give_back()


def in_file(tensors: Sequence[Tensor]) -> tuple[mmap.mmap, list[Tensor]] | None:
    """Copies of tensors in a file without a name, and its pages, which live as long as one of the copies.

    None where the disk has no room.
    """
    folder, starts = cache_folder(), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for tensor in tensors:
                starts.append(file.tell())
                file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
                file.write(bytes(-tensor.nbytes % ALIGNMENT))
            file.flush()
            pages = mmap.mmap(file.fileno(), 0)
    except OSError:
        return None
    whole = torch.frombuffer(pages, dtype=torch.uint8)
    named = zip(tensors, starts, strict=True)
    return pages, [whole[start : start + t.nbytes].view(t.dtype).view(t.shape) for t, start in named]


def rest(module: nn.Module) -> None:
    """Give back the memory of weights that were laid down, until they are used again."""
    if module in _places:
        _places[module].madvise(mmap.MADV_DONTNEED)


@contextmanager
def awake(module: nn.Module) -> Iterator[None]:
    """Within it, weights that were laid down are computed with from memory that the process has anyway.

    After an update much of it is free, and pages of the file would come on top.
    """
    resting = [parameter.data for parameter in module.parameters()] if module in _places else []
    for parameter in module.parameters() if resting else ():
        parameter.data = parameter.data.clone()
        rest(module)  # piece by piece, so that they are never there twice
    try:
        yield
    finally:
        for parameter, data in zip(module.parameters(), resting, strict=False):
            parameter.data = data
        rest(module)


def pick_up(module: nn.Module) -> None:
    """Take the weights into memory again, to train them."""
    if _places.pop(module, None) is not None:
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
