"""From a score per response to a reward per token, and the control of the KL penalty inside it."""

from __future__ import annotations

from torch import Tensor

from rlhf.divergences import k1
from rlhf.masked import last_token


def token_rewards(scores: Tensor, old_logp: Tensor, ref_logp: Tensor, mask: Tensor, beta: float) -> Tensor:
    """`r_t = −β·(old_logp_t − ref_logp_t) + 1[t = T]·R` (InstructGPT, arXiv 2203.02155).

    scores: (N,). Others: (N, T). Returns (N, T), 0 outside the mask.
    """
    return -beta * k1(old_logp, ref_logp) * mask + scores[:, None] * last_token(mask)


def adapt_beta(beta: float, kl: float, target: float, samples: int, horizon: int) -> float:
    """`β·(1 + clip(KL/target − 1, ±0.2)·n/horizon)` with KL in nats summed per sequence (arXiv 1909.08593)."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return beta * (1 + error * samples / horizon)
