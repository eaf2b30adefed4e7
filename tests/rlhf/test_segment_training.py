"""Fitting the ensemble: its loss is the one of any slate, its samples stay, and it learns what was planted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from labeling.records import Preference, pairs
from rlhf.bradley_terry import pair_targets, slate_loss
from rlhf.control.segment_model import AGGREGATIONS, SegmentModel
from rlhf.control.segment_training import (
    LEAST_DECAY,
    MOST_DECAY,
    LabeledSegments,
    SegmentFit,
    _Batches,
    adapt_decay,
    bootstrap_counts,
    fit_segments,
    gather,
    member_losses,
)

FEATURES, LENGTH = 8, 10
SEEDS = (0, 1, 2)


def mixed(seed: int = 0, sizes: Sequence[int] = (2, 4, 3, 2, 5)) -> LabeledSegments:
    """Slates of several sizes with ties, doubts, margins, weights and flip rates; one is answered twice, one never."""
    chance = np.random.default_rng(seed)
    slates = []
    for n, k in enumerate(sizes):
        segments = [chance.normal(size=(int(chance.integers(2, 6)), 3)).astype(np.float32) for _ in range(k)]
        answers = [
            Preference(f"s{n}", i, j, p, margin, 0.5 + n, 0.1 * (n % 3))
            for _ in range(2 if n == 1 else 0 if n == 3 else 1)
            for (i, j), p, margin in zip(
                pairs(k), chance.choice([0.0, 0.5, 1.0, 0.7], 10), chance.uniform(0, 0.5, 10), strict=False
            )
        ]
        slates.append((f"s{n}", segments, answers))
    return gather(slates)


def model_of(aggregation: str = "sum", features: int = 3, members: int = 3) -> SegmentModel:
    torch.manual_seed(1)
    return SegmentModel(features, members, 16, aggregation).eval()  # type: ignore[arg-type]


def fit(updates: int = 5, seed: int = 0, iteration: int = 1) -> SegmentFit:
    return SegmentFit(updates, 3e-3, 32, seed, iteration)


# Arrays and losses


def test_segments_are_padded_with_zeros_and_kept_in_order() -> None:
    data = gather([("a", [np.ones((2, 3)), 2 * np.ones((4, 3))], []), ("b", [3 * np.ones((1, 3))], [])])
    assert data.mask.sum(1).tolist() == [2, 4, 1]
    assert data.steps[:, 0, 0].tolist() == [1, 2, 3]
    assert data.steps[~data.mask].sum() == 0
    assert (data.sizes, [name for name, _ in data.slates]) == ((2, 1), ["a", "b"])


@pytest.mark.parametrize("aggregation", sorted(AGGREGATIONS))
def test_the_loss_of_each_member_is_the_loss_of_slates(aggregation: str) -> None:
    data, model = mixed(), model_of(aggregation)
    steps, mask = torch.from_numpy(data.steps), torch.from_numpy(data.mask)
    groups = [(k, p) for k, (_, p) in zip(data.sizes, data.slates, strict=True)]
    with torch.no_grad():
        found = member_losses(model, steps, mask, pair_targets(groups), len(groups))
        scores = model.scores(steps, mask)
    assert found.shape == (3, 5)
    for m in range(3):
        assert found[m].mean().item() == pytest.approx(slate_loss(scores[m], pair_targets(groups)).item(), rel=1e-5)
        for s, part in enumerate(scores[m].split(list(data.sizes))):
            alone = slate_loss(part, pair_targets([groups[s]])).item()
            assert found[m, s].item() == pytest.approx(alone, rel=1e-5, abs=1e-7)
    assert not found[:, 3].any()  # nobody answered
    assert found[:, [0, 1, 2, 4]].min() > 0


def test_one_pair_by_hand() -> None:
    # Scores 1 and 0, p = 1, margin 0.25, ε = 0.2, weight 2: P' = 0.8·σ(0.75) + 0.1; loss = −2·ln P'.
    model = model_of(features=1, members=1)
    for layer in model.layers:
        layer.weight.data.zero_()
        layer.weight.data[:, 0, 0] = 1
        layer.bias.data.zero_()
    data = gather([("a", [np.ones((1, 1)), np.zeros((1, 1))], [Preference("a", 0, 1, 1.0, 0.25, 2.0, 0.2)])])
    targets = pair_targets([(2, data.slates[0][1])])
    loss = member_losses(model, torch.from_numpy(data.steps), torch.from_numpy(data.mask), targets, 1)
    assert loss.item() == pytest.approx(-2 * math.log(0.8 / (1 + math.exp(-0.75)) + 0.1), rel=1e-5)


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3, 4], [4, 2, 0], [1, 1, 3, 4, 1], [2], [3]])
def test_cutting_slates_into_batches_changes_nothing(chosen: list[int]) -> None:
    data, model = mixed(), model_of()
    steps, mask = torch.from_numpy(data.steps), torch.from_numpy(data.mask)
    groups = [(k, p) for k, (_, p) in zip(data.sizes, data.slates, strict=True)]
    counts = torch.arange(15).reshape(3, 5).float()
    candidates, targets, sampled = _Batches(data, counts).cut(np.asarray(chosen))
    with torch.no_grad():
        whole = member_losses(model, steps, mask, pair_targets(groups), len(groups))
        part = member_losses(model, steps[candidates], mask[candidates], targets, len(chosen))
    assert torch.allclose(part, whole[:, chosen], atol=1e-6)
    assert torch.equal(sampled, counts[:, chosen])
    assert targets.slates == len(chosen)


# The bootstrap


def test_a_slate_enters_a_sample_as_often_at_every_refit() -> None:
    names = [f"slate_{n}" for n in range(50)]
    counts = bootstrap_counts(names, 3, 7)
    assert torch.equal(counts, bootstrap_counts(names, 3, 7))
    more = bootstrap_counts(["new", *names[::-1]], 3, 7)
    assert torch.equal(more[:, 1:].flip(1), counts)
    assert not torch.equal(counts[0], counts[1])
    assert not torch.equal(counts, bootstrap_counts(names, 3, 8))


def test_a_share_1_over_e_of_the_slates_is_new_to_a_member() -> None:
    counts = bootstrap_counts([f"slate_{n}" for n in range(2000)], 3, 0)
    # Poisson(1): P(0) = P(1) = 1/e, mean 1, variance 1; standard errors over 6000 draws: 0.006, 0.006, 0.013, 0.02.
    assert (counts == 0).float().mean().item() == pytest.approx(1 / math.e, abs=0.025)
    assert (counts == 1).float().mean().item() == pytest.approx(1 / math.e, abs=0.025)
    assert counts.mean().item() == pytest.approx(1, abs=0.05)
    assert counts.var().item() == pytest.approx(1, abs=0.1)


# The decay


def test_the_decay_goes_up_down_or_stays() -> None:
    train = torch.tensor([1.0, 1.0, 1.0, 1.0, torch.nan])
    validation = torch.tensor([1.6, 1.05, 1.3, torch.nan, 1.0])
    found = adapt_decay(torch.full((5,), 0.01), train, validation)
    assert found.tolist() == pytest.approx([0.02, 0.005, 0.01, 0.01, 0.01])


def test_the_decay_stays_within_its_bounds() -> None:
    found = adapt_decay(torch.tensor([MOST_DECAY, LEAST_DECAY]), torch.ones(2), torch.tensor([9.0, 0.5]))
    assert found.tolist() == pytest.approx([MOST_DECAY, LEAST_DECAY])


def test_the_decay_shrinks_the_weights_of_its_own_member() -> None:
    # Nobody answered, so the gradient is 0 and only the decay acts: (1 − 0.5·0.003)² after two steps.
    data = gather([("s", [np.ones((2, 3)), np.zeros((2, 3))], [])])
    model = model_of()
    model.direct.weight.data.fill_(1.0)  # zeros at first, which cannot shrink
    fitted = fit_segments(model, data, (0.5, 0.0, 0.0), SegmentFit(2, 3e-3, 4, 0, 1))
    for name, layer in (("layers.0", model.layers[0]), ("direct", model.direct)):
        before, after = layer.get_parameter("weight").data, fitted.state[f"{name}.weight"]
        assert torch.allclose(after[0], before[0] * (1 - 0.5 * 3e-3) ** 2, rtol=1e-5)
        assert (after[0].abs() < before[0].abs()).all()
        assert torch.allclose(after[1:], before[1:], rtol=1e-6)


def test_the_decay_arrives_within_one_fit() -> None:
    """Random labels can only be learned by heart, so it doubles at nearly each of its ten checks."""
    data, model = planted(0, 60, "random"), SegmentModel(FEATURES, 3, 64).eval()
    fitted = fit_segments(model, data, (0.01,) * 3, SegmentFit(300, 1e-3, 64, 0, 1))
    assert min(fitted.decay) > 1


# A fit


@pytest.mark.parametrize("aggregation", ["sum", "transformer"])
def test_a_fit_leaves_the_model_as_it_is_and_gives_the_same_again(aggregation: str) -> None:
    data, model = mixed(), model_of(aggregation)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one = fit_segments(model, data, (0.01,) * 3, fit())
    torch.manual_seed(99)  # chance elsewhere
    other = fit_segments(model, data, (0.01,) * 3, fit())
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
        assert torch.equal(one.state[name], other.state[name]), name
    assert (one.decay, one.train_loss) == (other.decay, other.train_loss)
    assert not torch.equal(one.state["layers.0.weight"], before["layers.0.weight"])
    later = fit_segments(model, data, (0.01,) * 3, fit(iteration=2))
    assert not torch.equal(one.state["layers.0.weight"], later.state["layers.0.weight"])


def planted(seed: int, slates: int, labels: str = "true", split: str = "train", lengths: Sequence[int] = (LENGTH,)):
    """Pairs of random segments; the one with the larger Σ_t w·x_t is preferred (w the same for train and test).

    labels: "cost" prefers the smaller Σ_t |x_t|².
    """
    truth = np.random.default_rng(seed).normal(size=FEATURES)
    chance = np.random.default_rng([seed, len(split)])
    made = []
    for n in range(slates):
        group = [chance.normal(size=(int(chance.choice(lengths)), FEATURES)).astype(np.float32) for _ in range(2)]
        first = float((group[0] @ truth).sum() > (group[1] @ truth).sum())
        cheaper = float((group[0] ** 2).sum() < (group[1] ** 2).sum())
        p = {"true": first, "cost": cheaper, "flipped": 1 - first, "random": float(chance.random() < 0.5)}[labels]
        made.append((f"{split}{n}", group, [Preference(f"{split}{n}", 0, 1, p)]))
    return gather(made)


def accuracy(seed: int, labels: str, slates: int = 300, truth: str = "true") -> float:
    """Share of 300 unseen pairs in which a model fitted to so many others puts the truly better one first."""
    model = model_of(features=FEATURES)
    fitted = fit_segments(model, planted(seed, slates, labels), (0.01,) * 3, fit(300, seed))
    model.load_state_dict(fitted.state)
    test = planted(seed, 300, truth, "heldout")
    with torch.no_grad():
        scores = model.scores(torch.from_numpy(test.steps), torch.from_numpy(test.mask)).mean(0)
    better = torch.tensor([p.p == 1 for _, (p,) in test.slates])
    return ((scores[::2] > scores[1::2]) == better).float().mean().item()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_reward_is_learned_from_pairs(seed: int) -> None:
    assert accuracy(seed, "true") > 0.85


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cost_of_squares_is_learned_from_few_pairs(seed: int) -> None:
    assert accuracy(seed, "cost", slates=80, truth="cost") > 0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_flipped_labels_teach_the_opposite(seed: int) -> None:
    assert accuracy(seed, "flipped") < 0.15


def test_random_labels_teach_nothing() -> None:
    # Agreement of two random directions in 8 dimensions: mean 0.5, standard deviation about 1/(π·√8) = 0.11.
    found = [accuracy(seed, "random") for seed in SEEDS]
    assert max(found) < 0.8
    assert sum(found) / 3 == pytest.approx(0.5, abs=0.2)


# The unit


@pytest.mark.parametrize(("lengths", "level_kept"), [((LENGTH,), False), ((LENGTH, 4), True)])
def test_the_level_is_kept_only_where_some_segment_is_shorter(lengths: tuple[int, ...], level_kept: bool) -> None:
    data = planted(0, 20, lengths=lengths)
    model = model_of(features=FEATURES)
    for bias in model.layers[-1].bias.data:
        bias.fill_(2.0)  # a level that no comparison of equal lengths changes
    model.load_state_dict(fit_segments(model, data, (0.0,) * 3, fit()).state)
    rows = torch.from_numpy(data.steps[data.mask])
    raw = model.step_rewards(rows)
    assert torch.allclose(raw.std(1), model.std)
    if level_kept:
        assert not model.mean.any()
        assert model.reward(rows).mean() > 1
    else:
        assert torch.allclose(model.mean, raw.mean(1), atol=1e-5)
        assert model.reward(rows).mean().abs() < 1e-4
    assert torch.allclose(model.feature_mean, rows.mean(0), atol=1e-5)
    assert torch.allclose(model.feature_std, rows.std(0), atol=1e-5)
