"""From the replies to a slate's questions to one answer: no order of showing is trusted alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from judges.answer import Answer
from judges.reply import Reply
from judges.verdict import FINAL_CALLS, TIE, VERDICTS, Verdict
from labeling.records import Outcome, pairs

ROUNDING = 1e-9


def first_place_better(reply: Reply) -> float:
    """P(the answer shown first is better) by one verdict about a pair: from token chances, else its vote.

    (p_A + ½·p_TIE) / (p_A + p_B + p_TIE); a vote is 1, ½ or 0.
    """
    if reply.chances:
        total = sum(reply.chances.values())
        return (reply.chances["A"] + reply.chances[TIE] / 2) / total
    first, second = reply.verdict.ranks
    return 0.5 + 0.5 * ((first < second) - (first > second))


def combine(replies: Sequence[Reply], seconds: float) -> Answer:
    """One answer from all replies about a slate, to each order as often as to any other; a failure among them is it.

    Pairs: p = mean over the replies of P(candidate 0 better); the ranks are tied where the orders contradict each
    other. K > 2: see `agreed_ranks`.
    """
    verdicts = [reply.verdict for reply in replies]
    if lacking := without_ranks(verdicts, seconds):
        return lacking
    if len(replies[0].order) > 2:
        return _combine_rankings(replies, seconds)
    chances: dict[tuple[int, ...], list[float]] = defaultdict(list)
    for reply in replies:
        first = first_place_better(reply)
        chances[reply.order].append(first if reply.order[0] < reply.order[1] else 1 - first)
    means = [sum(values) / len(values) for values in chances.values()]
    p = sum(means) / len(means)
    if min(means) < 0.5 < max(means):
        return Answer("ranked", (1, 1), p, "the two orders contradict each other", seconds)
    return Answer("ranked", weak_order([1 - p, p]), p, seconds=seconds)


def combine_pairs(replies: Sequence[Reply], seconds: float) -> Answer:
    """One answer from replies about every pair of a slate's candidates, each in both orders.

    K > 2: the weak order of the candidates' wins (Copeland 1951); a pair that is tied, or whose orders contradict each
    other, is half a win for both.
    """
    if lacking := without_ranks([reply.verdict for reply in replies], seconds):
        return lacking
    asked: dict[tuple[int, ...], list[Reply]] = defaultdict(list)
    for reply in replies:
        asked[tuple(sorted(reply.order))].append(reply)
    if len(asked) == 1:
        return combine(replies, seconds)
    wins: dict[int, float] = defaultdict(float)
    for (i, j), about in asked.items():
        first, second = combine(about, 0.0).ranks or (1, 1)
        share = 0.5 + 0.5 * ((first < second) - (first > second))
        wins[i] += share
        wins[j] += 1 - share
    return Answer("ranked", weak_order([-wins[n] for n in sorted(wins)]), seconds=seconds)


def without_ranks(verdicts: Iterable[Verdict], seconds: float) -> Answer | None:
    """The answer where a verdict has no ranks: the first of those that are asked again, else the first. None if all do.

    The outcome of a label without ranks has the name of its call's.
    """
    lacking = sorted((v for v in verdicts if v.outcome not in VERDICTS), key=lambda v: v.outcome in FINAL_CALLS)
    return Answer(cast(Outcome, lacking[0].outcome), reason=lacking[0].reason, seconds=seconds) if lacking else None


def _combine_rankings(replies: Sequence[Reply], seconds: float) -> Answer:
    k = len(replies[0].order)
    rankings = candidate_rankings(mean_ranks(replies))
    disputed = disputes(rankings)
    reason = f"the orders contradict each other about {disputed} of {len(pairs(k))} pairs" if disputed else ""
    return Answer("ranked", agreed_ranks(rankings), reason=reason, seconds=seconds)


def mean_ranks(replies: Iterable[Reply]) -> dict[tuple[int, ...], list[float]]:
    """The ranks of the places, 1 = best, in the mean over the samples of each order; replies without ranks say none."""
    by_order: dict[tuple[int, ...], list[tuple[float, ...]]] = defaultdict(list)
    for reply in replies:
        if ranks := reply.stated.ranks:
            by_order[reply.order].append(ranks)
    return {order: [sum(at) / len(said) for at in zip(*said, strict=True)] for order, said in by_order.items()}


def candidate_rankings(by_order: Mapping[tuple[int, ...], Sequence[float]]) -> list[list[float]]:
    """(orders, K) the ranks of the candidates from those of the places."""
    return [[ranks[order.index(n)] for n in range(len(order))] for order, ranks in by_order.items()]


def disputes(rankings: Sequence[Sequence[float]]) -> int:
    """About how many pairs of candidates one ranking says the opposite of another."""
    return sum(_above(rankings, i, j) and _above(rankings, j, i) for i, j in pairs(len(rankings[0])))


def agreed_ranks(rankings: Sequence[Sequence[float]]) -> tuple[int, ...]:
    """The finest weak order of K candidates that no ranking contradicts. rankings: (orders, K), 1 = best.

    Two candidates are tied where one order puts the first above and another the second, and so is whatever has to
    stand between them. A mean or a majority would not do: over rotations one of two candidates is shown before the
    other more often than after it, so that a judge that follows places would give it the better mean. But a judge
    that adds something for each place to what it thinks of a candidate adds the same to both over all orders: it never
    puts the worse one above in each of them.
    """
    means = [sum(ranks) / len(rankings) for ranks in zip(*rankings, strict=True)]
    best_first = sorted(range(len(means)), key=lambda n: means[n])
    ranks, rank = [1] * len(means), 1
    for cut in range(1, len(means)):
        above, below = best_first[:cut], best_first[cut:]
        agreed = not any(_above(rankings, j, i) for i in above for j in below)
        rank += agreed and means[below[0]] - means[above[-1]] >= ROUNDING
        ranks[below[0]] = rank
    return tuple(ranks)


def _above(rankings: Sequence[Sequence[float]], i: int, j: int) -> bool:
    """Whether a ranking puts candidate i above j."""
    return any(ranks[j] - ranks[i] >= ROUNDING for ranks in rankings)


def weak_order(costs: Sequence[float], margin: float = 0.0) -> tuple[int, ...]:
    """Ranks 1, 2, … of the costs, lowest first. Less than `margin` from its tier's best, or equal, is a tie."""
    ranks, rank, best = [0] * len(costs), 0, -math.inf
    for position in sorted(range(len(costs)), key=lambda i: (costs[i], i)):
        if costs[position] - best >= max(margin, ROUNDING):
            rank, best = rank + 1, costs[position]
        ranks[position] = rank
    return tuple(ranks)
