"""Terms beside the surrogate: the critic's loss, and likelihood terms on samples that deserve to be said again.

Every likelihood term has one shape, `Σ_t w_t·logp_t` to be maximised, on responses of its own (`Likelihood`) or on
those of the rollout (`positive_weights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.packing import Group


@dataclass(frozen=True)
class PretrainingTerm:
    """PPO-ptx (arXiv 2203.02155): `γ·E_pretrain[log π]`, a mean over tokens, on `texts` of the corpus in each step.

    The paper's γ is 27.8 beside a loss in other units; here, beside a mean over tokens, below 1 is usual.
    """

    ptx: float = 0.5
    texts: int = 4


@dataclass(frozen=True)
class PositiveTerm:
    """VAPO (arXiv 2504.05118): `μ · mean log π` over the tokens of the responses that are better than their group."""

    mu: float = 0.1


@dataclass(frozen=True)
class TemperedTerm:
    """AEPO (arXiv 2510.08141): `α·E_{y∼π^T}[log π(y)·1(A > 0)]` on responses sampled at a temperature of their own.

    T is `high_temperature` while the policy's entropy (nats per token) is below `entropy_target`, else
    `low_temperature`. The paper's rewards are 0 or 1: a response of positive advantage is what has reward 1.
    """

    tempered_alpha: float = 0.1
    entropy_target: float = 1.0
    high_temperature: float = 1.2
    low_temperature: float = 0.8

    def temperature(self, entropy: float) -> float:
        """T for a policy of that entropy."""
        return self.high_temperature if entropy < self.entropy_target else self.low_temperature


@dataclass(frozen=True)
class Likelihood:
    """Responses whose log-probability is raised. weights: (N_g, T_g) of each group, one per token.

    temperature: at which log-probabilities are taken; None is the one that was sampled at.
    """

    name: str
    groups: tuple[Group, ...]
    weights: tuple[Tensor, ...]
    temperature: float | None = None


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, eps: float) -> Tensor:
    """`½·max((V−R)², (clip(V, V_old±ε)−R)²)` for each token (PPO, arXiv 1707.06347). All (N, T)."""
    bounded = torch.clamp(values, old_values - eps, old_values + eps)
    return 0.5 * torch.maximum((values - returns) ** 2, (bounded - returns) ** 2)


def positive_weights(better: Tensor, mask: Tensor, count: Tensor, mu: float) -> Tensor:
    """(N, T) `μ / Σ_{i better} |y_i|` on the tokens of the responses that are `better`, (N,) bool; 0 elsewhere."""
    chosen = mask * (better * count)[:, None]
    return mu * chosen / chosen.sum().clamp(min=1)


def text_likelihood(name: str, texts: Sequence[Group], coefficient: float) -> Likelihood:
    """`coefficient · mean log π` over all tokens of the candidates of `texts`.

    At temperature 1: nobody sampled them, and at another one the model would learn distorted frequencies.
    """
    tokens = sum(len(c) for g in texts for c in g.candidates)
    weights = []
    for g in texts:
        w = torch.zeros(len(g.candidates), max(map(len, g.candidates)))
        for n, c in enumerate(g.candidates):
            w[n, : len(c)] = coefficient / tokens
        weights.append(w)
    return Likelihood(name, tuple(texts), tuple(weights), 1.0)
