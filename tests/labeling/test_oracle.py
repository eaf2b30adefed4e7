"""The simulated annotator answers with the frequencies of Bradley-Terry."""

import math

import pytest

from labeling.oracle import oracle_label
from labeling.records import Annotator, Candidate, Message, Prompt, Slate

ORACLE = Annotator("oracle:test", "oracle")
PAIR = Slate(Prompt((Message("user", "why?"),)), (Candidate("a"), Candidate("b")))
THREE = Slate(PAIR.prompt, (Candidate("a"), Candidate("b"), Candidate("c")))
SEEDS = 4000  # standard error of a frequency <= 0.5 / sqrt(4000) = 0.008; 0.03 is nearly four of them


def frequency(slate: Slate, gold: tuple[float, ...], i: int, j: int, **how: float) -> float:
    """How often candidate i comes out above j."""
    labels = [oracle_label(slate, gold, ORACLE, seed, 0.1, **how) for seed in range(SEEDS)]
    return sum(label.ranks is not None and label.ranks[i] < label.ranks[j] for label in labels) / SEEDS


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("gold", [(0.3, 0.1), (0.1, 0.3), (0.2, 0.2)])
def test_a_pair_follows_the_difference_over_the_temperature(gold: tuple[float, float]) -> None:
    # (0.3 − 0.1)/0.1 = 2, σ(2) = 0.881; the other way round 0.119; equal 0.5.
    assert frequency(PAIR, gold, 0, 1) == pytest.approx(sigmoid((gold[0] - gold[1]) / 0.1), abs=0.03)


def test_inside_a_ranking_each_pair_follows_the_same_law() -> None:
    gold = (0.10, 0.30, 0.25)
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert frequency(THREE, gold, i, j) == pytest.approx(sigmoid((gold[i] - gold[j]) / 0.1), abs=0.03)


def test_errors_are_uniform_at_the_flip_rate() -> None:
    # P' = (1 − ε)·σ(2) + ε/2 = 0.5·0.8808 + 0.25 = 0.690
    assert frequency(PAIR, (0.3, 0.1), 0, 1, flip_rate=0.5) == pytest.approx(0.690, abs=0.03)


def test_random_labels_know_nothing_of_the_score() -> None:
    assert frequency(PAIR, (9.0, 0.0), 0, 1, random_labels=True) == pytest.approx(0.5, abs=0.03)


def test_the_answer_depends_on_seed_and_slate_alone() -> None:
    first, again = (oracle_label(THREE, (0.1, 0.2, 0.3), ORACLE, 5, 0.1) for _ in range(2))
    assert first == again
    others = {oracle_label(THREE, (0.2, 0.2, 0.2), ORACLE, seed, 0.1).ranks for seed in range(60)}
    assert len(others) == 6  # all orders of three occur
    assert oracle_label(THREE, (0.1, 0.2, 0.3), ORACLE, 6, 0.1).client_key != first.client_key
