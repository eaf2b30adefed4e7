"""How far a judge can be trusted, from its own books: outcomes, bias, self-consistency, and agreement with people.

Every figure stands beside the counts that it is made of, and agreement beside that of the rule "the longest wins",
which knows nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import isnan
from typing import Protocol

from judges.batch import outcome_of, pages
from judges.bias import Bias, Places, Vote, measure_bias, measure_places, place_lifts
from judges.orders import candidate_rankings, disputes, mean_ranks
from judges.reply import Reply, replies_in
from judges.verdict import FINAL_CALLS
from labeling.agreement import Answers, Pair, pair_answers
from labeling.intervals import Interval
from labeling.quality import Share
from labeling.records import JudgeCall, Label, Slate, pairs


class Books(Protocol):
    """Where judges' calls and labels are; the project's store is one."""

    def judged_slates(self, annotator: str) -> Iterator[Slate]:
        """The slates that a judge was asked about, page by page."""

    def judge_calls(self, annotator: str, slate_ids: Sequence[str] | None = None) -> dict[str, JudgeCall]:
        """The last attempt of each call about these slates, by key."""

    def labels_on(self, annotator: str, slate_ids: Sequence[str]) -> dict[str, Label]:
        """The label of an annotator that stands on each of these slates, by slate."""


@dataclass(frozen=True)
class Calibration:
    """outcomes: labels by type. bias: of verdicts about pairs; places: of rankings of three and more. orders, samples:
    of two replies about a pair, how many name the same answer: one to either order, two to one order. rankings: of the
    pairs of candidates in rankings, about how many no order says the opposite of another. longer: decisive labels for
    the longer answer. agrees, longest: of pairs that people decided, how many the judge and the longest answer get
    right, on the same pairs.
    """

    outcomes: Counter[str]
    bias: Bias
    places: Places
    orders: Share
    samples: Share
    rankings: Share
    longer: Share
    agrees: Share
    longest: Share

    def lines(self) -> list[str]:
        """The figures in words."""
        counts = ", ".join(f"{n:,} {kind}" for kind, n in self.outcomes.most_common())
        b, p = self.bias, self.places
        checked = f", {_points(b.truth)} by the truth, {_points(b.noise)} by chance" if not isnan(b.truth.mean) else ""
        told = {
            f"labels: {counts}": self.outcomes.total(),
            f"both orders name the same answer: {_share(self.orders)} pairs": self.orders.whole,
            f"two samples name the same answer: {_share(self.samples)}": self.samples.whole,
            f"swayed {_points(b.place)} by the first place, {_points(b.length)} by the longer answer{checked}, "
            f"of {b.votes:,} verdicts": 0 if isnan(b.place.mean) else b.votes,
            f"in rankings of three and more the first place lifts by {_points(p.first)}, the last by "
            f"{_points(p.last)}, of {p.slates:,} slates": 0 if isnan(p.first.mean) else p.slates,
            f"all orders of a ranking agree about {_share(self.rankings)} pairs": self.rankings.whole,
            f"the longer answer wins: {_share(self.longer)} decided pairs": self.longer.whole,
            f"agrees with what is known or people say: {_share(self.agrees)} pairs; the longest answer: "
            f"{_share(self.longest)}": self.agrees.whole,
        }
        return [line for line, count in told.items() if count]


def truth_of(people: Answers, known: Mapping[Pair, int]) -> dict[str, int]:
    """The better candidate of each pair slate, +1 the first, −1 the second: as known, else as most people say."""
    truth = {pair.slate_id: sum(said.values()) for pair, said in people.items() if (pair.i, pair.j) == (0, 1)}
    truth |= {pair.slate_id: side for pair, side in known.items() if (pair.i, pair.j) == (0, 1)}
    return {slate: (side > 0) - (side < 0) for slate, side in truth.items() if side}


@dataclass(frozen=True)
class Observation:
    """What is seen of a judge on one slate. votes: their groups are all 0. counts: what goes into the shares."""

    outcome: str
    votes: tuple[Vote, ...] = ()
    lifts: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def calibrate(annotator: str, books: Books, truth: Mapping[str, int]) -> Calibration:
    """Measure a judge by all that it was ever asked about pairs and in rankings. truth: see `truth_of`."""
    return summed(
        observe(slate, label, replies, truth.get(slate.id, 0)) for slate, label, replies in _judged(annotator, books)
    )


def summed(observations: Iterable[Observation]) -> Calibration:
    """The figures of many slates."""
    counts: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    votes: list[Vote] = []
    lifts: list[tuple[float, float]] = []
    for number, seen in enumerate(observations):
        outcomes.update([seen.outcome] if seen.outcome else [])
        counts.update(seen.counts)
        votes += [vote._replace(group=number) for vote in seen.votes]
        lifts += [seen.lifts] if seen.lifts else []
    return Calibration(
        outcomes,
        measure_bias(votes),
        measure_places(lifts),
        orders=Share(counts["orders agree"], counts["orders"]),
        samples=Share(counts["samples agree"], counts["samples"]),
        rankings=Share(counts["ranked pairs agree"], counts["ranked pairs"]),
        longer=Share(counts["longer"], counts["decided"]),
        agrees=Share(counts["right"], counts["checked"]),
        longest=Share(counts["longest right"], counts["checked"]),
    )


def observe(slate: Slate, label: Label | None, replies: Sequence[Reply], right: int = 0) -> Observation:
    """What a judge's replies about a slate and its label there say of the judge.

    right: the better candidate of a pair, +1 the first, −1 the second, 0 where it is not known.
    """
    outcome = outcome_of(label) if label else ""
    k = len(slate.candidates)
    if k > 2:
        by_order = mean_ranks(reply for reply in replies if len(reply.order) == k)
        if len(by_order) < 2:
            return Observation(outcome)
        compared = len(pairs(k))
        agree = compared - disputes(candidate_rankings(by_order))
        counted = {"ranked pairs": compared, "ranked pairs agree": agree}
        return Observation(outcome, lifts=place_lifts(by_order), counts=counted)
    counts: Counter[str] = Counter()
    longer = longer_side(slate)
    said = [(reply.order, side) for reply in replies if (side := side_of(reply)) is not None]
    for (order, side), (other, again) in combinations(said, 2):
        kind = "samples" if order == other else "orders"
        counts[kind] += 1
        counts[f"{kind} agree"] += side == again
    places = [(1 if order == (0, 1) else -1, side) for order, side in said]
    decided = pair_answers(label.ranks)[0, 1] if label and label.ranks else 0
    if decided and longer:
        counts["decided"] += 1
        counts["longer"] += decided == longer
    if decided and longer and right:
        counts["checked"] += 1
        counts["right"] += decided == right
        counts["longest right"] += longer == right
    votes = tuple(Vote(0, place * side, place * longer, place * right) for place, side in places)
    return Observation(outcome, votes, counts=counts)


def _judged(annotator: str, books: Books) -> Iterator[tuple[Slate, Label | None, list[Reply]]]:
    """What a judge was asked about, with its label and its replies, page by page."""
    for page in pages(books.judged_slates(annotator)):
        ids = [slate.id for slate in page]
        labels, replies = books.labels_on(annotator, ids), replies_by_slate(books.judge_calls(annotator, ids))
        yield from ((slate, labels.get(id), replies[id]) for slate, id in zip(page, ids, strict=True))


def replies_by_slate(calls: Mapping[str, JudgeCall]) -> dict[str, list[Reply]]:
    """The replies that calls got and that settle a question, by slate; [] for a slate without."""
    replies: dict[str, list[Reply]] = defaultdict(list)
    for call in calls.values():
        if call.outcome in FINAL_CALLS:
            replies[call.slate_id].extend(replies_in(call.reply))
    return replies


def side_of(reply: Reply) -> int | None:
    """Which candidate of a pair a reply names, believed or not: +1 the first, −1 the second, 0 a tie, None neither."""
    ranks = reply.candidate_ranks
    return (ranks[0] < ranks[1]) - (ranks[0] > ranks[1]) if ranks else None


def longer_side(slate: Slate) -> int:
    """Which candidate of a pair is longer, in characters: +1 the first, −1 the second, 0 neither."""
    first, second = (len(candidate.text) for candidate in slate.candidates)
    return (first > second) - (first < second)


def _share(share: Share) -> str:
    i = share.interval
    return f"{i.mean:.0%} [{i.low:.0%}, {i.high:.0%}] of {share.whole:,}"


def _points(i: Interval) -> str:
    return "{:+.0%} [{:+.0%}, {:+.0%}]".format(*i).replace("-0%", "+0%")
