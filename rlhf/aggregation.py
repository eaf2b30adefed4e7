"""From a value per token to one loss: weights that a sum over the whole batch is taken with.

The weights depend on the mask of the whole global batch alone, so cutting the batch into micro-batches changes
nothing: the parts' weighted sums add up to the whole.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

AggregationFn = Callable[[Tensor], Tensor]


def sequence_mean(mask: Tensor) -> Tensor:
    """Mean over each response's tokens, then over responses (GRPO): `1/(N·|y_i|)` on (N, T)."""
    lengths = mask.sum(1, keepdim=True)
    return mask / lengths.clamp(min=1) / (lengths > 0).sum().clamp(min=1)


def token_mean(mask: Tensor) -> Tensor:
    """Mean over all tokens of the batch (DAPO, arXiv 2503.14476): `1/Σ|y_i|` on (N, T)."""
    return mask / mask.sum().clamp(min=1)
