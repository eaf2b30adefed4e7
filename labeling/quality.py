"""How well each annotator does, and the project as a whole: everything that the Quality page and its files say.

Pure functions of labels; the store hands them in (`labeling.stored_quality`). A share comes with the count behind it,
and with its 95 % interval (Wilson) where a decision may hang on it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from labeling.agreement import Agreement, Pair, agreement, answers_of, cohen_kappa, pair_answers, with_others
from labeling.intervals import Interval, wilson
from labeling.judge_quality import Audits, measuring
from labeling.records import Annotator, Label
from labeling.reliability import LEAST_EVIDENCE, UNCHECKED, Reliability, fit_reliability

NO_AUDITS: Audits = {}


@dataclass(frozen=True)
class Share:
    """`part` of `whole` cases."""

    part: int
    whole: int

    @property
    def interval(self) -> Interval:
        """The share with its Wilson interval; NaN without any case."""
        return wilson(self.part / self.whole, self.whole) if self.whole else Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class AnnotatorQuality:
    """One annotator's work.

    labels: answers that stand; ranked: of them, those with an order. gold: pairs with a known answer that were right.
    repeats: pairs of mirrored repeats on which they said the same again. first_place: decisive pairs on which the
    candidate shown first won; one half where the place says nothing. agrees: with other people, of pairs that both
    answered; kappa: the same beyond chance. seconds: the median time of an answer. flip_rate: what the reward model
    uses, fitted where enough can be checked and else declared. revoked: why their labels count for nothing, or None.
    """

    annotator: Annotator
    labels: int
    ranked: int
    gold: Share
    repeats: Share
    first_place: Share
    agrees: Share
    kappa: float
    seconds: float
    reliability: Reliability
    flip_rate: float
    revoked: str | None


@dataclass(frozen=True)
class Quality:
    """The project's people and judges. disputed: slates on which people contradict each other and nobody decided."""

    annotators: tuple[AnnotatorQuality, ...]
    agreement: Agreement
    disputed: int


def known_answers(gold: Mapping[str, Sequence[int]], decided: Iterable[Label]) -> dict[Pair, int]:
    """The right answer of each pair: of items with a known answer, and of slates that somebody decided."""
    ranks = {**gold, **{label.slate_id: label.ranks for label in decided if label.ranks is not None}}
    return {Pair(slate, i, j): side for slate, r in ranks.items() for (i, j), side in pair_answers(r).items()}


def reliabilities(
    labels: Sequence[Label],
    annotators: Mapping[str, Annotator],
    gold: Mapping[str, Sequence[int]],
    audits: Audits = NO_AUDITS,
) -> dict[str, Reliability]:
    """Of every person and judge, from standing labels. A simulated annotator's errors are declared, not fitted.

    audits: what was drawn at random for people to measure a judge by; enough of that, and nothing else measures it.
    """
    people, judges = (_of_kind(annotators, kind) for kind in ("human", "judge"))
    teaching = measuring([label for label in labels if label.purpose == "teach"], people, audits)
    decided = [label for label in labels if label.decides]
    return fit_reliability(answers_of(teaching), people, judges, known_answers(gold, decided))


def fitted(annotators: Mapping[str, Annotator], found: Mapping[str, Reliability]) -> dict[str, Annotator]:
    """The annotators with the flip rates that their answers show, where enough of these can be checked."""
    return {
        name: Annotator(a.id, a.kind, a.weight, found[name].flip_rate)
        if name in found and found[name].checked >= LEAST_EVIDENCE
        else a
        for name, a in annotators.items()
    }


def disputed_slates(labels: Iterable[Label], people: Collection[str]) -> list[str]:
    """Slates on which two people name opposite sides of a pair, and that nobody decided; in the order of the labels."""
    by_slate: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        if label.annotator in people and (label.decides or label.ranks is not None):
            by_slate[label.slate_id].append(label)
    return [
        slate
        for slate, given in by_slate.items()
        if not any(label.decides for label in given)
        and any({1, -1} <= set(said.values()) for said in answers_of(given).values())
    ]


def measure(
    labels: Sequence[Label],
    repeats: Sequence[Label],
    annotators: Mapping[str, Annotator],
    gold: Mapping[str, Sequence[int]],
    revoked: Mapping[str, str],
    audits: Audits = NO_AUDITS,
) -> Quality:
    """The quality of all labels that stand. repeats: answers to planned repeats. audits: see `reliabilities`."""
    by_name: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_name[label.annotator].append(label)
    people = _of_kind(annotators, "human")
    answers = answers_of(label for label in labels if label.purpose == "teach")
    found = reliabilities(labels, annotators, gold, audits)
    used = fitted(annotators, found)
    again: dict[str, list[Label]] = defaultdict(list)
    for label in repeats:
        again[label.annotator].append(label)
    rows = []
    for name, annotator in annotators.items():
        own, both = by_name[name], with_others(answers, name, people)
        seconds = [label.seconds for label in own if label.seconds is not None]
        rows.append(
            AnnotatorQuality(
                annotator,
                len(own),
                sum(label.ranks is not None for label in own),
                _right(own, gold),
                _same_again(own, again[name]),
                _first_place([*own, *again[name]]),
                Share(sum(a == b for a, b in both), len(both)),
                cohen_kappa(both),
                median(seconds) if seconds else math.nan,
                found.get(name, UNCHECKED),
                used[name].flip_rate,
                revoked.get(name),
            )
        )
    of_people = {pair: {n: a for n, a in said.items() if n in people} for pair, said in answers.items()}
    open_ones = (label for label in labels if label.slate_id not in gold)  # where the answer is known, nobody decides
    return Quality(tuple(rows), agreement(of_people), len(disputed_slates(open_ones, people)))


def _of_kind(annotators: Mapping[str, Annotator], kind: str) -> list[str]:
    return [name for name, a in annotators.items() if a.kind == kind]


def _right(own: Iterable[Label], gold: Mapping[str, Sequence[int]]) -> Share:
    """Of decided pairs with a known answer, those that this annotator got right."""
    part = whole = 0
    for label in own:
        said, right = pair_answers(label.ranks, label.unranked), pair_answers(gold.get(label.slate_id))
        decided = [pair for pair in said if right.get(pair)]
        whole += len(decided)
        part += sum(said[pair] == right[pair] for pair in decided)
    return Share(part, whole)


def _same_again(own: Iterable[Label], again: Iterable[Label]) -> Share:
    before = {label.slate_id: pair_answers(label.ranks, label.unranked) for label in own}
    part = whole = 0
    for label in again:
        now, then = pair_answers(label.ranks, label.unranked), before.get(label.slate_id, {})
        both = now.keys() & then.keys()
        whole += len(both)
        part += sum(now[pair] == then[pair] for pair in both)
    return Share(part, whole)


def _first_place(given: Iterable[Label]) -> Share:
    """Of decided pairs whose places are known, those where the one shown first won."""
    part = whole = 0
    for label in given:
        place = {candidate: n for n, candidate in enumerate(label.order)}
        for (i, j), side in pair_answers(label.ranks, label.unranked).items():
            if side and i in place and j in place:
                whole += 1
                part += (side > 0) == (place[i] < place[j])
    return Share(part, whole)
