"""The reward model of an agent: an ensemble on (s, a) whose step rewards are aggregated to the score of a segment.

Each member is `r(s, a) = u·φ + net(φ)`, φ the features of a step and their squares: what control costs is mostly
squares (distance from a target, speed, effort), and the direct term learns those from few labels. How the steps of a
segment make its score is a value, AGG (see AGGREGATIONS); under each of them the score of a single step is r(s, a)
itself, which is what the agent is rewarded with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from rlhf.control.control_config import Aggregation

ATTENTION_WIDTH = 32
FAR = 3.0  # in units of a feature: the square of what is further off is that of this


@dataclass(frozen=True)
class Aggregator:
    """pool: (M, N, T) rewards, attention and (N, T) mask to (M, N) scores. attends: where the attention comes from."""

    pool: Callable[[Tensor, Tensor, Tensor], Tensor]
    attends: Literal["nowhere", "steps", "segments"] = "nowhere"


def summed(rewards: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
    """`Σ_t r_t` (Christiano 2017, arXiv 1706.03741); what a segment that ended early lacks counts as 0."""
    return (rewards * mask).sum(-1)


def weighted(rewards: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
    """`T·Σ_t w_t·r_t` with w the softmax of the attention over the segment's T steps (cf. arXiv 2303.00957)."""
    weights = attention.masked_fill(~mask, -torch.inf).softmax(-1)
    return (weights * rewards).sum(-1) * mask.sum(-1)


def last(rewards: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
    """`r_T`, the reward of the segment's last step."""
    ends = mask.sum(-1) - 1
    return rewards.gather(-1, ends.expand(len(rewards), -1)[..., None])[..., 0]


AGGREGATIONS: Mapping[Aggregation, Aggregator] = {
    "sum": Aggregator(summed),
    "weighted_sum": Aggregator(weighted, "steps"),  # a step's weight follows from the step alone
    "last": Aggregator(last),
    "transformer": Aggregator(weighted, "segments"),  # a step's weight follows from the whole segment
}


class MemberLinear(nn.Module):
    """M linear layers side by side: (M, B, in) to (M, B, out)."""

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's layer to its own rows."""
        return torch.baddbmm(self.bias, x, self.weight)


class SegmentModel(nn.Module):
    """An ensemble of M reward networks on F features of a step (observation and action side by side).

    feature_mean, feature_std: (F,) the unit of the inputs. mean, std: (M,) each member's own unit; `reward` is the mean
    of the members, each normalised by them.
    """

    def __init__(self, features: int, members: int = 3, hidden: int = 64, aggregation: Aggregation = "sum") -> None:
        super().__init__()
        self.aggregator = AGGREGATIONS[aggregation]
        outputs = 2 if self.aggregator.attends == "steps" else 1
        sizes = (2 * features, hidden, hidden, outputs)
        self.layers = nn.ModuleList(MemberLinear(members, a, b) for a, b in pairwise(sizes))
        self.direct = MemberLinear(members, 2 * features, outputs)
        nn.init.zeros_(self.direct.weight)
        self.attention = nn.ModuleList(
            SegmentAttention(features) for _ in range(members if self.aggregator.attends == "segments" else 0)
        )
        self.feature_mean: Tensor
        self.feature_std: Tensor
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_std", torch.ones(features))
        self.register_buffer("mean", torch.zeros(members))
        self.register_buffer("std", torch.ones(members))

    @property
    def members(self) -> int:
        """M."""
        return len(self.mean)

    def _outputs(self, steps: Tensor) -> Tensor:
        unit = (steps - self.feature_mean) / self.feature_std
        x = both = torch.cat([unit, unit.clamp(-FAR, FAR).square()], -1).expand(self.members, -1, -1)
        for layer in self.layers[:-1]:
            x = leaky_relu(layer(x), 0.01)
        return self.layers[-1](x) + self.direct(both)

    def step_rewards(self, steps: Tensor) -> Tensor:
        """(M, B) raw reward of each of B steps, (B, F), by each member."""
        return self._outputs(steps)[..., 0]

    def scores(self, steps: Tensor, mask: Tensor) -> Tensor:
        """(M, N) score of each of N segments by each member; steps: (N, T, F), mask: (N, T), filled from the left."""
        n, t, f = steps.shape
        found = self._outputs(steps.reshape(n * t, f)).reshape(self.members, n, t, -1)
        attention = found[..., -1]
        if self.attention:
            unit = (steps - self.feature_mean) / self.feature_std
            attention = torch.stack([attend(unit, mask) for attend in self.attention])
        return self.aggregator.pool(found[..., 0], attention, mask)

    @torch.no_grad()
    def reward(self, steps: Tensor) -> Tensor:
        """(B,) `mean_m (r_m(s, a) − mean_m) / std_m`: what the agent is rewarded with."""
        return ((self.step_rewards(steps) - self.mean[:, None]) / self.std[:, None]).mean(0)


class SegmentAttention(nn.Module):
    """How much each step of a segment matters, seen beside all its other steps: one layer of a transformer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features, ATTENTION_WIDTH)
        self.layer = nn.TransformerEncoderLayer(ATTENTION_WIDTH, 2, 2 * ATTENTION_WIDTH, dropout=0.0, batch_first=True)
        self.leave = nn.Linear(ATTENTION_WIDTH, 1)
        nn.init.zeros_(self.leave.weight)  # at first every step matters alike

    def forward(self, steps: Tensor, mask: Tensor) -> Tensor:
        """(N, T) attention of (N, T, F) steps. Time enters as sine and cosine of the step's number."""
        time = torch.arange(steps.shape[1], device=steps.device)[:, None]
        rate = torch.exp(torch.arange(0, ATTENTION_WIDTH, 2, device=steps.device) * (-math.log(1e3) / ATTENTION_WIDTH))
        place = torch.cat([(time * rate).sin(), (time * rate).cos()], dim=1)
        return self.leave(self.layer(self.enter(steps) + place, src_key_padding_mask=~mask))[..., 0]
