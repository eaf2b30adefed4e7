"""Importance ratios between the current and the sampling policy, from e^−20 to e^20 (see `rlhf.divergences.held`)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from rlhf.divergences import held

RatioFn = Callable[[Tensor, Tensor, Tensor], Tensor]


def token_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """`ρ_t = exp(logp_t − old_logp_t)`. All (N, T); 1 outside the mask."""
    return held((logp - old_logp) * mask).exp()


def sequence_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """`s_i = exp(mean_t(logp − old_logp))`, per token as `sg[s_i]·exp(logp_t − sg[logp_t])` (GSPO, arXiv 2507.18071).

    The value is the sequence's, the gradient each token's own: `s_i·∇logp_t`. Where all tokens of a response share one
    advantage, the mean over its tokens has the gradient of s_i itself. (N, T); 1 outside the mask.
    """
    log_ratio = (logp - old_logp).detach() * mask
    mean = log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return held(mean * mask).exp() * ((logp - logp.detach()) * mask).exp()


def product_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor) -> Tensor:
    """`w_i = π(y_i)/π_old(y_i) = exp(Σ_t(logp − old_logp))` on every token: the response as one action.

    RLOO (arXiv 2402.14740). The gradient is that of w_i: `w_i·Σ_t ∇logp_t`. (N, T); 1 outside the mask.
    """
    return held(((logp - old_logp) * mask).sum(1, keepdim=True) * mask).exp()
