"""What a run of a judge will come to, before anything is asked."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from judges.answer import Waiting
from judges.budget import FREE, TOKENS_PER_BYTE
from judges.endpoint_judge import EndpointJudge
from labeling.records import UsualCall

ENOUGH_CALLS = 20  # from so many on, what calls came to before says more than the bytes of a question
ASSUMED_SECONDS = 1.0


@dataclass(frozen=True)
class Estimate:
    """What is to be asked, and about what it will take. cost: in dollars, None where the price is not known.

    measured: whether tokens and seconds follow from earlier calls of the judge, or are assumed.
    """

    slates: int
    calls: int
    prompt_tokens: float
    completion_tokens: float
    cost: float | None
    seconds: float
    measured: bool


def estimate(judge: EndpointJudge, slates: Iterable[Waiting], usual: UsualCall) -> Estimate:
    """Estimate what labeling the slates will take. usual: what the judge's calls came to so far."""
    count = calls = text = 0
    for waiting in slates:
        count += 1
        for size in judge.unanswered(waiting):
            calls, text = calls + 1, text + size.text
    measured = usual.calls >= ENOUGH_CALLS
    prompt = calls * usual.prompt_tokens if measured else text * TOKENS_PER_BYTE
    reply = calls * (usual.completion_tokens if measured else judge.endpoint.max_tokens)
    share = judge.batch.share_of_price if judge.batch else 1.0
    price = judge.price if share else FREE
    cost = price.of(prompt, reply) * share if price else None
    endpoint = judge.endpoint
    minutes = [
        math.ceil(calls / endpoint.concurrency) * (usual.seconds if measured else ASSUMED_SECONDS) / 60,
        calls / endpoint.requests_per_minute if endpoint.requests_per_minute else 0.0,
        (prompt + reply) / endpoint.tokens_per_minute if endpoint.tokens_per_minute else 0.0,
    ]
    return Estimate(count, calls, prompt, reply, cost, 60 * max(minutes), measured)
