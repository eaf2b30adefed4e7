"""AdamW whose moments, twice the size of the weights, rest in a file and never are in memory as a whole.

A step goes over the weights window by window, each with its moments read and written again: what is there at once is a
few megabytes, so near the processor that a step costs little more than the library's. The arithmetic is the library's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from rlhf.nameless_file import room
from rlhf.resting import Laid, laid_zeros

WINDOW = 2**19  # weights that are stepped at once
FEW = 2**24  # weights whose moments stay in memory


class RestingAdamW(torch.optim.AdamW):
    """The library's fused AdamW. The moments of each weight are views of the file's pages, as long as nobody steps.

    Moments stay in memory where the weights are few, not on a CPU or not in float32, and where the disk has no room.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float = 0.0) -> None:
        self._learned = list(parameters)
        super().__init__(self._learned, lr=learning_rate, weight_decay=weight_decay, fused=True)
        plain = all(p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous() for p in self._learned)
        size = 2 * sum(p.nbytes for p in self._learned)
        self._rests = plain and sum(p.numel() for p in self._learned) > FEW and size <= room()
        self._laid: Laid | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step every parameter that has a gradient, and clear the gradients."""
        if self._rests and self._laid is None:
            self._lay_down()
        if self._laid is None:
            super().step()
            self.zero_grad(set_to_none=True)
            return
        windows = torch.empty(2, WINDOW)
        for n, parameter in enumerate(self._learned):
            gradient, parameter.grad = parameter.grad, None
            if gradient is not None:
                self._step_one(n, self._laid, gradient.reshape(-1), windows)

    def _step_one(self, n: int, laid: Laid, gradient: Tensor, windows: Tensor) -> None:
        """Step the n-th parameter, whose moments lie as the tensors 2n and 2n + 1."""
        parameter, group = self._learned[n], self.param_groups[0]
        before, weights = self.state[parameter]["step"], parameter.data.view(-1)
        for start in range(0, len(weights), WINDOW):
            place = slice(start, min(start + WINDOW, len(weights)))
            first, second = windows[:, : place.stop - start]
            laid.read(2 * n, first, start)
            laid.read(2 * n + 1, second, start)
            step = before.clone()
            adamw(
                [weights[place]],
                [gradient[place]],
                [first],
                [second],
                [],
                [step],
                fused=True,
                amsgrad=False,
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=False,
            )
            laid.write(2 * n, first, start)
            laid.write(2 * n + 1, second, start)
        before += 1

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint."""
        super().load_state_dict(state_dict)
        self._laid = None

    def rest(self) -> None:
        """Give back the memory of moments that were read for a checkpoint."""
        if self._laid is not None:
            self._laid.rest()

    def _lay_down(self) -> None:
        """Let the moments rest from now on; they are zero unless a checkpoint says otherwise."""
        laid = laid_zeros([p for p in self._learned for _ in range(2)])
        if laid is None:
            self._rests = False
            return
        for n, parameter in enumerate(self._learned):
            known = self.state[parameter]
            state = {"step": known.get("step", torch.zeros(()))}
            for k, name in enumerate(("exp_avg", "exp_avg_sq"), 2 * n):
                if name in known:
                    laid.write(k, known[name], 0)
                state[name] = laid.tensors[k]
            self.state[parameter] = state
        laid.rest()
        self._laid = laid
