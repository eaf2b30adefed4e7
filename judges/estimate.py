"""What a run of a judge will come to, before anything is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from judges.answer import Judge, Waiting
from judges.budget import FREE, PICTURE_TOKENS, TOKENS_PER_BYTE, Size
from judges.canaries import EVERY
from judges.canary_rides import riders
from judges.criteria_judge import CriteriaJudge
from judges.endpoint_judge import EndpointJudge
from judges.endpoint_run import is_clips
from judges.ledger import Ledger
from labeling.records import Slate, Spending, UsualCall

ENOUGH_CALLS = 20  # from so many on, what calls came to before says more than the bytes of a question
ASSUMED_SECONDS = 1.0


@dataclass(frozen=True)
class Estimate:
    """What is to be asked, and about what it will take. cost: in dollars, None where the price is not known.

    canary_calls: those of the calls that are about canaries.
    measured: whether tokens and seconds follow from earlier calls of the judge, or are assumed.
    """

    slates: int
    calls: int
    canary_calls: int
    prompt_tokens: float
    completion_tokens: float
    cost: float | None
    seconds: float
    measured: bool

    @property
    def spending(self) -> Spending:
        """The same as it will stand in the books."""
        return Spending(self.calls, round(self.prompt_tokens), round(self.completion_tokens), self.cost or 0.0)


def estimate(judge: EndpointJudge, slates: Iterable[Waiting], usual: UsualCall, ledger: Ledger) -> Estimate:
    """Estimate what labeling the slates will take, with the canaries; the few calls of the probe are left out.

    usual: what the judge's calls came to so far.
    """
    batch, endpoint = judge.batch, judge.endpoint
    apart = batch is not None and batch.asks_endpoint  # one set is asked call by call, before anything is submitted
    labeling, riding = _Calls(), _Calls()
    count = 0
    for waiting in slates:
        labeling.add(judge.unanswered(waiting))
        if count % EVERY == 0 and not is_clips(waiting) and not (apart and count):
            for _, rider in riders(judge, ledger, count):
                riding.add(judge.unanswered(rider))
        count += 1
    measured = usual.calls >= ENOUGH_CALLS
    usual_reply = usual.completion_tokens if measured else endpoint.max_tokens * endpoint.replies_per_call
    share = batch.share_of_price if batch else 1.0
    price = judge.price if share else FREE
    prompt = reply = cost = 0.0
    for calls, part in ((labeling, share), (riding, 1.0 if apart else share)):
        asked = calls.count * usual.prompt_tokens if measured else calls.prompt_tokens
        prompt, reply = prompt + asked, reply + calls.count * usual_reply
        cost += (price or FREE).of(asked, calls.count * usual_reply) * part
    total = labeling.count + riding.count
    minutes = [
        math.ceil(total / endpoint.concurrency) * (usual.seconds if measured else ASSUMED_SECONDS) / 60,
        total / endpoint.requests_per_minute if endpoint.requests_per_minute else 0.0,
        (prompt + reply) / endpoint.tokens_per_minute if endpoint.tokens_per_minute else 0.0,
    ]
    return Estimate(count, total, riding.count, prompt, reply, cost if price else None, 60 * max(minutes), measured)


def counted(judge: Judge, slates: Iterable[Slate]) -> int:
    """How many slates a judge that costs nothing will label. Raises UserError for one that it will refuse."""
    count = 0
    for slate in slates:
        if isinstance(judge, CriteriaJudge):
            judge.check(slate)
        count += 1
    return count


@dataclass
class _Calls:
    """Calls to be made, and about how many tokens their questions have, with pictures at their most."""

    count: int = 0
    prompt_tokens: float = 0.0

    def add(self, sizes: Iterable[Size]) -> None:
        for size in sizes:
            self.count += 1
            self.prompt_tokens += size.text * TOKENS_PER_BYTE + size.pictures * PICTURE_TOKENS
