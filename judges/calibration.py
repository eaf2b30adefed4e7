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
from types import MappingProxyType
from typing import Protocol

from judges.batch import outcome_of, pages
from judges.bias import Bias, Places, Vote, measure_bias, measure_places, place_lifts
from judges.orders import candidate_rankings, disputes, mean_ranks
from judges.reply import Reply, replies_in
from judges.slate_shares import SlateShare, slate_share
from judges.verdict import FINAL_CALLS
from labeling.agreement import Answers, Pair, pair_answers
from labeling.intervals import Interval
from labeling.records import JudgeCall, Label, Slate, pairs

NOTHING_KNOWN: Mapping[Pair, int] = MappingProxyType({})
# What each share is a part of.
WHOLES = {
    "orders agree": "orders",
    "samples agree": "samples",
    "ranked pairs agree": "ranked pairs",
    "longer": "decided",
    "right": "checked",
    "longest right": "checked",
}


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
    """outcomes: labels by type. bias: of verdicts about two candidates, whatever slate they stand in; ranked_bias: of
    the pairs in rankings of three and more, places: of what is shown first and last there. orders, samples: of two
    replies about a pair, how many name the same answer: one to either order, two to one order. rankings: of the pairs
    of candidates in rankings, about how many no order says the opposite of another. longer: of the pairs that labels
    decide, how many for the longer answer. agrees, longest: of pairs that people decided, how many the judge and the
    longest answer get right, on the same pairs.
    """

    outcomes: Counter[str]
    bias: Bias
    ranked_bias: Bias
    places: Places
    orders: SlateShare
    samples: SlateShare
    rankings: SlateShare
    longer: SlateShare
    agrees: SlateShare
    longest: SlateShare

    def lines(self) -> list[str]:
        """The figures in words."""
        counts = ", ".join(f"{n:,} {kind}" for kind, n in self.outcomes.most_common())
        b, r, p = self.bias, self.ranked_bias, self.places
        told = {
            f"labels: {counts}": self.outcomes.total(),
            f"both orders name the same answer: {_share(self.orders)} pairs": self.orders.whole,
            f"two samples name the same answer: {_share(self.samples)}": self.samples.whole,
            f"swayed {_points(b.place)} by the first place, {_points(b.length)} by the longer answer"
            f"{_by_truth(b)}, of {b.votes:,} verdicts": 0 if isnan(b.place.mean) else b.votes,
            f"in rankings of three and more the first place lifts by {_points(p.first)}, the last by "
            f"{_points(p.last)}, of {p.slates:,} slates": 0 if isnan(p.first.mean) else p.slates,
            f"rankings of three and more are swayed {_points(r.length)} by the longer answer{_by_truth(r)}, "
            f"of {r.votes:,} pairs in them": 0 if isnan(r.length.mean) else r.votes,
            f"all orders of a ranking agree about {_share(self.rankings)} pairs": self.rankings.whole,
            f"the longer answer wins: {_share(self.longer)} decided pairs": self.longer.whole,
            f"agrees with what is known or people say: {_share(self.agrees)} pairs; the longest answer: "
            f"{_share(self.longest)}": self.agrees.whole,
        }
        return [line for line, count in told.items() if count]


def truth_of(people: Answers, known: Mapping[Pair, int]) -> dict[Pair, int]:
    """The better candidate of each pair, +1 the first, −1 the second: as known, else as most people say."""
    truth = {pair: sum(said.values()) for pair, said in people.items()} | dict(known)
    return {pair: _sign(side) for pair, side in truth.items() if side}


@dataclass(frozen=True)
class Observation:
    """What is seen of a judge on one slate. votes: about two candidates, ranked: in rankings; their groups are all 0.

    counts: what goes into the shares.
    """

    outcome: str
    votes: tuple[Vote, ...] = ()
    ranked: tuple[Vote, ...] = ()
    lifts: tuple[float, float] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


def calibrate(annotator: str, books: Books, truth: Mapping[Pair, int]) -> Calibration:
    """Measure a judge by all that it was ever asked about pairs and in rankings. truth: see `truth_of`."""
    return summed(observe(slate, label, replies, truth) for slate, label, replies in _judged(annotator, books))


def summed(observations: Iterable[Observation]) -> Calibration:
    """The figures of many slates."""
    outcomes: Counter[str] = Counter()
    votes: list[Vote] = []
    ranked: list[Vote] = []
    lifts: list[tuple[float, float]] = []
    shares: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, seen in enumerate(observations):
        outcomes.update([seen.outcome] if seen.outcome else [])
        for name, whole in WHOLES.items():
            if of := seen.counts.get(whole, 0):
                shares[name].append((seen.counts.get(name, 0), of))
        votes += [vote._replace(group=number) for vote in seen.votes]
        ranked += [vote._replace(group=number) for vote in seen.ranked]
        lifts += [seen.lifts] if seen.lifts else []
    return Calibration(
        outcomes,
        measure_bias(votes),
        measure_bias(ranked),
        measure_places(lifts),
        orders=slate_share(shares["orders agree"]),
        samples=slate_share(shares["samples agree"]),
        rankings=slate_share(shares["ranked pairs agree"]),
        longer=slate_share(shares["longer"]),
        agrees=slate_share(shares["right"]),
        longest=slate_share(shares["longest right"]),
    )


def observe(
    slate: Slate, label: Label | None, replies: Sequence[Reply], truth: Mapping[Pair, int] = NOTHING_KNOWN
) -> Observation:
    """What a judge's replies about a slate and its label there say of the judge. truth: see `truth_of`."""
    k = len(slate.candidates)
    counts: Counter[str] = Counter()
    lengths = [len(candidate.text) for candidate in slate.candidates]

    def vote(first: int, second: int, chosen: int) -> Vote:
        right = truth.get(Pair(slate.id, min(first, second), max(first, second)), 0)
        return Vote(0, chosen, _sign(lengths[first] - lengths[second]), right if first < second else -right)

    said = [(reply.order, side) for reply in replies if (side := side_of(reply)) is not None]
    for (order, side), (other, again) in combinations(said, 2):
        if order == other or order == other[::-1]:
            kind = "samples" if order == other else "orders"
            counts[kind] += 1
            counts[f"{kind} agree"] += side == (again if order == other else -again)
    rankings = [reply for reply in replies if k > 2 and len(reply.order) == k and reply.stated.ranks]
    by_order = mean_ranks(rankings)
    if len(by_order) > 1:
        counts["ranked pairs"] = len(pairs(k))
        counts["ranked pairs agree"] = len(pairs(k)) - disputes(candidate_rankings(by_order))
    for (i, j), decided in pair_answers(label.ranks, label.unranked).items() if label else ():
        longer, right = _sign(lengths[i] - lengths[j]), truth.get(Pair(slate.id, i, j), 0)
        if decided and longer:
            counts["decided"] += 1
            counts["longer"] += decided == longer
        if decided and longer and right:
            counts["checked"] += 1
            counts["right"] += decided == right
            counts["longest right"] += longer == right
    return Observation(
        outcome_of(label) if label else "",
        _counted(vote(order[0], order[1], side) for order, side in said),
        _counted(vote(i, j, side) for reply in rankings for i, j, side in _implied(reply)),
        place_lifts(by_order),
        counts,
    )


def _counted(votes: Iterable[Vote]) -> tuple[Vote, ...]:
    """The same votes, each of those that are alike once."""
    return tuple(vote._replace(times=times) for vote, times in Counter(votes).items())


def _implied(reply: Reply) -> Iterator[tuple[int, int, int]]:
    """What a ranking says of each two candidates as they were shown: +1 the earlier, −1 the later, 0 a tie."""
    ranks = reply.stated.ranks
    for earlier, later in combinations(range(len(ranks)), 2):
        yield reply.order[earlier], reply.order[later], _sign(ranks[later] - ranks[earlier])


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
    """Which of two shown candidates a reply names, believed or not: +1 the first shown, −1 the second, 0 a tie.

    None where it names none, or was not about two.
    """
    ranks = reply.stated.ranks
    return _sign(ranks[1] - ranks[0]) if len(ranks) == 2 else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _by_truth(b: Bias) -> str:
    """What is left to the truth and to chance, where that is known."""
    return "" if isnan(b.truth.mean) else f", {_points(b.truth)} by the truth, {_points(b.noise)} by chance"


def _share(share: SlateShare) -> str:
    i = share.interval
    return f"{i.mean:.0%} [{i.low:.0%}, {i.high:.0%}] of {share.whole:,}"


def _points(i: Interval) -> str:
    return "{:+.0%} [{:+.0%}, {:+.0%}]".format(*i).replace("-0%", "+0%")
