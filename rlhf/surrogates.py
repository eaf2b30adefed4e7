"""Surrogate objectives: what the policy maximises, for each token; only the aggregation reduces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Surrogate:
    """objective: (N, T), to be maximised. clipped: (N, T) bool, tokens whose gradient the clip removed."""

    objective: Tensor
    clipped: Tensor


SurrogateFn = Callable[[Tensor, Tensor], Surrogate]


def clipped(ratio: Tensor, advantages: Tensor, eps_low: float, eps_high: float) -> Surrogate:
    """`min(ρA, clip(ρ, 1−ε_lo, 1+ε_hi)·A)` (PPO, arXiv 1707.06347; ε_hi > ε_lo is DAPO's Clip-Higher)."""
    plain = ratio * advantages
    bounded = ratio.clamp(1 - eps_low, 1 + eps_high) * advantages
    return Surrogate(torch.minimum(plain, bounded), bounded < plain)
