"""Importance ratios between the current and the sampling policy."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

RatioFn = Callable[[Tensor, Tensor, Tensor], Tensor]


def token_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """`ρ_t = exp(logp_t − old_logp_t)`. All (N, T); 1 outside the mask."""
    return ((logp - old_logp) * mask).exp()
