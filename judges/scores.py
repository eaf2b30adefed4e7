"""From the scores of single candidates to one answer about their slate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from judges.answer import Answer
from judges.orders import weak_order, without_ranks
from judges.reply import Reply, named
from labeling.records import Slate


def mean_scores(slate: Slate, replies: Iterable[Reply]) -> list[float]:
    """(K,) the mean score of each candidate over the replies about it; empty unless each has one.

    A reply may have been given when the candidate stood in another slate, at another position.
    """
    given: dict[str, list[float]] = defaultdict(list)
    for reply in replies:
        if reply.score is not None:
            given[reply.candidate].append(reply.score)
    found = [given[named(slate, n)] for n in range(len(slate.candidates))]
    return [sum(scores) / len(scores) for scores in found] if all(found) else []


def combine_scores(slate: Slate, replies: Sequence[Reply], seconds: float) -> Answer:
    """The weak order of the candidates' mean scores, of equals a tie; a failure among the replies is it.

    The scores stand in the answer's reason. A candidate that tries to give its score must not win by it: where it
    scores above one that makes no attempt, the answer is `injected`.
    """
    if lacking := without_ranks([reply.verdict for reply in replies], seconds):
        return lacking
    scores = mean_scores(slate, replies)
    ranks = weak_order([-score for score in scores])
    attempts = {reply.candidate: reply.attempt for reply in replies if reply.attempt}
    made = [attempts.get(named(slate, n), "") for n in range(len(ranks))]
    honest = max((rank for rank, attempt in zip(ranks, made, strict=True) if not attempt), default=0)
    for n, attempt in enumerate(made):
        if attempt and ranks[n] < honest:
            reason = f"the scores favour candidate {n + 1}, which tries to give its own ({attempt})"
            return Answer("injected", reason=reason, seconds=seconds)
    told = ", ".join(f"{score:.4g}" for score in scores)
    return Answer("ranked", ranks, reason=f"scores {told}", seconds=seconds)
