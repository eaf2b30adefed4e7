"""Reductions over the response tokens of a (N, T) tensor; what lies outside the mask never matters.

A mask is bool, or says how often each token counts.
"""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """`Σ m·x / Σ m` over all entries; 0 for an empty mask."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def masked_whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """`(x − mean) / √(variance + eps)` over the masked entries of the whole batch (unbiased), 0 elsewhere."""
    inside = mask > 0
    # Counted from the least, equal entries differ from their mean by 0 and not by a rounding error, which their small
    # std would blow up to an advantage of about 1.
    least = x.masked_fill(~inside, torch.inf).amin().nan_to_num(posinf=0.0)
    above = (x - least) * inside
    centred = (above - masked_mean(above, mask)) * inside
    variance = (centred**2 * mask).sum() / (mask.sum() - 1).clamp(min=1)
    return centred / (variance + eps).sqrt()


def last_token(mask: Tensor) -> Tensor:
    """(N, T) mask with the last True of each row alone; rows are filled from the left."""
    following = mask.roll(-1, 1)
    following[:, -1] = False
    return mask & ~following
