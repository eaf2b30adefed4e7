"""From the replies to a slate's two questions to one answer: no order of showing is trusted alone."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import cast

from judges.answer import Answer
from judges.endpoint import Completion
from judges.injection import favoured_attempt
from judges.verdict import FINAL_CALLS, TIE, VERDICTS, Verdict, read_verdict
from labeling.records import Outcome, Slate

ROUNDING = 1e-9


@dataclass(frozen=True)
class Reply:
    """What the ledger keeps of a completion: enough to read the verdict again.

    order: as it was shown. chances: probability of the verdict's first token and of its rivals A, B and TIE,
    empty when the endpoint gave none. id, model: what the endpoint called the reply, and the model that gave it.
    injected: why its verdict is not believed, if it is not.
    """

    order: tuple[int, ...]
    text: str
    finish_reason: str = "stop"
    refusal: str = ""
    chances: Mapping[str, float] | None = None
    id: str = ""
    model: str = ""
    injected: str = ""

    def to_json(self) -> str:
        """The reply as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Reply:
        """Read back what `to_json` wrote."""
        data = json.loads(text)
        return Reply(**data | {"order": tuple(data["order"])})

    @property
    def verdict(self) -> Verdict:
        """What the reply comes to."""
        return Verdict("injected", reason=self.injected) if self.injected else self.stated

    @property
    def stated(self) -> Verdict:
        """What the reply says about the places shown, believed or not."""
        return read_verdict(self.text, len(self.order), self.finish_reason, self.refusal)

    @property
    def candidate_ranks(self) -> tuple[float, ...]:
        """The ranks that it states of the candidates it is about, lowest position first; empty without a verdict."""
        ranks = self.stated.ranks
        return tuple(rank for _, rank in sorted(zip(self.order, ranks, strict=True))) if ranks else ()


def reply_of(order: tuple[int, ...], completion: Completion, slate: Slate | None = None) -> Reply:
    """Keep of a completion what the ledger needs; and whether its verdict favours an attempt to give it."""
    finish = completion.finish_reason or "stop"
    stated = read_verdict(completion.text, len(order), finish, completion.refusal)
    chances = None if stated.letter_at is None else chances_at(completion, stated.letter_at)
    injected = favoured_attempt(slate, order, stated) if slate and stated.ranks else ""
    told = completion.id, completion.model
    return Reply(order, completion.text, finish, completion.refusal, chances, *told, injected)


def chances_at(completion: Completion, at: int) -> dict[str, float] | None:
    """Probabilities of A, B and TIE where the verdict's letter stands in the text, None if they cannot be known.

    A rival counts when it continues the same characters before the letter; tokens of one rival add up.
    """
    if "".join(token for token, _ in completion.tokens) != completion.text:
        return None
    start, index = 0, 0
    while start + len(completion.tokens[index][0]) <= at:
        start += len(completion.tokens[index][0])
        index += 1
    token, alternatives = completion.tokens[index]
    before = token[: at - start]
    chances = {"A": 0.0, "B": 0.0, TIE: 0.0}
    for text, logprob in alternatives.items():
        rest = text[len(before) :].strip("]*. \n").upper()
        if text.startswith(before) and rest and math.isfinite(logprob) and logprob <= 1e-3:
            name = rest if rest in ("A", "B") else TIE if TIE.startswith(rest) else None
            if name:
                chances[name] += math.exp(min(0.0, logprob))
    return chances if sum(chances.values()) > 0 else None


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
    other. K > 2: the weak order of the candidates' mean ranks.
    """
    verdicts = [reply.verdict for reply in replies]
    if lacking := without_ranks(verdicts, seconds):
        return lacking
    if len(replies[0].order) > 2:
        return Answer("ranked", weak_order(_mean_ranks(replies, verdicts)), seconds=seconds)
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


def _mean_ranks(replies: Sequence[Reply], verdicts: Sequence[Verdict]) -> list[float]:
    totals = [0.0] * len(replies[0].order)
    for reply, verdict in zip(replies, verdicts, strict=True):
        for position, rank in zip(reply.order, verdict.ranks, strict=True):
            totals[position] += rank / len(replies)
    return totals


def weak_order(costs: Sequence[float], margin: float = 0.0) -> tuple[int, ...]:
    """Ranks 1, 2, … of the costs, lowest first. Less than `margin` from its tier's best, or equal, is a tie."""
    ranks, rank, best = [0] * len(costs), 0, -math.inf
    for position in sorted(range(len(costs)), key=lambda i: (costs[i], i)):
        if costs[position] - best >= max(margin, ROUNDING):
            rank, best = rank + 1, costs[position]
        ranks[position] = rank
    return tuple(ranks)
