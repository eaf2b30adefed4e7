"""Labels become pairs: who is above whom, by how much, and with whose weight."""

import pytest

from labeling.preferences import expand, expand_all
from labeling.records import Annotator, Label, Preference

ANN = Annotator("ann", "human", weight=2.0, flip_rate=0.1)
BOB = Annotator("bob", "judge", weight=0.5)


def ranked(ranks: tuple[int, ...], annotator: str = "ann", **more: float) -> Label:
    return Label("slate", annotator, "ranked", "key", ranks, **more)


def test_a_weak_order_of_three_gives_its_three_pairs() -> None:
    # Ranks 2, 1, 2: candidate 1 is best, 0 and 2 are tied. (0,1): below; (0,2): tie; (1,2): above.
    assert [(q.i, q.j, q.p) for q in expand(ranked((2, 1, 2)), ANN)] == [(0, 1, 0.0), (0, 2, 0.5), (1, 2, 1.0)]


def test_ranks_with_gaps_say_the_same_as_ranks_without() -> None:
    assert [q.p for q in expand(ranked((1, 3, 3)), ANN)] == [q.p for q in expand(ranked((1, 2, 2)), ANN)] == [1, 1, 0.5]


def test_every_pair_carries_the_annotators_weight_and_flip_rate() -> None:
    assert {(q.weight, q.flip_rate) for q in expand(ranked((3, 1, 2, 4)), ANN)} == {(2.0, 0.1)}


def test_a_probability_of_its_own_comes_before_the_ranks() -> None:
    assert expand(ranked((1, 2), probability=0.8), ANN)[0].p == 0.8
    assert expand(ranked((2, 1), probability=0.2), ANN)[0].p == 0.2


@pytest.mark.parametrize(("ranks", "margin"), [((1, 2), 0.66), ((2, 1), -0.66), ((1, 1), 0.0)])
def test_the_margin_points_to_the_preferred_side(ranks: tuple[int, int], margin: float) -> None:
    # margin is the lead of 0 over 1 that the loss asks for, so it is negative when 1 was preferred.
    assert expand(ranked(ranks, strength=0.66), ANN)[0].margin == margin


@pytest.mark.parametrize("outcome", ["both_bad", "skip", "abstain", "parse_failure", "refused", "endpoint_failure"])
def test_what_is_no_order_gives_no_pair(outcome: str) -> None:
    assert expand(Label("slate", "ann", outcome, "key"), ANN) == ()


def test_each_annotator_keeps_its_own_weight() -> None:
    found = expand_all([ranked((1, 2)), ranked((2, 1), "bob")], {"ann": ANN, "bob": BOB})
    assert found == (
        Preference("slate", 0, 1, 1.0, 0.0, 2.0, 0.1),
        Preference("slate", 0, 1, 0.0, 0.0, 0.5, 0.0),
    )
