"""Surrogate objectives: what the policy maximises, for each token; only the aggregation reduces.

Each is a function of the same `Tokens`. sg[·] stops the gradient; A is the advantage, ρ the ratio. What a surrogate
needs beyond them is declared in `rlhf.recipes.NEEDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WholeStep:
    """All R responses of an optimiser step, before any of it is computed with gradients: (R, T) each.

    logp: under the current policy. ratio: its ratio. noise: uniform in [0, 1), drawn once for each token.
    """

    logp: Tensor
    ratio: Tensor
    advantages: Tensor
    mask: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Tokens:
    """What a surrogate may use of N responses of at most T tokens, each (N, T).

    step, rows: the whole step and (N,) which of its rows these are, for surrogates that look at all of it.
    """

    logp: Tensor
    ratio: Tensor
    advantages: Tensor
    mask: Tensor
    step: WholeStep | None = None
    rows: Tensor | None = None


@dataclass(frozen=True)
class Surrogate:
    """objective: (N, T), to be maximised. clipped: (N, T) bool, tokens whose gradient was removed or capped."""

    objective: Tensor
    clipped: Tensor


SurrogateFn = Callable[[Tokens], Surrogate]


def clipped(tokens: Tokens, *, eps_low: float = 0.2, eps_high: float = 0.2) -> Surrogate:
    """`min(ρA, clip(ρ, 1−ε_lo, 1+ε_hi)·A)` (PPO, arXiv 1707.06347; ε_hi > ε_lo is DAPO's Clip-Higher)."""
    plain = tokens.ratio * tokens.advantages
    bounded = tokens.ratio.clamp(1 - eps_low, 1 + eps_high) * tokens.advantages
    return Surrogate(torch.minimum(plain, bounded), bounded < plain)


def dual_clipped(tokens: Tokens, *, eps_low: float = 0.2, eps_high: float = 0.2, c: float = 3.0) -> Surrogate:
    """As `clipped`, and for A < 0 never below `c·A`: a ratio that exploded has no gradient (arXiv 1912.09729)."""
    once = clipped(tokens, eps_low=eps_low, eps_high=eps_high)
    floor = c * tokens.advantages
    twice = (tokens.advantages < 0) & (once.objective < floor)
    return Surrogate(torch.where(twice, floor, once.objective), once.clipped | twice)


def reinforce(tokens: Tokens) -> Surrogate:
    """`A·logp` (Williams 1992): right for samples of the current policy, so each may be used for one update only."""
    return Surrogate(tokens.advantages * tokens.logp, torch.zeros_like(tokens.mask))


def detached_weight(tokens: Tokens, *, eps_low: float = 1.0, eps_high: float = 0.28) -> Surrogate:
    """`sg[clip(ρ, 1−ε_lo, 1+ε_hi)]·A·logp` (CISPO, arXiv 2506.13585): every token keeps a gradient.

    The upper bound is 1+ε_hi. ε_lo = 1 is no lower bound, as in the paper.
    """
    ratio = tokens.ratio.detach()
    weight = ratio.clamp(1 - eps_low, 1 + eps_high)
    return Surrogate(weight * tokens.advantages * tokens.logp, weight != ratio)


def flipped(tokens: Tokens, *, eps_low: float = 0.2, eps_high: float = 0.2, cap: float = 3.0) -> Surrogate:
    """ASPO (arXiv 2510.06062): tokens of good responses are weighted by 1/ρ, so that rare ones learn most.

    `sg[w/ρ]·ρ·A`, whose gradient is `∂J/∂logp = w·A`, with
    A > 0: w = 0 where ρ > 1+ε_hi, else `min(1/ρ, cap)` (unlike a clip, the cap keeps the gradient);
    A < 0: w = 0 where ρ < 1−ε_lo (there the value is that of the clip), else `min(ρ, cap)`.
    Compare gradients, not values: the two branches have different scales.
    """
    ratio, advantages = tokens.ratio, tokens.advantages
    r = ratio.detach()
    good = advantages > 0
    removed = torch.where(good, r > 1 + eps_high, r < 1 - eps_low) & (advantages != 0)
    weight = torch.where(good, 1 / r, r)
    soft = weight.clamp(max=cap) / r * ratio * advantages
    flat = torch.where(good, torch.zeros_like(r), (1 - eps_low) * advantages)
    return Surrogate(torch.where(removed, flat, soft), removed | (weight > cap) & (advantages != 0))


def covariance_masked(
    tokens: Tokens,
    *,
    eps_low: float = 0.2,
    eps_high: float = 0.2,
    share: float = 2e-4,
    low: float = 1.0,
    high: float = 5.0,
) -> Surrogate:
    """As `clipped`, and a few tokens of high covariance get no gradient (Clip-Cov, arXiv 2505.22617).

    `cov_t = (A_t − Ā)(logp_t − mean logp)` over the tokens of the whole step; of those with low < cov < high that the
    clip has left, `max(⌊share·N⌋, 1)` are drawn uniformly at random, N counting all tokens of the step.
    """
    if tokens.step is None or tokens.rows is None:
        raise ValueError("covariance_masked needs the whole step")
    once = clipped(tokens, eps_low=eps_low, eps_high=eps_high)
    drawn = _covariance_draw(tokens.step, eps_low, eps_high, share, low, high)[tokens.rows, : tokens.mask.shape[1]]
    return Surrogate(torch.where(drawn, once.objective.detach(), once.objective), once.clipped | drawn)


@torch.no_grad()
def _covariance_draw(step: WholeStep, eps_low: float, eps_high: float, share: float, low: float, high: float) -> Tensor:
    """(R, T) bool: the tokens of the step that lose their gradient."""
    count = int(step.mask.sum())
    means = [(x * step.mask).sum() / max(count, 1) for x in (step.advantages, step.logp)]
    covariance = (step.advantages - means[0]) * (step.logp - means[1])
    whole = clipped(Tokens(step.logp, step.ratio, step.advantages, step.mask), eps_low=eps_low, eps_high=eps_high)
    eligible = step.mask & (covariance > low) & (covariance < high) & ~whole.clipped
    wanted = min(max(int(share * count), 1), int(eligible.sum()))
    order = step.noise.masked_fill(~eligible, torch.inf).flatten().topk(wanted, largest=False).indices
    drawn = torch.zeros_like(step.mask).flatten()
    drawn[order] = True
    return drawn.reshape(step.mask.shape)
