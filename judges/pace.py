"""How fast an endpoint is asked: as fast as it bears, and no faster than it allows.

Three things hold a call back: a pause that the endpoint asked for, its limits per minute (told by the user or in the
headers of its replies), and the number of calls under way, W. It falls when the endpoint refuses or slows down, to a
share β, and comes back along a cubic: fast at first, slowly near the number W₀ that was too many, then on to what may
be more (CUBIC, RFC 9438), with the time t in round trips:

    W(t) = W₀·(1 + (1 − β)·(t/K − 1)³),    so W(0) = β·W₀ and W(K) = W₀.

Before the first refusal W doubles with every round trip (slow start, Jacobson 1988). A refused call frees no place:
what is under way then is what the endpoint bears, and only answers let new calls in. Calls are let in in the order in
which they came. What it does not do: send, retry, or know what a call is.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

FIRST_CONCURRENCY = 16
REFUSED, SLOWED = 0.7, 0.9  # β: factors on the number of calls under way
RECOVERY = 4.0  # K: round trips until that number is back
SLOW = 3.0  # times the least latency: the endpoint queues
LATENCY_SHARE = 0.05  # of the newest latency in the running mean, once there are as many as that
BASE_GROWTH = 1.002  # the least mean latency is forgotten slowly, by this factor a call
BURST_SECONDS = 1.0  # so much of a limit may be used at once
MINUTE = 60.0
WINDOWS = (1.0, MINUTE, 3600.0, 86400.0)
LONGEST_PAUSE = 120.0  # seconds; whoever is to wait longer is told so, and does not sit there
JITTER = 0.1  # a pause is lengthened by up to this share
KINDS = ("requests", "tokens")
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])?")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


class Stopped(Exception):
    """Nothing more may be sent."""


class PauseTooLong(Exception):
    """The endpoint asks for a pause of so many seconds, more than a run waits. Its message says how it asked."""

    def __init__(self, seconds: float, how: str) -> None:
        super().__init__(how)
        self.seconds = seconds


@dataclass
class Bucket:
    """A limit of so many units in a window of seconds, refilling evenly. Of a long window all may be used at once."""

    limit: float
    window: float
    now: float
    level: float = math.nan

    def __post_init__(self) -> None:
        self.rate = self.limit / self.window
        self.capacity = self.limit if self.window > MINUTE else max(1.0, self.rate * BURST_SECONDS)
        self.level = self.capacity if math.isnan(self.level) else self.level

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much may be taken; more than it can hold may be taken when it is full."""
        self.level = min(self.capacity, self.level + (now - self.now) * self.rate)
        self.now = now
        return max(0.0, (min(amount, self.capacity) - self.level) / self.rate)


@dataclass(frozen=True)
class Limit:
    """What an endpoint says of one of its limits. window: in seconds, None if that cannot be told."""

    limit: float
    remaining: float
    window: float | None


def seconds_of(duration: str) -> float | None:
    """Seconds of a duration like `6m0s`, `12ms`, `1h2m` or `7`, None when it is none."""
    text = duration.strip()
    parts = DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * UNITS[unit or None] for number, unit in parts)


def told_limit(headers: Mapping[str, str], kind: str) -> Limit | None:
    """The limit on requests or tokens in the `x-ratelimit-…` headers of a reply, if it is there.

    They do not name the window. But `reset` is how long the used part takes to come back, so window = reset · limit /
    used, up to rounding: the nearest of a second, a minute, an hour and a day is meant.
    """
    try:
        limit, remaining = (float(headers.get(f"x-ratelimit-{what}-{kind}", "")) for what in ("limit", "remaining"))
    except ValueError:
        return None
    if not (math.isfinite(limit) and limit > 0 and 0 <= remaining <= limit):
        return None
    reset, used = seconds_of(headers.get(f"x-ratelimit-reset-{kind}", "")), limit - remaining
    if not reset or not used:
        return Limit(limit, remaining, None)
    window = reset * limit / used
    return Limit(limit, remaining, min(WINDOWS, key=lambda w: abs(math.log(w / window))))


class Pace:
    """Lets calls in one after the other. most: the most calls under way; clock: seconds that only grow."""

    def __init__(
        self,
        most: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._most = most
        self._buckets: dict[tuple[str, str], Bucket] = {}
        for kind, limit in zip(KINDS, (requests_per_minute, tokens_per_minute), strict=True):
            if limit is not None:
                self._buckets[kind, "given"] = Bucket(limit, MINUTE, clock())
        self.limit = float(min(most, FIRST_CONCURRENCY))
        self.running = 0
        self._slow_start = True
        self._borne = self._factor = 1.0  # W₀ and β of the last cut
        self._latency = self._base = 0.0
        self._answers = 0
        self._cut_at = -math.inf
        self._resume_at = -math.inf
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._too_long: PauseTooLong | None = None  # why it stopped, if that is why

    def stop(self) -> None:
        """Let nothing more in: whoever waits gets Stopped."""
        self._stopped.set()
        self._changed.set()

    @asynccontextmanager
    async def turn(self, tokens: float) -> AsyncIterator[Callable[[float], None]]:
        """Wait for a place for a call of about so many tokens; tell what is given how many they were in the end."""
        await self._enter(tokens)
        try:
            yield lambda used: self._take("tokens", used - tokens)
        finally:
            self.running -= 1
            self._changed.set()

    async def _enter(self, tokens: float) -> None:
        async with self._turn:
            while True:
                if (told := self._told_wait(tokens)) > LONGEST_PAUSE:
                    self.give_up(PauseTooLong(told, "by the limits in its replies' headers"))
                seconds = self._seconds_to_wait(tokens)
                if seconds or self._stopped.is_set():
                    await self.rest(seconds)
                elif self.running < max(1, int(self.limit)):
                    break
                else:
                    self._changed.clear()
                    await self._changed.wait()
            self.running += 1
            self._take("requests", 1)
            self._take("tokens", tokens)

    async def rest(self, seconds: float) -> None:
        """Sleep so long. Raises Stopped or PauseTooLong as soon as nothing more may be sent."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return
        raise self._too_long or Stopped("stopped before it was asked")

    def give_up(self, pause: PauseTooLong) -> None:
        """Let nothing more in: whoever waits, and whoever comes, gets `pause`."""
        self._too_long = pause
        self.stop()

    def _told_wait(self, tokens: float) -> float:
        """Seconds that the endpoint's own limits for an hour or a day ask for; one that the user set is meant."""
        now = self._clock()
        waits = [
            bucket.wait(1 if kind == "requests" else tokens, now)
            for (kind, source), bucket in self._buckets.items()
            if source == "told" and bucket.window > MINUTE
        ]
        return max(waits, default=0.0)

    def _seconds_to_wait(self, tokens: float) -> float:
        now = self._clock()
        waits = [bucket.wait(1 if kind == "requests" else tokens, now) for (kind, _), bucket in self._buckets.items()]
        return max(0.0, self._resume_at - now, *waits)

    def _take(self, kind: str, amount: float) -> None:
        for (of, _), bucket in self._buckets.items():
            if of == kind:
                bucket.level = min(bucket.capacity, bucket.level - amount)

    def hear(self, headers: Mapping[str, str]) -> None:
        """Learn the endpoint's limits from the headers of a reply."""
        for kind in KINDS:
            told = told_limit(headers, kind)
            if told is None:
                continue
            bucket = self._buckets.get((kind, "told"))
            window = told.window or (bucket.window if bucket else MINUTE)
            if bucket is None or (bucket.limit, bucket.window) != (told.limit, window):
                bucket = self._buckets[kind, "told"] = Bucket(told.limit, window, self._clock())
            bucket.level = min(bucket.level, told.remaining)

    def succeeded(self, seconds: float) -> None:
        """A call came back after so long: more at once, or fewer where replies take much longer than they could."""
        self._answers += 1
        share = max(LATENCY_SHARE, 1 / self._answers)
        self._latency += share * (seconds - self._latency)
        # The least mean, not the least: latencies are so unlike that three times the least one is an everyday value.
        settled = share == LATENCY_SHARE
        self._base = min(self._base * BASE_GROWTH, self._latency) if settled else self._latency
        if self._latency > SLOW * self._base:
            self._cut(SLOWED)
        elif self.running >= self.limit / 2:
            grown = self.limit + 1.0 if self._slow_start else self._cubic()
            self.limit = min(self._most, max(self.limit, grown))
            self._changed.set()

    def _cubic(self) -> float:
        """The number of calls that is due by now, since the last cut."""
        elapsed = (self._clock() - self._cut_at) / (RECOVERY * self._latency)
        return self._borne * (1 + (1 - self._factor) * (elapsed - 1) ** 3)

    def refused(self, after: float | None, chance: float) -> None:
        """The endpoint asked to slow down, and for `after` seconds of peace; chance: uniform in [0, 1)."""
        if after is not None:
            self._resume_at = max(self._resume_at, self._clock() + after * (1 + JITTER * chance))
        told = [bucket for (kind, _), bucket in self._buckets.items() if kind == "requests"]
        for bucket in told:
            bucket.level = min(bucket.level, 0.0)
        if not told:  # otherwise the limit is known, and the number of calls is not what was wrong
            self._cut(REFUSED)
            # Calls beyond those that the endpoint took would be refused as fast as it can say so.
            taken = max(1.0, self.running - 1.0)
            self.limit, self._borne = min(self.limit, taken), min(self._borne, taken)

    def _cut(self, factor: float) -> None:
        """Fewer at once, but only once for all that are under way."""
        self._slow_start = False
        now = self._clock()
        if now - self._cut_at > self._latency:
            self._cut_at, self._borne, self._factor = now, self.limit, factor
            self.limit = max(1.0, self.limit * factor)
