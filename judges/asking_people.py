"""Which of a judge's slates people are to answer too: a random share, to measure the judge by, and its doubtful cases.

The random share is drawn by a number in [0, 1) that a slate's id alone gives: a slate is in the audit when its number
is below the share. So the draw is the same in every run and for every judge, a larger share contains a smaller one,
and, since people get the lowest numbers first, an audit that they only began is a random sample too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from judges.batch import pages
from judges.calibration import replies_by_slate
from judges.reply import Reply
from labeling.records import HumanRequest, JudgeCall, Label, RequestReason, Slate, content_id, pairs

HARDLY = 0.8  # a pair counts as undecided from here on: |p − ½| of at most a tenth


class Judged(Protocol):
    """Where a judge's calls and labels are, and what people answered; the project's store is one."""

    def ranked_slates(self, annotator: str) -> Iterator[Slate]:
        """The slates that a judge ranked, page by page."""

    def judge_calls(self, annotator: str, slate_ids: Sequence[str] | None = None) -> dict[str, JudgeCall]:
        """The last attempt of each call about these slates, by key."""

    def labels_on(self, annotator: str, slate_ids: Sequence[str]) -> dict[str, Label]:
        """The label of an annotator that stands on each of these slates, by slate."""

    def answered_by_people(self, slate_ids: Sequence[str]) -> set[str]:
        """Those of the slates that some person answered."""

    def human_requests(self, judge: str | None = None) -> list[HumanRequest]:
        """What people are to answer of a judge's slates."""


def lot(slate_id: str) -> float:
    """The number in [0, 1) that a slate draws: uniform over slates, and always the same for the same one."""
    return int(content_id("audit", slate_id)[-12:], 16) / 16**12


def audit(judge: str, share: float, judged: Judged) -> Iterator[HumanRequest]:
    """A random share of all slates that a judge ranked, each drawn on its own."""
    for slate in judged.ranked_slates(judge):
        if (number := lot(slate.id)) < share:
            yield HumanRequest(slate.id, judge, "audit", number, share)


def route(judge: str, budget: int, judged: Judged) -> list[HumanRequest]:
    """The most doubtful slates of a judge that no person answered or is to answer, a request for each reason to doubt.

    budget: how many slates of this judge are sent to people in all; those that were sent before count.
    """
    requests = judged.human_requests()
    sent = {request.slate_id for request in requests if request.judge == judge and request.reason != "audit"}
    asked = {request.slate_id for request in requests}
    found: list[tuple[float, str, Mapping[RequestReason, float]]] = []
    for page in pages(judged.ranked_slates(judge)):
        ids = [slate.id for slate in page]
        labels, replies = judged.labels_on(judge, ids), replies_by_slate(judged.judge_calls(judge, ids))
        spared = judged.answered_by_people(ids) | asked
        for slate, id in zip(page, ids, strict=True):
            if id not in spared and (reasons := doubts(slate, labels[id], replies[id])):
                found.append((len(reasons) + max(reasons.values()), id, reasons))
    found.sort(key=lambda doubtful: (-doubtful[0], lot(doubtful[1])))
    return [
        HumanRequest(id, judge, reason, 1 + 1 / (1 + doubt))
        for doubt, id, reasons in found[: max(0, budget - len(sent))]
        for reason in reasons
    ]


def doubts(slate: Slate, label: Label, replies: Sequence[Reply]) -> dict[RequestReason, float]:
    """The reasons to doubt a judge's ranking, each with how much in (0, 1].

    orders: the share of pairs of which two orders of showing name opposite sides. margin: the mean of 1 − |2p − 1|, p
    the judge's P(i better), from HARDLY on. reward_model: the mean of |p − q| over all pairs, where the reward model
    that was there when the slate was chosen names the other side with q = σ(score_i − score_j), from ½ on.
    """
    compared = [(i, j, _soft(label, i, j)) for i, j in pairs(len(slate.candidates))]
    opposite = [_opposite(replies, i, j) for i, j, _ in compared]
    even = [1 - abs(2 * p - 1) for _, _, p in compared]
    scores = slate.lineage.predicted
    other = [(p, _sigmoid(scores[i] - scores[j])) for i, j, p in compared] if scores else []
    apart = [abs(p - q) if (p - 0.5) * (q - 0.5) < 0 else 0.0 for p, q in other]
    found: dict[RequestReason, tuple[float, float]] = {
        "orders": (_mean(opposite), 1 / len(compared)),
        "margin": (_mean(even), HARDLY),
        "reward_model": (_mean(apart), 0.5),
    }
    return {reason: doubt for reason, (doubt, least) in found.items() if doubt >= least}


def _soft(label: Label, i: int, j: int) -> float:
    if label.probability is not None:
        return label.probability
    assert label.ranks is not None
    return 0.5 + 0.5 * ((label.ranks[i] < label.ranks[j]) - (label.ranks[i] > label.ranks[j]))


def _opposite(replies: Sequence[Reply], i: int, j: int) -> float:
    """Whether two orders of showing give opposite sides of a pair: 1 or 0."""
    sides = defaultdict(set)
    for reply in replies:
        ranks = reply.candidate_ranks
        if i in ranks and j in ranks:
            sides[reply.order].add((ranks[i] < ranks[j]) - (ranks[i] > ranks[j]))
    return float(len(sides) > 1 and {1, -1} <= set().union(*sides.values()))


def _sigmoid(x: float) -> float:
    return (1 + math.tanh(x / 2)) / 2


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
