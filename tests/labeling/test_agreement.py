"""Agreement and reliability against numbers worked out by hand, and against annotators whose accuracy is planted."""

from __future__ import annotations

from math import isnan
from random import Random

import numpy as np
import pytest

from labeling.agreement import (
    Pair,
    agreement,
    answers_of,
    cohen_kappa,
    coincidences,
    krippendorff_alpha,
    pair_answers,
    with_others,
)
from labeling.records import Label
from labeling.reliability import MOST_FLIPS, Reliability, fit_reliability


def ranked(slate: str, who: str, ranks: tuple[int, ...], unranked: tuple[int, ...] = ()) -> Label:
    return Label(slate, who, "ranked", f"{slate}-{who}-key", ranks, unranked=unranked)


def test_a_ranking_says_something_of_each_pair() -> None:
    assert pair_answers((2, 1, 2)) == {(0, 1): -1, (0, 2): 0, (1, 2): 1}
    # Of the two that were left out nothing is said.
    assert pair_answers((1, 2, 2), (1, 2)) == {(0, 1): 1, (0, 2): 1}
    assert pair_answers(None) == {}
    assert answers_of([ranked("s", "a", (1, 2)), ranked("s", "b", (1, 1))]) == {Pair("s", 0, 1): {"a": 1, "b": 0}}


def test_alpha_of_two_annotators_by_hand() -> None:
    # Pairs (1,1), (1,1), (−1,−1), (1,−1). Coincidences: o(1,1) = 2 + 2 = 4, o(−1,−1) = 2, o(1,−1) = o(−1,1) = 1.
    # n = 8, n(1) = 5, n(−1) = 3. α = 1 − 7·2 / (2·5·3) = 1 − 14/30 = 8/15.
    total = sum((coincidences(said) for said in ((1, 1), (1, 1), (-1, -1), (1, -1))), np.zeros((3, 3)))
    assert krippendorff_alpha(total) == pytest.approx(8 / 15)


def test_alpha_of_three_annotators_by_hand() -> None:
    # (1, 1, 0): each of the 6 ordered pairs counts 1/2: o(1,1) = 1, o(1,0) = o(0,1) = 1. (−1, −1): o(−1,−1) = 2.
    # n = 5, n(1) = 2, n(0) = 1, n(−1) = 2. α = 1 − 4·2 / (25 − 4 − 1 − 4) = 1 − 8/16 = 1/2.
    total = coincidences((1, 1, 0)) + coincidences((-1, -1))
    assert krippendorff_alpha(total) == pytest.approx(0.5)


def test_alpha_says_nothing_where_chance_says_the_same() -> None:
    assert isnan(krippendorff_alpha(coincidences((1, 1))))
    assert isnan(krippendorff_alpha(coincidences((1,))))
    assert isnan(agreement({Pair("s", 0, 1): {"a": 1}}).alpha.mean)


def test_agreement_counts_pairs_and_slates() -> None:
    said = answers_of([ranked("s", "a", (1, 2, 3)), ranked("s", "b", (1, 3, 2)), ranked("t", "a", (2, 1))])
    found = agreement(said)
    # Of the three pairs of s, two are said alike; t was answered once.
    assert (found.pairs, found.slates) == (3, 1)
    assert found.share == pytest.approx(2 / 3)


def test_random_answers_agree_by_chance_only() -> None:
    chance = Random(0)
    said = {Pair(f"s{n}", 0, 1): {who: chance.choice((-1, 1)) for who in "abc"} for n in range(500)}
    found = agreement(said)
    assert found.alpha.low < 0 < found.alpha.high
    assert abs(found.alpha.mean) < 0.08


def test_kappa_by_hand() -> None:
    # Of 10 answers 7 are the same. Ours: six 1, four −1; theirs: five and five. p_e = 0.3 + 0.2 = 0.5, κ = 0.2/0.5.
    pairs = [(1, 1)] * 4 + [(1, -1)] * 2 + [(-1, -1)] * 3 + [(-1, 1)]
    assert cohen_kappa(pairs) == pytest.approx((0.7 - 0.5) / 0.5)
    assert isnan(cohen_kappa([(1, 1)]))
    assert isnan(cohen_kappa([]))


def test_with_others_leaves_oneself_and_strangers_out() -> None:
    said = {Pair("s", 0, 1): {"a": 1, "b": 1, "c": -1}, Pair("t", 0, 1): {"b": 1}}
    assert sorted(with_others(said, "a", ["a", "b"])) == [(1, 1)]
    assert sorted(with_others(said, "a", ["b", "c"])) == [(1, -1), (1, 1)]


# Reliability

PLANTED = {"careful": 0.95, "fair": 0.8, "sloppy": 0.65, "coin": 0.5}


def world(seed: int, n: int = 1200, known: float = 0.05) -> tuple[dict[Pair, dict[str, int]], dict[Pair, int]]:
    chance = Random(seed)
    said: dict[Pair, dict[str, int]] = {}
    right: dict[Pair, int] = {}
    for i in range(n):
        pair, truth = Pair(f"s{i}", 0, 1), chance.choice((-1, 1))
        people = {**PLANTED, "judge": 0.75}
        said[pair] = {
            who: truth if chance.random() < p else -truth for who, p in people.items() if chance.random() < 0.6
        }
        if chance.random() < known:
            right[pair] = truth
    return said, right


@pytest.mark.parametrize("known", [0.0, 0.05])
def test_planted_accuracies_are_found(known: float) -> None:
    inside = total = 0
    for seed in range(8):
        said, right = world(seed, known=known)
        found = fit_reliability(said, list(PLANTED), ["judge"], right)
        for who, planted in {**PLANTED, "judge": 0.75}.items():
            assert abs(found[who].accuracy - planted) < 0.1, (who, found[who])
            inside += found[who].low <= planted <= found[who].high
            total += 1
    assert inside / total > 0.85  # the intervals take the others' reliabilities for known: they cover a little less


def test_judges_of_one_mind_do_not_outvote_people() -> None:
    chance = Random(1)
    said: dict[Pair, dict[str, int]] = {}
    for n in range(300):
        truth = chance.choice((-1, 1))
        wrong = {f"judge{j}": -truth if chance.random() < 0.9 else truth for j in range(3)}
        people = {who: truth if chance.random() < 0.8 else -truth for who in ("ann", "bob")}
        said[Pair(f"s{n}", 0, 1)] = {**people, **wrong}
    found = fit_reliability(said, ["ann", "bob"], ["judge0", "judge1", "judge2"], {})
    alone = fit_reliability(said, ["ann", "bob"], [], {})
    assert found["ann"] == alone["ann"]
    assert found["ann"].accuracy > 0.7
    assert all(found[f"judge{j}"].accuracy < 0.35 for j in range(3))


def test_one_persons_word_weighs_what_one_person_is_worth() -> None:
    # The judge agrees with the only person in 3 of 5: 0.8·η + 0.2·(1 − η) = 0.6 has η = 2/3.
    said = {Pair(f"s{n}", 0, 1): {"ann": 1, "judge": 1 if n % 5 < 3 else -1} for n in range(1000)}
    found = fit_reliability(said, ["ann"], ["judge"], {})
    assert found["judge"].accuracy == pytest.approx(2 / 3, abs=0.02)
    assert found["ann"].checked == 0


def test_known_answers_turn_a_majority_of_liars_over() -> None:
    chance = Random(2)
    said: dict[Pair, dict[str, int]] = {}
    right: dict[Pair, int] = {}
    for n in range(300):
        pair, truth = Pair(f"s{n}", 0, 1), chance.choice((-1, 1))
        said[pair] = {"liar1": -truth, "liar2": -truth, "honest": truth}
        if n % 4 == 0:
            right[pair] = truth
    found = fit_reliability(said, ["liar1", "liar2", "honest"], [], right)
    assert found["honest"].accuracy > 0.9
    assert found["liar1"].accuracy < 0.1
    assert found["liar1"].flip_rate == MOST_FLIPS


def test_who_was_never_checked_has_the_prior() -> None:
    said = {Pair("s", 0, 1): {"a": 1}, Pair("t", 0, 1): {"a": 0, "b": 1}}
    found = fit_reliability(said, ["a", "b"], ["judge"], {})
    assert {r.checked for r in found.values()} == {0}
    assert {r.accuracy for r in found.values()} == {0.8}


def test_the_flip_rate_is_that_of_the_loss() -> None:
    # P' = (1 − ε)·P + ε/2 is right with probability 1 − ε/2 where P is certain.
    assert Reliability(0.9, 0.8, 1.0, 50).flip_rate == pytest.approx(0.2)
    assert Reliability(1.0, 0.9, 1.0, 50).flip_rate == 0
