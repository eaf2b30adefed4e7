"""Estimators of KL(π ‖ reference) from sampled tokens, with `d = logp − ref_logp` (Schulman 2020, joschu.net).

As a loss, k1 has zero expected gradient, k2 has the gradient of the reverse KL, and k3 is GRPO's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Estimator = Callable[[Tensor, Tensor], Tensor]


def k1(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`d`: unbiased, high variance, either sign. Elementwise, nats per token."""
    return logp - ref_logp


def k2(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`d²/2`: biased, never negative. Elementwise, nats per token."""
    return (logp - ref_logp) ** 2 / 2


def k3(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """`exp(−d) − 1 + d`: unbiased, never negative (GRPO, arXiv 2402.03300). Elementwise, nats per token."""
    d = logp - ref_logp
    return torch.expm1(-d) + d
