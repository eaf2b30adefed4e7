"""Advantages: how much better than expected each response token was.

Every method is a function of the same `Signals` and gives an `Estimate`; constants are bound with `partial`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.masked import masked_whiten


@dataclass(frozen=True)
class Signals:
    """What an advantage may use, for N responses of at most T tokens.

    scores: (N,) outcome rewards. rewards: (N, T) token rewards, the outcome and any KL penalty included.
    values: (N, T) value of the state before each token, or None without a critic.
    group: (N,) number of the prompt, shared by the responses to it. mask: (N, T).
    """

    scores: Tensor
    rewards: Tensor
    values: Tensor | None
    group: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Estimate:
    """advantages: (N, T), 0 outside the mask. returns: (N, T) the critic's targets, or None."""

    advantages: Tensor
    returns: Tensor | None = None


AdvantageFn = Callable[[Signals], Estimate]


def gae(signals: Signals, gamma: float, lam: float, whiten: bool) -> Estimate:
    """Generalised advantage estimation (arXiv 1506.02438).

    `δ_t = r_t + γV_{t+1} − V_t`, `A_t = Σ_l (γλ)^l δ_{t+l}`, returns = A + V from the raw A, before whitening.
    """
    assert signals.values is not None
    values = signals.values * signals.mask
    advantages = torch.zeros_like(values)
    carried = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        next_value = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(carried)
        delta = signals.rewards[:, t] + gamma * next_value - values[:, t]
        carried = (delta + gamma * lam * carried) * signals.mask[:, t]
        advantages[:, t] = carried
    returns = advantages + values
    return Estimate(masked_whiten(advantages, signals.mask) if whiten else advantages, returns)


def group_standardized(signals: Signals, eps: float = 1e-4) -> Estimate:
    """`(R_i − mean) / (std + eps)` within the group, unbiased std, on every token (GRPO, arXiv 2402.03300).

    A group of one, or of equal rewards, has advantage 0.
    """
    # Counted from the group's least reward, equal ones differ from their mean by 0 and not by a rounding error,
    # which the small std would blow up.
    groups = int(signals.group.max()) + 1
    least = torch.full((groups,), torch.inf).to(signals.scores).scatter_reduce(0, signals.group, signals.scores, "amin")
    above = signals.scores - least[signals.group]
    mean, count = group_means(above, signals.group)
    centred = above - mean
    variance = group_means(centred**2, signals.group)[0] * count / (count - 1).clamp(min=1)
    return Estimate((centred / (variance.sqrt() + eps))[:, None] * signals.mask)


def group_means(x: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) mean of each one's group, and (N,) its size."""
    groups = int(group.max()) + 1
    count = torch.zeros(groups, dtype=x.dtype, device=x.device).index_add(0, group, torch.ones_like(x))
    total = torch.zeros(groups, dtype=x.dtype, device=x.device).index_add(0, group, x)
    return (total / count.clamp(min=1))[group], count[group]
