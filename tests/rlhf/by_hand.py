"""What the tests of stages share: ragged responses, signals, a comparison with numbers, and finite differences."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlhf.advantages import Signals
from rlhf.masked import last_token

RAGGED = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)


def signals(rewards: list, mask: Tensor = RAGGED, **given: Any) -> Signals:
    """Token rewards of responses to one prompt, each of which enters once, unless something else is given."""
    rows = len(rewards)
    parts = {"group": torch.zeros(rows).long(), "count": torch.ones(rows)} | given
    return Signals(torch.tensor(rewards, dtype=torch.float32), mask, **parts)


def outcomes(scores: list[float], group: list[int], lengths: list[int], **given: Any) -> Signals:
    """Outcome rewards of responses of the given lengths."""
    mask = torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]
    rewards = torch.tensor(scores)[:, None] * last_token(mask)
    parts = {"count": torch.ones(len(scores))} | given
    return Signals(rewards, mask, torch.tensor(group), **parts)


def close(found: Tensor | None, expected: list, tolerance: float = 1e-5) -> None:
    assert found is not None
    torch.testing.assert_close(found, torch.tensor(expected, dtype=found.dtype), atol=tolerance, rtol=0)


def gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """By autograd."""
    x = at.clone().requires_grad_()
    function(x).backward()
    assert x.grad is not None
    return x.grad


def central_differences(function: Callable[[Tensor], Tensor], at: Tensor, h: float = 1e-6) -> Tensor:
    """`(f(x + h) − f(x − h)) / 2h` in each direction; at is float64."""
    found = torch.zeros_like(at)
    for n in range(at.numel()):
        step = torch.zeros_like(at)
        step.view(-1)[n] = h
        found.view(-1)[n] = (function(at + step) - function(at - step)) / (2 * h)
    return found
