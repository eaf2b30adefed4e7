"""Advantages: how much better than expected each response token was.

Every method is a function of the same `Signals` and gives an `Estimate`; constants are bound with `partial`. What a
method needs beyond scores is declared in `rlhf.recipes.NEEDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.masked import last_token, masked_whiten


@dataclass(frozen=True)
class Signals:
    """What an advantage may use, for N responses of at most T tokens.

    rewards: (N, T) token rewards: outcome or step rewards and any KL penalty. mask: (N, T).
    group: (N,) number of the prompt, shared by the responses to it. count: (N,) how often each response enters: in
    every mean and std, one that enters twice is two equal ones, and one that does not enter is not there.
    values: (N, T) value of the state before each token, or None without a critic.
    baseline: (N,) score of the greedy response to the same prompt, or None.
    step_ends: (N, T) bool, the last token of each step, or None where only the outcome is rewarded.
    """

    rewards: Tensor
    mask: Tensor
    group: Tensor
    count: Tensor
    values: Tensor | None = None
    baseline: Tensor | None = None
    step_ends: Tensor | None = None

    @property
    def totals(self) -> Tensor:
        """(N,) the reward of each whole response, any KL penalty included."""
        return (self.rewards * self.mask).sum(1)

    @property
    def entries(self) -> Tensor:
        """(N,) how often each response enters; a response without tokens does not."""
        return self.count * self.mask.any(1)


@dataclass(frozen=True)
class Estimate:
    """advantages: (N, T), 0 outside the mask. returns: (N, T) the critic's targets, or None."""

    advantages: Tensor
    returns: Tensor | None = None


AdvantageFn = Callable[[Signals], Estimate]


def gae(signals: Signals, *, gamma: float = 1.0, lam: float = 0.95, whiten: bool = True) -> Estimate:
    """Generalised advantage estimation (arXiv 1506.02438).

    `δ_t = r_t + γV_{t+1} − V_t`, `A_t = Σ_l (γλ)^l δ_{t+l}`, returns = A + V from the raw A, before whitening.
    """
    values = _values(signals)
    raw = _discounted_errors(signals, values, gamma, torch.full_like(values[:, 0], lam))
    return Estimate(_whitened(raw, signals) if whiten else raw, raw + values)


def length_adaptive_gae(
    signals: Signals, *, gamma: float = 1.0, alpha: float = 0.05, critic_lam: float = 1.0, whiten: bool = True
) -> Estimate:
    """GAE with a λ for each length: `λ_policy = max(0, 1 − 1/(α·l))`, and its own λ for the critic's returns.

    VAPO (arXiv 2504.05118): α = 0.05, λ_critic = 1 (Monte Carlo). A response of l ≤ 1/α tokens has λ_policy = 0.
    """
    values = _values(signals)
    lengths = signals.mask.sum(1).clamp(min=1).to(values)
    raw = _discounted_errors(signals, values, gamma, (1 - 1 / (alpha * lengths)).clamp(min=0.0))
    returns = _discounted_errors(signals, values, gamma, torch.full_like(values[:, 0], critic_lam)) + values
    return Estimate(_whitened(raw, signals) if whiten else raw, returns)


def group_standardized(signals: Signals, *, eps: float = 1e-4) -> Estimate:
    """`(R_i − mean) / (std + ε)` within the group, unbiased std, on every token (GRPO, arXiv 2402.03300).

    A group of one, or of equal rewards, has advantage 0.
    """
    centred, std, _ = _group_units(signals.totals, signals.group, signals.entries)
    return Estimate((centred / (std + eps))[:, None] * signals.mask)


def group_centered(signals: Signals) -> Estimate:
    """`R_i − mean` within the group, on every token (Dr. GRPO, arXiv 2503.20783)."""
    return Estimate(_group_units(signals.totals, signals.group, signals.entries)[0][:, None] * signals.mask)


def process_standardized(signals: Signals, *, eps: float = 1e-4) -> Estimate:
    """`A_{i,t} = Σ_{index(j) ≥ t} r̃_i^{index(j)}`, r̃ the group's step rewards standardised all together.

    GRPO with process supervision (arXiv 2402.03300): a token gets the steps that end at it or after it. A step's reward
    is that of all its tokens, any KL penalty included. Without step ends the outcome is the only step.
    """
    ends = signals.step_ends if signals.step_ends is not None else last_token(signals.mask)
    ends = ends & signals.mask
    owner, _ = ends.nonzero().unbind(1)
    centred, std, _ = _group_units(_step_totals(signals, ends), signals.group[owner], signals.entries[owner])
    units = torch.zeros_like(signals.rewards).masked_scatter(ends, centred / (std + eps))
    return Estimate(_to_go(units) * signals.mask)


def leave_one_out(signals: Signals) -> Estimate:
    """`R_i − mean_{k≠i} R_k = G/(G−1)·(R_i − R̄)`, on every token (RLOO, arXiv 2402.14740). A group of one has 0."""
    centred, _, size = _group_units(signals.totals, signals.group, signals.entries)
    return Estimate((centred * size / (size - 1).clamp(min=1))[:, None] * signals.mask)


def greedy_baseline(signals: Signals) -> Estimate:
    """`Σ_{s≥t} r_s − R(greedy y)` (ReMax, arXiv 2310.10505): `R(y) − R(greedy y)` where only the outcome is rewarded.

    A KL penalty inside the rewards counts from the token on; the greedy response's score carries none.
    """
    if signals.baseline is None:
        raise ValueError("greedy_baseline needs the scores of greedy responses")
    return Estimate((_to_go(signals.rewards * signals.mask) - signals.baseline[:, None]) * signals.mask)


def batch_standardized(signals: Signals, *, gamma: float = 1.0) -> Estimate:
    """Reward-to-go `Σ_l γ^l r_{t+l}`, whitened over all tokens of the batch (REINFORCE++, arXiv 2501.03262)."""
    return Estimate(_whitened(_to_go(signals.rewards * signals.mask, gamma), signals))


def group_baseline_standardized(signals: Signals) -> Estimate:
    """`R_i − group mean` (no std) on every token, whitened over all tokens of the batch (REINFORCE++-baseline)."""
    centred, _, _ = _group_units(signals.totals, signals.group, signals.entries)
    return Estimate(_whitened(centred[:, None] * signals.mask, signals))


def _group_units(x: Tensor, group: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N,) `x − mean` of each one's group, its unbiased std (0 for a group of one), and its size, all with counts."""
    groups = int(group.max()) + 1 if len(group) else 0

    def of_group(values: Tensor) -> Tensor:
        return x.new_zeros(groups).index_add(0, group, values * count)[group]

    size = of_group(torch.ones_like(x))
    # Counted from the group's least, equal ones differ from their mean by 0 and not by a rounding error, which a small
    # std would blow up.
    above = x - x.new_full((groups,), torch.inf).scatter_reduce(0, group, x, "amin")[group]
    centred = above - of_group(above) / size.clamp(min=1)
    variance = of_group(centred**2) / (size - 1).clamp(min=1)
    return centred, variance.sqrt(), size


def _step_totals(signals: Signals, ends: Tensor) -> Tensor:
    """(steps,) the rewards of all tokens of each step, in the order of `ends.nonzero()`."""
    step = ends.cumsum(1) - ends.long()  # how many steps end before each token
    sums = torch.zeros_like(signals.rewards).scatter_add(1, step, signals.rewards)
    return sums[torch.arange(ends.shape[1], device=ends.device) < ends.sum(1, keepdim=True)]


def _values(signals: Signals) -> Tensor:
    if signals.values is None:
        raise ValueError("this advantage needs the values of a critic")
    return signals.values * signals.mask


def _discounted_errors(signals: Signals, values: Tensor, gamma: float, lam: Tensor) -> Tensor:
    """(N, T) `Σ_l (γλ_i)^l δ_{t+l}` with λ_i for each response."""
    advantages = torch.zeros_like(values)
    carried = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        next_value = values[:, t + 1] if t + 1 < values.shape[1] else torch.zeros_like(carried)
        delta = signals.rewards[:, t] + gamma * next_value - values[:, t]
        carried = (delta + gamma * lam * carried) * signals.mask[:, t]
        advantages[:, t] = carried
    return advantages


def _to_go(rewards: Tensor, gamma: float = 1.0) -> Tensor:
    """(N, T) `Σ_l γ^l r_{t+l}`."""
    if gamma == 1.0:
        return rewards.flip(1).cumsum(1).flip(1)
    out, carried = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        carried = rewards[:, t] + gamma * carried
        out[:, t] = carried
    return out


def _whitened(x: Tensor, signals: Signals) -> Tensor:
    return masked_whiten(x, signals.mask * signals.count[:, None])
