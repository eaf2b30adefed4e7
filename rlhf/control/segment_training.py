"""Fitting the ensemble to labelled slates: the one Bradley–Terry loss, each member on its own bootstrap sample.

A slate enters each member's sample Poisson(1) times, so a share 1/e of the slates is new to a member: on these its
weight decay is adjusted (Christiano 2017, arXiv 1706.03741). Nothing here has a state: a fit is a function.
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
from rlhf.random_streams import stream_seed, torch_stream

OVERFITS, UNDERFITS = 1.5, 1.1  # validation / train loss above which the decay grows, below which it shrinks
LEAST_DECAY, MOST_DECAY = 1e-4, 10.0
CHECKS = 10  # of the decay in each fit, so that it comes from one end to the other in two


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
    """How the ensemble is fitted: `updates` steps of Adam on `slates_per_step` slates. seed names the bootstrap."""

    updates: int
    learning_rate: float
    slates_per_step: int
    seed: int
    iteration: int


@dataclass(frozen=True)
class Fitted:
    """The outcome of a fit: the weights, each member's decay, and mean losses of a slate, in and out of the sample."""

    state: dict[str, Tensor]
    decay: tuple[float, ...]
    train_loss: float
    validation_loss: float


def bootstrap_counts(names: Sequence[str], members: int, seed: int) -> Tensor:
    """(M, S) how often each slate enters each member's sample: Poisson(1), the same at every refit."""
    rows = [
        [np.random.default_rng(stream_seed(seed, "bootstrap", name, m)).poisson(1.0) for name in names]
        for m in range(members)
    ]
    return torch.tensor(rows, dtype=torch.float32)


def fit_segments(model: SegmentModel, data: LabeledSegments, decay: Sequence[float], how: SegmentFit) -> Fitted:
    """Fit a copy of the model, starting from its weights, and set its units; the model itself stays as it is.

    Minimises `Σ_m Σ_slates count_m·ℓ_m` with ℓ the Bradley–Terry loss of a slate (`rlhf.bradley_terry`) and a decoupled
    weight decay for each member, which grows while the loss on the slates that a member has not seen is more than 1.5 ×
    that on its own, and shrinks below 1.1 ×.
    """
    model = copy.deepcopy(model).train()
    steps, mask = torch.from_numpy(data.steps), torch.from_numpy(data.mask)
    _set_feature_unit(model, steps[mask])
    counts = bootstrap_counts([name for name, _ in data.slates], model.members, how.seed)
    batches = _Batches(data, counts)
    decays = torch.tensor(decay)
    optimizer = torch.optim.Adam(model.parameters(), lr=how.learning_rate)
    chance = torch_stream(how.seed, how.iteration, "fit")
    train = validation = torch.full((model.members,), torch.nan)
    check_every = max(1, how.updates // CHECKS)
    for update in range(1, how.updates + 1):
        chosen = torch.randint(len(data.slates), (min(how.slates_per_step, len(data.slates)),), generator=chance)
        candidates, targets, sampled = batches.cut(chosen.numpy())
        losses = member_losses(model, steps[candidates], mask[candidates], targets, len(chosen))
        optimizer.zero_grad(set_to_none=True)
        ((losses * sampled).sum() / len(chosen)).backward()
        optimizer.step()
        _decay(model, decays * how.learning_rate)
        if update % check_every == 0:
            train, validation = _in_and_out(model, steps, mask, batches)
            decays = adapt_decay(decays, train, validation)
    _set_member_unit(model, data)
    return Fitted(
        {name: tensor.detach().clone() for name, tensor in model.state_dict().items()},
        tuple(decays.tolist()),
        train.nanmean().item(),
        validation.nanmean().item(),
    )


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


def adapt_decay(decay: Tensor, train: Tensor, validation: Tensor) -> Tensor:
    """(M,) each member's decay: ×2 when it overfits, ÷2 when it could learn more, as it was where nothing is known."""
    ratio = validation / train.clamp(min=1e-6)
    factor = torch.where(ratio > OVERFITS, 2.0, torch.where(ratio < UNDERFITS, 0.5, 1.0))
    return (decay * factor).clamp(LEAST_DECAY, MOST_DECAY)


@torch.no_grad()
def _in_and_out(model: SegmentModel, steps: Tensor, mask: Tensor, batches: _Batches) -> tuple[Tensor, Tensor]:
    """(M,) mean loss of the slates in each member's sample, and of the others (NaN where there are none)."""
    candidates, targets, counts = batches.cut(np.arange(len(batches.sizes)))
    losses = member_losses(model, steps[candidates], mask[candidates], targets, len(batches.sizes))
    unseen = (counts == 0).float()
    return (losses * counts).sum(1) / counts.sum(1), (losses * unseen).sum(1) / unseen.sum(1)


@torch.no_grad()
def _decay(model: SegmentModel, amount: Tensor) -> None:
    """Shrink the weights (not the biases) of each member by its own share."""
    for layer in (*model.layers, model.direct):
        layer.weight.mul_((1 - amount)[:, None, None])
    for attend, share in zip(model.attention, amount.tolist(), strict=False):
        for parameter in attend.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1 - share)


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

    def __init__(self, data: LabeledSegments, counts: Tensor) -> None:
        self.sizes = np.asarray(data.sizes)
        self.firsts = np.cumsum(self.sizes) - self.sizes
        self.counts = counts
        self.targets = pair_targets([(k, p) for k, (_, p) in zip(data.sizes, data.slates, strict=True)])
        self.pairs = np.asarray([len(p) for _, p in data.slates])
        self.first_pairs = np.cumsum(self.pairs) - self.pairs

    def cut(self, chosen: np.ndarray) -> tuple[Tensor, PairTargets, Tensor]:
        """The segments of the chosen slates, their pairs renumbered, and (M, chosen) how often each was sampled."""
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
        return torch.from_numpy(candidates), targets, self.counts[:, chosen]


def _ranges(firsts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Concatenate `firsts[n] … firsts[n] + sizes[n] − 1`."""
    return np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
