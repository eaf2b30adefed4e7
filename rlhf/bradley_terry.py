"""Bradley-Terry: from scores of candidates to the probability of a preference, and the loss of whole slates.

`P(i ≻ j) = σ(score_i − score_j − margin_ij)`. All C(K, 2) pairs of a slate are one batch element (InstructGPT,
arXiv 2203.02155), so a slate's candidates are scored once each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from labeling.records import Preference


@dataclass(frozen=True)
class PairTargets:
    """P preferences over N scored candidates, as columns.

    i, j: (P,) candidate numbers. p, margin, flip_rate: (P,). weight: (P,) annotator weight / C(K, 2) of its slate.
    slates: the number of slates, by which the loss is divided. slate: (P,) the number of each pair's slate.
    """

    i: Tensor
    j: Tensor
    p: Tensor
    margin: Tensor
    flip_rate: Tensor
    weight: Tensor
    slates: int
    slate: Tensor


def pair_targets(slates: Sequence[tuple[int, Sequence[Preference]]], device: torch.device | str = "cpu") -> PairTargets:
    """Gather the preferences of slates given as (K, preferences); their candidates are numbered in order."""
    rows = []
    first = 0
    for number, (k, preferences) in enumerate(slates):
        for q in preferences:
            weight = q.weight / math.comb(k, 2)
            rows.append((first + q.i, first + q.j, number, q.p, q.margin, q.flip_rate, weight))
        first += k
    columns = torch.tensor(rows, dtype=torch.float64, device=device).reshape(-1, 7).unbind(1)
    i, j, slate = (c.long() for c in columns[:3])
    p, margin, flip_rate, weights = (c.float() for c in columns[3:])
    return PairTargets(i, j, p, margin, flip_rate, weights, len(slates), slate)


def log_preference(lead: Tensor, flip_rate: Tensor | float = 0.0) -> Tensor:
    """`log P'` with `P' = (1−ε)·σ(lead) + ε/2`: an annotator errs uniformly at rate ε (arXiv 1706.03741)."""
    eps = torch.as_tensor(flip_rate, dtype=lead.dtype, device=lead.device)
    return torch.logaddexp(torch.log1p(-eps) + logsigmoid(lead), torch.log(eps / 2))


def preference_losses(scores: Tensor, targets: PairTargets) -> Tensor:
    """(P,) `−[p·log P'(i≻j) + (1−p)·log P'(j≻i)]` for (N,) scores; unweighted."""
    lead = scores[targets.i] - scores[targets.j] - targets.margin
    above, below = log_preference(lead, targets.flip_rate), log_preference(-lead, targets.flip_rate)
    return -(targets.p * above + (1 - targets.p) * below)


def slate_loss(scores: Tensor, targets: PairTargets, centring: float = 0.0) -> Tensor:
    """Mean over slates of `(1/C(K,2)) Σ w·ℓ`, plus `c·(score_i + score_j)²`, which keeps scores near 0.

    scores: (N,). Returns a scalar. A slate without preferences adds 0.
    """
    losses = preference_losses(scores, targets)
    if centring:
        losses = losses + centring * (scores[targets.i] + scores[targets.j]) ** 2
    return (targets.weight * losses).sum() / targets.slates
