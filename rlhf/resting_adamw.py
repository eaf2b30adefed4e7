"""AdamW whose moments, twice the size of the weights, rest in a file while the gradient of a step is computed.

A step goes over one piece of the weights after the other, with that piece's moments in memory, so activations and
moments are never there together. The arithmetic is the library's.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from rlhf.noted_forward import room
from rlhf.resting import in_file

PIECE = 2**26  # bytes of weights whose moments are in memory at once; the moments of fewer weights stay there


class RestingAdamW(torch.optim.AdamW):
    """The library's fused AdamW without weight decay, stepping through its parameters piece by piece.

    Moments stay in memory where the weights are few or not on a CPU, and where there is no room for the file.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        learned = list(parameters)
        super().__init__(learned, lr=learning_rate, weight_decay=0.0, fused=True)
        self._pieces = _cut(learned)
        self._pages: dict[int, mmap.mmap] = {}
        on_cpu = all(parameter.device.type == "cpu" for parameter in learned)
        size = 2 * sum(parameter.nbytes for parameter in learned)
        self._rests = on_cpu and len(self._pieces) > 1 and size <= room()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient, and clear the gradients."""
        gradients = [[parameter.grad for parameter in piece] for piece in self._pieces]
        self.zero_grad(set_to_none=True)
        for n, piece in enumerate(self._pieces):
            for parameter, gradient in zip(piece, gradients[n], strict=True):
                parameter.grad = gradient
            gradients[n] = []
            super().step()
            self.zero_grad(set_to_none=True)
            if self._rests:
                self._lay_down(n)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._pages.clear()

    def rest(self) -> None:
        """Give back the memory of the moments until the next step; also of those that were read for a checkpoint."""
        for pages in self._pages.values():
            pages.madvise(mmap.MADV_DONTNEED)

    def _lay_down(self, n: int) -> None:
        """Let the moments of a piece rest, from its first step on."""
        if n not in self._pages:
            states = [self.state[parameter] for parameter in self._pieces[n] if parameter in self.state]
            named = [(state, name) for state in states for name in ("exp_avg", "exp_avg_sq")]
            laid = in_file([state[name] for state, name in named]) if named else None
            if laid is None:
                return
            self._pages[n], moments = laid
            for (state, name), moment in zip(named, moments, strict=True):
                state[name] = moment
        self._pages[n].madvise(mmap.MADV_DONTNEED)


def _cut(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Cut parameters into pieces of at least PIECE bytes each, but for the last."""
    pieces: list[list[nn.Parameter]] = [[]]
    size = 0
    for parameter in parameters:
        if size >= PIECE:
            pieces.append([])
            size = 0
        pieces[-1].append(parameter)
        size += parameter.nbytes
    return pieces
