"""AdamW whose moments, twice the size of the weights, rest in a file while the gradient of a step is computed.

A step goes over one piece of the weights after the other, with that piece's moments in memory, so activations and
moments are never there together. The arithmetic is the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.nameless_file import room
from rlhf.resting import Laid, in_file

PIECE = 2**26  # bytes of weights whose moments are in memory at once; the moments of fewer weights stay there


Moment = tuple[dict[str, Any], str]  # a parameter's state, and the name of one of its moments


class RestingAdamW(torch.optim.AdamW):
    """The library's fused AdamW without weight decay, stepping through its parameters piece by piece.

    Moments stay in memory where the weights are few or not on a CPU, and where there is no room for the file.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> None:
        learned = list(parameters)
        super().__init__(learned, lr=learning_rate, weight_decay=0.0, fused=True)
        self._pieces = _cut(learned)
        self._laid: dict[int, tuple[Laid, list[Moment]]] = {}
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
            self._wake(n)
            super().step()
            self.zero_grad(set_to_none=True)
            if self._rests:
                self._lay_down(n)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._laid.clear()

    def rest(self) -> None:
        """Give back the memory of the moments until the next step; also of those that were read for a checkpoint."""
        for laid, _ in self._laid.values():
            laid.rest()

    def _wake(self, n: int) -> None:
        """Have the moments of a piece in memory."""
        if n in self._laid:
            laid, moments = self._laid[n]
            _put(moments, laid.copies())

    def _lay_down(self, n: int) -> None:
        """Let the moments of a piece rest, from its first step on; they stay where the disk has no room for them."""
        if n not in self._laid:
            states = [self.state[parameter] for parameter in self._pieces[n] if parameter in self.state]
            moments = [(state, name) for state in states for name in ("exp_avg", "exp_avg_sq")]
            made = in_file([state[name] for state, name in moments]) if moments else None
            if made is None:
                return
            self._laid[n] = made, moments
        else:
            made, moments = self._laid[n]
            try:
                made.take_back([state[name] for state, name in moments])
            except OSError:
                del self._laid[n]
                return
        _put(moments, made.tensors)
        made.rest()


def _put(moments: Sequence[Moment], tensors: Sequence[Tensor]) -> None:
    for (state, name), tensor in zip(moments, tensors, strict=True):
        state[name] = tensor


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
