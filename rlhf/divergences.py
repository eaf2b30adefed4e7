"""Estimators of KL(π ‖ reference) from sampled tokens, with `d = logp − ref_logp` (Schulman 2020, joschu.net).

As a loss, k1 has zero expected gradient, k2 has the gradient of the reverse KL, and k3 is GRPO's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Estimator = Callable[[Tensor, Tensor], Tensor]
LARGEST = 20.0  # of an exponent: e^20 lies beyond every clip and cap, and its square is far from float32's end at e^88


def held(exponent: Tensor) -> Tensor:
    """The exponent within ±20, as a value: what `exp` then gives is finite, and so is its gradient, which stays.

    A clip in the usual way has no gradient outside, and ASPO gives just those tokens the most; without a bound, one
    infinite ratio makes the gradient of a clipped token `0·∞`, and with it every weight of the model NaN.
    """
    value = exponent.detach()
    return value.clamp(-LARGEST, LARGEST) + (exponent - value)


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`d`: unbiased, high variance, either sign. Elementwise, nats per token."""
    return logp - ref_logp


def k2(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`d²/2`: biased, never negative. Elementwise, nats per token."""
    return (logp - ref_logp) ** 2 / 2


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`exp(−d) − 1 + d`: unbiased, never negative (GRPO, arXiv 2402.03300). Elementwise, nats per token."""
    d = logp - ref_logp
    return torch.expm1(held(-d)) + d
