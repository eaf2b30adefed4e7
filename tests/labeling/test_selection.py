"""Which candidates become a slate, and whether the propensity that is written down is the true one."""

import random
from collections import Counter

import pytest

from labeling.selection import Choice, choose

DRAWS = 6000  # standard error of a frequency <= 0.0065
PREDICTED = (0.0, 1.0, 5.0, 2.0)


def draws(selector: str, predicted: tuple[float, ...] = PREDICTED, distinct: tuple[int, ...] = (0, 1, 2, 3)) -> list:
    chance = random.Random(7)
    return [choose(distinct, predicted, 2, selector, 0.3, chance) for _ in range(DRAWS)]


@pytest.mark.parametrize("selector", ["random", "large_gap"])
def test_each_set_comes_as_often_as_its_propensity_says(selector: str) -> None:
    made = draws(selector)
    seen = Counter(frozenset(choice.positions) for choice in made)
    told = {frozenset(choice.positions): choice.propensity for choice in made}
    assert len(told) == 6  # C(4, 2); also the wide one leaves a chance to every other
    for positions, propensity in told.items():
        assert seen[positions] / DRAWS == pytest.approx(propensity, abs=0.025)


def test_the_widest_gap_has_what_chance_leaves_over() -> None:
    # Widest of 0, 1, 5, 2 is {0, 2}. Propensity (1 − 0.3) + 0.3/6 = 0.75; each other 0.3/6 = 0.05.
    told = {frozenset(c.positions): c.propensity for c in draws("large_gap")}
    assert told[frozenset({0, 2})] == pytest.approx(0.75)
    assert told[frozenset({1, 3})] == pytest.approx(0.05)


def test_the_selector_that_is_written_down_is_the_arm_that_chose() -> None:
    arms = Counter(choice.selector for choice in draws("large_gap"))
    assert arms["random"] / DRAWS == pytest.approx(0.3, abs=0.025)
    assert {frozenset(c.positions) for c in draws("large_gap") if c.selector == "large_gap"} == {frozenset({0, 2})}


def test_positions_are_those_of_distinct_and_scores_those_of_all() -> None:
    # Among the positions 1, 2, 3 the scores 1, 5, 2 are widest apart at 1 and 2.
    wide = {frozenset(c.positions) for c in draws("large_gap", distinct=(1, 2, 3)) if c.selector == "large_gap"}
    assert wide == {frozenset({1, 2})}


def test_without_predictions_the_choice_is_uniform() -> None:
    made = draws("large_gap", predicted=())
    assert {(c.selector, c.propensity) for c in made} == {("random", 1 / 6)}


def test_places_in_the_slate_are_shuffled() -> None:
    firsts = Counter(c.positions[0] for c in draws("large_gap") if c.selector == "large_gap")
    assert firsts[0] / firsts.total() == pytest.approx(0.5, abs=0.03)


def test_the_same_stream_makes_the_same_choice() -> None:
    one, other = (choose((0, 1, 2, 3), PREDICTED, 3, "random", 0.2, random.Random(3)) for _ in range(2))
    assert one == other == Choice(one.positions, "random", 0.25)  # C(4, 3) = 4 sets
