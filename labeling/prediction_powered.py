"""Win rates from many answers of a judge and few of people: prediction-powered inference.

A judge's win rate is sure and wrong, that of the few slates that people answered is right and unsure. Together, with M
judged slates, f the judge's P(a beats b) on each, and y people's answer (1, ½ or 0) on those that chance gave to them,

    win rate = mean f·λ + Σ w·(y − λ·f) / Σ w,    w = 1 / propensity on what people answered, else 0,

which is right for every λ, however wrong f is (Angelopoulos et al. 2023, arXiv 2301.09633). λ is the one of least
variance (PPI++, arXiv 2311.01453): 0 for a judge who knows nothing, which leaves people's answers alone. With one
propensity for all this is PPI++ of the slates with and without people's answers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np

from labeling.agreement import Pair
from labeling.intervals import Interval, wilson
from labeling.judge_quality import LEAST_AUDIT, Audits, judge_says, people_say
from labeling.records import Label, Slate, pairs

UNKNOWN = Interval(math.nan, math.nan, math.nan)
ROUNDING = 1e-18  # a judge that says the same of every slate
DOUBT = 0.5  # answers; where all n agree, they are worth n answers and not infinitely many


@dataclass(frozen=True)
class WinRate:
    """How often policy a beats b: by the judge on `judged` slates, by people on `answered` ones of its audit, and both.

    power: λ, how far the judge is relied on. by_people and both are NaN where people answered fewer than LEAST_AUDIT
    slates of the audit.
    """

    a: str
    b: str
    judge: str
    judged: int
    answered: int
    by_judge: Interval
    by_people: Interval
    both: Interval
    power: float


def power_tuned(f: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[Interval, float]:
    """The mean of y with its 95 % interval, and λ, from (M,) columns; y counts where weight > 0.

    Each unit's influence is a − λ·b, with a its own part in people's mean and b what the judge's mean over people's
    units misses; λ = Σab / Σb² within [0, 1]. The interval is Wilson's of as many yes-or-no answers as would have this
    variance: near 0 and 1 it covers where mean ± 1.96 standard errors does not.
    """
    m, answered = len(f), int((weight > 0).sum())
    w = weight * (m / weight.sum())
    ours, theirs = f.mean(), (w * f).sum() / m
    people = (w * np.where(w > 0, y, 0.0)).sum() / m
    a = w * (np.where(w > 0, y, people) - people)
    b = w * (f - theirs) - (f - ours)
    power = float(np.clip((a * b).sum() / (b * b).sum(), 0, 1)) if (b * b).mean() > ROUNDING else 0.0
    middle = min(1.0, max(0.0, float(people + power * (ours - theirs))))
    variance = float(((a - power * b) ** 2).sum()) / m**2
    worth = (middle * (1 - middle) + DOUBT / answered) / (variance + DOUBT / answered**2)
    return wilson(middle, worth), power


def win_rates(
    slates: Iterable[Slate], labels: Sequence[Label], people: Collection[str], judges: Collection[str], audits: Audits
) -> list[WinRate]:
    """Each judge's win rates of any two policies whose candidates it compared, a before b by name.

    labels: those that stand on slates whose answer is unknown. A slate with several such pairs counts once, by their
    mean.
    """
    theirs = people_say(labels, people)
    given: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.annotator in judges and label.ranks is not None:
            given[label.slate_id].append(label)
    units: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    for slate in slates:
        meetings = _meetings(slate)
        for label in given[slate.id]:
            ours = judge_says(label)
            propensity = audits.get(label.annotator, {}).get(slate.id)
            for (a, b), met in meetings.items():
                f = mean(abs(turned - ours[pair][1]) for pair, turned in met)
                answered = [abs(turned - theirs[pair]) for pair, turned in met if pair in theirs]
                weight = 1 / propensity if propensity and answered else 0.0
                units[a, b, label.annotator].append((f, mean(answered) if answered else 0.0, weight))
    return [_win_rate(*names, np.array(rows)) for names, rows in sorted(units.items())]


def _meetings(slate: Slate) -> dict[tuple[str, str], list[tuple[Pair, int]]]:
    """The pairs of a slate in which two policies meet, by their names in order; 1 where the second name is candidate i.

    Then P(first name's candidate better) is |1 − P(i better)|, else |0 − P(i better)|.
    """
    found: dict[tuple[str, str], list[tuple[Pair, int]]] = defaultdict(list)
    for i, j in pairs(len(slate.candidates)):
        a, b = slate.candidates[i].policy, slate.candidates[j].policy
        if a and b and a != b:
            found[min(a, b), max(a, b)].append((Pair(slate.id, i, j), int(a > b)))
    return found


def _win_rate(a: str, b: str, judge: str, units: np.ndarray) -> WinRate:
    """From (M, 3) rows of f, y and weight."""
    f, y, weight = units.T
    answered = int((weight > 0).sum())
    by_judge = power_tuned(f, f, np.ones_like(f))[0]
    by_people, both, power = UNKNOWN, UNKNOWN, math.nan
    if answered >= LEAST_AUDIT:
        by_people = power_tuned(np.zeros_like(f), y, weight)[0]
        both, power = power_tuned(f, y, weight)
    return WinRate(a, b, judge, len(f), answered, by_judge, by_people, both, power)
