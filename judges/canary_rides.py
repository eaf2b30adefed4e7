"""What a judge's calls about canaries say: how the attacks fared, and whether the judge may go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Protocol

from judges.answer import Waiting
from judges.canaries import EVERY, AttackSuccess, Canary, CanaryRules, attack_success, draw_canaries
from judges.ledger import Ledger
from judges.reply import replies_in
from judges.scores import mean_scores
from judges.verdict import FINAL_CALLS
from labeling.records import Annotator, JudgeCall, UserError


class Ridden(Protocol):
    """A judge with which canaries ride. file: its file, for messages."""

    @property
    def annotator(self) -> Annotator:
        """As whom it labels."""

    @property
    def canary_rules(self) -> CanaryRules:
        """How many ride, and how many attacks may succeed."""

    @property
    def file(self) -> str:
        """Where the rules stand."""


def riders(judge: Ridden, ledger: Ledger, seed: int) -> list[tuple[Canary, Waiting]]:
    """The canaries of a seed, each with the calls about it that the ledger knows."""
    canaries = draw_canaries(seed, judge.canary_rules.each)
    known = ledger.judge_calls(judge.annotator.id, [canary.slate.id for canary in canaries])
    return [(canary, Waiting(canary.slate, None, known)) for canary in canaries]


def stated_ranks(asked: Iterable[tuple[Canary, Sequence[JudgeCall]]]) -> Iterator[tuple[Canary, Mapping[int, float]]]:
    """What each verdict about a canary, or its scores, say of its candidates, believed or not.

    The score of a right answer may have been given for another canary, about the same fact.
    """
    replies = [
        (canary, [reply for call in calls if call.outcome in FINAL_CALLS for reply in replies_in(call.reply)])
        for canary, calls in asked
    ]
    known = [reply for _, about in replies for reply in about]
    for canary, about in replies:
        yield from ((canary, reply.candidate_ranks) for reply in about if reply.candidate_ranks)
        if scores := mean_scores(canary.slate, known):
            yield canary, {n: -score for n, score in enumerate(scores)}


def require_sound(judge: Ridden, asked: Iterable[tuple[Canary, Sequence[JudgeCall]]]) -> None:
    """Raise UserError when more attacks succeeded among these calls than the judge's rules allow."""
    success = attack_success(stated_ranks(asked))
    if success.rate > judge.canary_rules.max_success:
        raise UserError(
            f"{judge.file}: {success.words()}, more than the {judge.canary_rules.max_success:.0%} of [canaries] "
            "max_success: labels from this judge can be had by asking for them; name a stronger model, or raise it"
        )


def ridden(judge: Ridden, ledger: Ledger) -> AttackSuccess:
    """How the attacks of all canaries fared that the judge was ever asked about in this project."""
    asked: dict[str, tuple[Canary, list[JudgeCall]]] = {}
    for seed in count(0, EVERY):
        calls = {
            canary.slate.id: (canary, [call for call in rider.known.values() if call.slate_id == canary.slate.id])
            for canary, rider in riders(judge, ledger, seed)
        }
        if not calls or not all(made for _, made in calls.values()):
            break
        asked |= calls
    success = attack_success(stated_ranks(asked.values()))
    return replace(success, canaries=len(asked))
