"""Filters: which of a prompt's samples enter, and how often."""

import pytest
import torch
from by_hand import close

from rlhf.filters import FilterFn, all_samples, best_and_random, best_weighted, best_worst, mixed_outcome_groups

SCORES = torch.tensor([0.2, -1.0, 3.0, 0.5])


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("scores", "above", "kept"),
    [
        # Real rewards: a group without any spread goes.
        ([0.3, 0.3, 0.3], None, False),
        ([0.3, 0.3, 0.4], None, True),
        ([0.4, 0.3, 0.3], None, True),
        ([0.7], None, False),
        # Outcomes: 0 < #correct < G, correct meaning above ½.
        ([1.0, 0.0, 1.0], 0.5, True),
        ([1.0, 0.9, 0.6], 0.5, False),  # all correct, however different
        ([0.5, 0.1, 0.2], 0.5, False),  # none: ½ is not above ½
        ([1.0], 0.5, False),
    ],
)
def test_only_groups_of_mixed_outcomes(scores: list[float], above: float | None, kept: bool) -> None:
    constants = {} if above is None else {"correct_above": above}
    found = mixed_outcome_groups(torch.tensor(scores), chance(), **constants)
    assert found.tolist() == [float(kept)] * len(scores)


def test_all_and_the_two_ends() -> None:
    close(all_samples(SCORES, chance()), [1.0, 1.0, 1.0, 1.0])
    close(best_worst(SCORES, chance()), [0.0, 1.0, 1.0, 0.0])


def test_the_best_and_any_other() -> None:
    stream = chance()
    found = torch.stack([best_and_random(SCORES, stream) for _ in range(600)])
    assert (found[:, 2] == 1).all()
    assert (found.sum(1) == 2).all()
    assert all(150 < times < 250 for times in found.sum(0)[[0, 1, 3]].tolist())  # 200 each


def test_draws_with_replacement_by_weight() -> None:
    # Weights 0.5, 0.5, 1, 0.5: the best is 0.4 of all draws, each other 0.2. G draws each time.
    stream = chance()
    found = torch.stack([best_weighted(SCORES, stream, rest=0.5) for _ in range(600)])
    assert (found.sum(1) == 4).all()
    shares = (found.sum(0) / found.sum()).tolist()
    assert shares == pytest.approx([0.2, 0.2, 0.4, 0.2], abs=0.03)


@pytest.mark.parametrize("rule", [best_and_random, best_weighted])
def test_chance_comes_from_the_given_stream_alone(rule: FilterFn) -> None:
    # Else a resumed run would draw otherwise.
    def draws(seed: int) -> list[list[float]]:
        stream = chance(seed)
        return [rule(SCORES, stream).tolist() for _ in range(20)]

    assert draws(1) == draws(1) != draws(2)


def test_the_rest_has_weight_0_3_unless_told_otherwise() -> None:
    stream = chance()
    found = torch.stack([best_weighted(SCORES, stream) for _ in range(600)])
    assert (found[:, 2].sum() / found.sum()).item() == pytest.approx(1 / 1.9, abs=0.03)  # 1 of 1 + 3·0.3


@pytest.mark.parametrize("rule", [all_samples, best_and_random, best_worst, best_weighted])
def test_a_single_response_and_equal_ones_leave_somebody(rule: FilterFn) -> None:
    assert rule(torch.tensor([0.4]), chance()).tolist() == [1.0]
    assert rule(torch.full((5,), 0.4), chance()).sum() >= 1
