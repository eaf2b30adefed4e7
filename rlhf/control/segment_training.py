"""Fitting the ensemble to labelled slates: the one Bradley–Terry loss, and every member learns from every label.

The members differ by their first weights alone, as those of Lakshminarayanan et al. 2017 (arXiv 1612.01474). A
bootstrap sample for each, as in Christiano 2017 (arXiv 1706.03741), hides a third of the few labels from every member;
without it they predict the true reward of unseen steps better (benchmarks/RESULTS.md). Nothing here has a state: a fit
is a function.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from labeling.records import Preference
from rlhf.bradley_terry import PairTargets, pair_targets, preference_losses
from rlhf.control.segment_model import SegmentModel
from rlhf.random_streams import torch_stream


@dataclass(frozen=True)
class LabeledSegments:
    """S labelled slates as arrays.

    steps: (C, T, F) float32, the segments of all slates in order, padded with zeros. mask: (C, T) bool. slates: the id
    and the preferences of each; sizes: (S,) how many of the C segments are its own.
    """

    steps: np.ndarray
    mask: np.ndarray
    slates: tuple[tuple[str, tuple[Preference, ...]], ...]
    sizes: tuple[int, ...]


def gather(slates: Sequence[tuple[str, Sequence[np.ndarray], Sequence[Preference]]]) -> LabeledSegments:
    """Pad and stack slates given as (id, the (T_k, F) steps of each segment, preferences)."""
    segments = [steps for _, group, _ in slates for steps in group]
    longest = max(map(len, segments))
    steps = np.zeros((len(segments), longest, segments[0].shape[1]), dtype=np.float32)
    mask = np.zeros((len(segments), longest), dtype=bool)
    for n, segment in enumerate(segments):
        steps[n, : len(segment)] = segment
        mask[n, : len(segment)] = True
    named = tuple((name, tuple(preferences)) for name, _, preferences in slates)
    return LabeledSegments(steps, mask, named, tuple(len(group) for _, group, _ in slates))


@dataclass(frozen=True)
class SegmentFit:
    """How the ensemble is fitted: `updates` steps of Adam on `slates_per_step` slates, drawn by seed and iteration."""

    updates: int
    learning_rate: float
    slates_per_step: int
    seed: int
    iteration: int


@dataclass(frozen=True)
class Fitted:
    """The outcome of a fit: the weights, and the mean loss of a slate over all members afterwards."""

    state: dict[str, Tensor]
    train_loss: float


def fit_segments(model: SegmentModel, data: LabeledSegments, how: SegmentFit) -> Fitted:
    """Fit a copy of the model, starting from its weights, and set its units; the model itself stays as it is.

    Minimises `Σ_m Σ_slates ℓ_m` with ℓ the Bradley–Terry loss of a slate (`rlhf.bradley_terry`) under member m.
    """
    model = copy.deepcopy(model).train()
    steps, mask = torch.from_numpy(data.steps), torch.from_numpy(data.mask)
    _set_feature_unit(model, steps[mask])
    batches = _Batches(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=how.learning_rate)
    chance = torch_stream(how.seed, how.iteration, "fit")
    for _ in range(how.updates):
        chosen = torch.randint(len(data.slates), (min(how.slates_per_step, len(data.slates)),), generator=chance)
        candidates, targets = batches.cut(chosen.numpy())
        losses = member_losses(model, steps[candidates], mask[candidates], targets, len(chosen))
        optimizer.zero_grad(set_to_none=True)
        losses.mean(1).sum().backward()
        optimizer.step()
    with torch.no_grad():
        loss = member_losses(model, steps, mask, batches.targets, len(data.slates)).mean().item()
    _set_member_unit(model, data)
    return Fitted({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, loss)


def member_losses(model: SegmentModel, steps: Tensor, mask: Tensor, targets: PairTargets, slates: int) -> Tensor:
    """(M, slates) Bradley–Terry loss of each slate under each member: `(1/C(K,2)) Σ w·ℓ` over its pairs."""
    scores = model.scores(steps, mask)
    count = scores.shape[1]
    # One call for all members: member m's candidates are numbered from m·count.
    shift = torch.arange(model.members)[:, None] * count
    everyone = replace(
        targets,
        i=(targets.i + shift).ravel(),
        j=(targets.j + shift).ravel(),
        p=targets.p.repeat(model.members),
        margin=targets.margin.repeat(model.members),
        flip_rate=targets.flip_rate.repeat(model.members),
    )
    pairs = preference_losses(scores.ravel(), everyone).reshape(model.members, -1) * targets.weight
    return torch.zeros(model.members, slates).index_add(1, targets.slate, pairs)


def _set_feature_unit(model: SegmentModel, rows: Tensor) -> None:
    model.feature_mean.copy_(rows.mean(0))
    model.feature_std.copy_(rows.std(0).clamp(min=1e-3) if len(rows) > 1 else torch.ones(rows.shape[1]))


@torch.no_grad()
def _set_member_unit(model: SegmentModel, data: LabeledSegments) -> None:
    """Unit scale for each member over the labelled steps, and zero mean where the level means nothing.

    Preferences between segments of one length say nothing about the level of r, so its mean is put at 0. Once some
    segment was cut short by the end of its episode, the level says whether going on beats ending (0), and it stays.
    """
    rows = torch.from_numpy(data.steps[data.mask])
    rewards = model.step_rewards(rows)
    level_known = bool((data.mask.sum(1) < data.mask.shape[1]).any())
    model.mean.copy_(torch.zeros(model.members) if level_known else rewards.mean(1))
    model.std.copy_(rewards.std(1).clamp(min=1e-4))


class _Batches:
    """The preferences of all slates as columns, from which those of some slates are cut with NumPy's speed."""

    def __init__(self, data: LabeledSegments) -> None:
        self.sizes = np.asarray(data.sizes)
        self.firsts = np.cumsum(self.sizes) - self.sizes
        self.targets = pair_targets([(k, p) for k, (_, p) in zip(data.sizes, data.slates, strict=True)])
        self.pairs = np.asarray([len(p) for _, p in data.slates])
        self.first_pairs = np.cumsum(self.pairs) - self.pairs

    def cut(self, chosen: np.ndarray) -> tuple[Tensor, PairTargets]:
        """The segments of the chosen slates, and their pairs renumbered."""
        candidates = _ranges(self.firsts[chosen], self.sizes[chosen])
        pairs = _ranges(self.first_pairs[chosen], self.pairs[chosen])
        new_first = np.cumsum(self.sizes[chosen]) - self.sizes[chosen]
        slate = np.repeat(np.arange(len(chosen)), self.pairs[chosen])
        shift = torch.from_numpy((new_first - self.firsts[chosen])[slate])
        t, at = self.targets, torch.from_numpy(pairs)
        targets = PairTargets(
            t.i[at] + shift,
            t.j[at] + shift,
            t.p[at],
            t.margin[at],
            t.flip_rate[at],
            t.weight[at],
            len(chosen),
            torch.from_numpy(slate),
        )
        return torch.from_numpy(candidates), targets


def _ranges(firsts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Concatenate `firsts[n] … firsts[n] + sizes[n] − 1`."""
    return np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
