"""Filters: which of a prompt's samples enter the update, and how often.

Each takes the (G,) scores of one prompt's responses and gives (G,) counts: 0 leaves a response out.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

FilterFn = Callable[[Tensor, torch.Generator], Tensor]


def all_samples(scores: Tensor, chance: torch.Generator) -> Tensor:
    """Every response once."""
    return torch.ones_like(scores)


def mixed_outcome_groups(scores: Tensor, chance: torch.Generator, *, correct_above: float = math.nan) -> Tensor:
    """All of a group with `0 < #correct < G`, none of another (dynamic sampling of DAPO, arXiv 2503.14476).

    correct_above: a response is correct if its score is above. By default rewards are taken as real numbers, and a
    group is left out if all of them are equal; for rewards of two values the two rules agree.
    """
    first = scores > correct_above if not math.isnan(correct_above) else scores != scores[0]
    mixed = first.any() and not first.all() if not math.isnan(correct_above) else first.any()
    return torch.full_like(scores, float(mixed))


def best_and_random(scores: Tensor, chance: torch.Generator) -> Tensor:
    """The best response and one of the others at random (PF-PPO, arXiv 2409.06957)."""
    counts = torch.zeros_like(scores)
    best = int(scores.argmax())
    counts[best] = 1
    if len(scores) > 1:
        other = int(torch.randint(len(scores) - 1, (1,), generator=chance))
        counts[other + (other >= best)] = 1
    return counts


def best_worst(scores: Tensor, chance: torch.Generator) -> Tensor:
    """The best and the worst response: where a reward model is most often right (PF-PPO, arXiv 2409.06957)."""
    counts = torch.zeros_like(scores)
    counts[int(scores.argmax())] = 1
    counts[int(scores.argmin())] = 1
    return counts


def best_weighted(scores: Tensor, chance: torch.Generator, *, rest: float = 0.3) -> Tensor:
    """G draws with replacement, the best response with weight 1 and each other one with weight `rest` (PF-PPO)."""
    weights = torch.full_like(scores, rest)
    weights[int(scores.argmax())] = 1.0
    drawn = torch.multinomial(weights, len(scores), replacement=True, generator=chance)
    return torch.bincount(drawn, minlength=len(scores)).to(scores)
