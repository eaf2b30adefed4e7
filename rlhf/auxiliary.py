"""Losses beside the surrogate: the critic's."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, eps: float) -> Tensor:
    """`½·max((V−R)², (clip(V, V_old±ε)−R)²)` for each token (PPO, arXiv 1707.06347). All (N, T)."""
    bounded = torch.clamp(values, old_values - eps, old_values + eps)
    return 0.5 * torch.maximum((values - returns) ** 2, (bounded - returns) ** 2)
