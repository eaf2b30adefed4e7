"""Weights that rest: they lie in a file, and in memory only while somebody computes with them.

The reference is needed for one forward of an iteration, and the reward model's decoder for a few; gradients and
moments take their place while the policy learns. The system reads pages again as they are used, mostly from its cache.
"""

from __future__ import annotations

import mmap
import tempfile
from weakref import WeakKeyDictionary

import torch
from torch import nn

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
    parameters, starts = list(module.parameters()), []
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for parameter in parameters:
                starts.append(file.tell())
                file.write(parameter.data.contiguous().flatten().view(torch.uint8).numpy().data)
                file.write(bytes(-parameter.nbytes % ALIGNMENT))
            file.flush()
            place = mmap.mmap(file.fileno(), 0)
    except OSError:
        return
    whole = torch.frombuffer(place, dtype=torch.uint8)
    for parameter, start in zip(parameters, starts, strict=True):
        parameter.data = whole[start : start + parameter.nbytes].view(parameter.dtype).view(parameter.shape)
    _places[module] = place
    rest(module)
    give_back()


def rest(module: nn.Module) -> None:
    """Give back the memory of weights that were laid down, until they are used again."""
    if module in _places:
        _places[module].madvise(mmap.MADV_DONTNEED)


def pick_up(module: nn.Module) -> None:
    """Take the weights into memory again, to train them."""
    if _places.pop(module, None) is not None:
        for parameter in module.parameters():
            parameter.data = parameter.data.clone()
