"""Reliability: how often an annotator is right, estimated from known answers and from what others say.

One-coin Dawid–Skene (Dawid & Skene 1979) on pairs. Each pair of candidates has a better side that nobody sees;
annotator a names it with probability η_a. The Bradley–Terry loss of the reward model takes the outcome as the flip rate
`ε = 2·(1 − η)`, which makes that loss Crowd-BT's (Chen et al. 2013): `P' = η·σ(lead) + (1 − η)·σ(−lead)`.

People decide what is right, together with the known answers. Judges are measured by that, one by one, and move it for
nobody else: three judges of one mind do not outvote the people.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from labeling.agreement import Answers, Pair

# Before any evidence: as if 10 answers had been checked, of which 8 were right.
PRIOR_RIGHT, PRIOR_WRONG = 8.0, 2.0
LEAST_EVIDENCE = 20  # answers that others or a known answer can check; with fewer, the declared flip rate stands
ROUNDS = 50
MOST_FLIPS = 0.98  # the loss needs ε < 1; from here on an answer says next to nothing


@dataclass(frozen=True)
class Reliability:
    """accuracy: η with its 95 % interval, which takes the others' accuracies for known.

    checked: answers that somebody else or a known answer speaks about.
    """

    accuracy: float
    low: float
    high: float
    checked: int

    @property
    def flip_rate(self) -> float:
        """ε, the share of answers taken to be uniform noise. Worse than a coin counts as a coin."""
        return min(MOST_FLIPS, max(0.0, 2 * (1 - self.accuracy)))


@dataclass(frozen=True)
class _Votes:
    """n decisive answers as columns: who (numbers into `names`), about which pair, on which side (±1)."""

    names: list[str]
    who: np.ndarray
    pair: np.ndarray
    side: np.ndarray
    known: np.ndarray  # (pairs,) ±1 where the answer is known, else 0


def fit_reliability(
    answers: Answers, people: Collection[str], judges: Collection[str], known: Mapping[Pair, int]
) -> dict[str, Reliability]:
    """Each annotator's reliability. known: the right answer of some pairs. Ties say nothing about who is right."""
    votes = _votes(answers, people, known)
    accuracy, found = _fit(votes, {})
    for judge in judges:
        both = _votes(answers, [*people, judge], known, judge)
        found[judge] = _fit(both, accuracy)[1].get(judge, UNCHECKED)
    return {name: found.get(name, UNCHECKED) for name in (*people, *judges)}


def _votes(answers: Answers, names: Collection[str], known: Mapping[Pair, int], of: str | None = None) -> _Votes:
    """The decisive answers of `names` to pairs that can be checked (and that `of` answered)."""
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    rows: list[tuple[int, int, int]] = []
    right: list[int] = []
    for pair, said in answers.items():
        ours = [(numbers[name], side) for name, side in said.items() if name in numbers and side]
        checked = len(ours) > 1 or (known.get(pair, 0) != 0 and ours)
        if checked and (of is None or said.get(of)):
            rows += [(who, len(right), side) for who, side in ours]
            right.append(known.get(pair, 0))
    who, where, side = np.array(rows, dtype=int).reshape(-1, 3).T
    return _Votes(list(numbers), who, where, side, np.array(right, dtype=int))


def _fit(votes: _Votes, fixed: Mapping[str, float]) -> tuple[dict[str, float], dict[str, Reliability]]:
    """Expectation–maximisation over who is right and who is reliable; `fixed` accuracies stay as they are."""
    count = len(votes.names)
    given = np.array([fixed.get(name, np.nan) for name in votes.names])
    prior = PRIOR_RIGHT / (PRIOR_RIGHT + PRIOR_WRONG)
    accuracy = np.where(np.isnan(given), prior, given)
    checked = np.bincount(votes.who, minlength=count)
    for _ in range(ROUNDS):
        odds = np.log(accuracy) - np.log1p(-accuracy)
        lead = np.bincount(votes.pair, odds[votes.who] * votes.side, minlength=len(votes.known))
        first = 1 / (1 + np.exp(-np.clip(lead, -500, 500)))
        first = np.where(votes.known == 0, first, votes.known > 0)
        agrees = np.where(votes.side > 0, first[votes.pair], 1 - first[votes.pair])
        right = np.bincount(votes.who, agrees, minlength=count)
        fitted = (PRIOR_RIGHT + right) / (PRIOR_RIGHT + PRIOR_WRONG + checked)
        accuracy = np.where(np.isnan(given), fitted, given)
    # What others make of a pair says as much about η as (2q − 1)² known answers: nothing where they are torn.
    own = (np.log(accuracy) - np.log1p(-accuracy))[votes.who] * votes.side
    others = np.bincount(votes.pair, own, minlength=len(votes.known))[votes.pair] - own
    telling = np.where(votes.known[votes.pair] == 0, np.tanh(others / 2) ** 2, 1.0)
    worth = np.bincount(votes.who, telling, minlength=count)
    found = {
        name: _reliability(accuracy[n], worth[n], int(checked[n]))
        for n, name in enumerate(votes.names)
        if name not in fixed
    }
    return dict(zip(votes.names, accuracy.tolist(), strict=True)), found


def _reliability(accuracy: float, worth: float, checked: int) -> Reliability:
    """An accuracy with the interval of the Beta posterior that `worth` known answers give, from seeded draws."""
    strength = PRIOR_RIGHT + PRIOR_WRONG + worth
    drawn = np.random.default_rng(0).beta(accuracy * strength, (1 - accuracy) * strength, 4000)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Reliability(float(accuracy), float(low), float(high), checked)


UNCHECKED = _reliability(PRIOR_RIGHT / (PRIOR_RIGHT + PRIOR_WRONG), 0.0, 0)
