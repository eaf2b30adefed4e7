"""Aggregations: the weight of each token in the one sum that is optimised.

mask: (N, T) bool. count: (N,) how often each response enters; a response that does not counts 0 and vanishes, as one
without tokens does. longest: the most tokens that a response may have. The weights of a whole optimiser step are taken
at once, so that cutting it into micro-batches changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

AggregationFn = Callable[[Tensor, Tensor, int], Tensor]


def sequence_mean(mask: Tensor, count: Tensor, longest: int) -> Tensor:
    """Mean over each response's tokens, then over responses (GRPO, arXiv 2402.03300): `1/(N·|y_i|)`."""
    lengths = mask.sum(1, keepdim=True)
    return mask * count[:, None] / lengths.clamp(min=1) / _responses(mask, count)


def token_mean(mask: Tensor, count: Tensor, longest: int) -> Tensor:
    """Mean over all tokens of the batch (DAPO, arXiv 2503.14476): `1/Σ|y_i|`."""
    weighted = mask * count[:, None]
    return weighted / weighted.sum().clamp(min=1)


def fixed_length(mask: Tensor, count: Tensor, longest: int, *, tokens: int = 0) -> Tensor:
    """Sum over tokens divided by a constant, then mean over responses (Dr. GRPO, arXiv 2503.20783): `1/(N·L)`.

    tokens: L; 0 takes `longest`.
    """
    return mask * count[:, None] / (tokens or longest) / _responses(mask, count)


def sequence_sum(mask: Tensor, count: Tensor, longest: int) -> Tensor:
    """Sum over each response's tokens, then mean over responses (ReMax, arXiv 2310.10505): `1/N`."""
    return mask * count[:, None] / _responses(mask, count)


def _responses(mask: Tensor, count: Tensor) -> Tensor:
    return (count * mask.any(1)).sum().clamp(min=1)
