"""An endpoint and a judge's calls in simulated time, to see how near a `Pace` comes to a limit that nobody tells it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from judges.calling import FIRST_BACKOFF
from judges.pace import Pace

MEDIAN, SPREAD = 0.6, 0.35  # seconds of an answer; standard deviation of the logarithm
REFUSAL = 0.02  # seconds until a refusal


@dataclass
class Outcome:
    """share: answers a second, from the first question to the last answer, over what the endpoint allows."""

    share: float
    refused: int


def simulate(calls: int, rate: float, seed: int, most: int = 400, at_once: float = float("inf")) -> Outcome:
    """Ask so many questions of an endpoint that takes `rate` a second (and up to a second's worth in a burst).

    at_once: it refuses whatever exceeds so many under way.
    """
    chance, now, level, filled = random.Random(seed), 0.0, rate, 0.0
    pace = Pace(most, clock=lambda: now)
    events: list[tuple[float, int, Callable[[], None]]] = []
    queue, under_way, answered, refused, number = calls, 0, 0, 0, 0

    def after(seconds: float, what: Callable[[], None]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (now + seconds, number, what))

    def enter() -> None:
        nonlocal queue
        while queue and pace.running < max(1, int(pace.limit)):
            queue -= 1
            pace.running += 1
            send()

    def send() -> None:
        nonlocal level, filled, under_way
        level, filled = min(rate, level + (now - filled) * rate), now
        if level < 1 or under_way >= at_once:
            after(REFUSAL, refuse)
            return
        level -= 1
        under_way += 1
        seconds = chance.lognormvariate(0, SPREAD) * MEDIAN
        after(seconds, lambda: answer(seconds))

    def refuse() -> None:
        nonlocal refused
        refused += 1
        pace.refused(None, chance.random())
        pace.running -= 1
        after(chance.uniform(0, FIRST_BACKOFF), again)
        enter()

    def again() -> None:
        nonlocal queue
        queue += 1
        enter()

    def answer(seconds: float) -> None:
        nonlocal answered, under_way
        answered += 1
        under_way -= 1
        pace.succeeded(seconds)
        pace.running -= 1
        enter()

    enter()
    while events:
        now, _, what = heapq.heappop(events)
        what()
    mean = MEDIAN * 2.718281828 ** (SPREAD**2 / 2)
    return Outcome(answered / now / min(rate, at_once / mean), refused)
