"""How fast an endpoint is asked: limits, pauses and the number of calls under way."""

import asyncio
import random
import time
from typing import Any

import pytest
from simulated_endpoint import simulate

from judges.endpoint import seconds_to_wait
from judges.pace import Bucket, Limit, Pace, PauseTooLong, Stopped, seconds_of, told_limit


def headers(limit: object, remaining: object, reset: str, kind: str = "requests") -> dict[str, str]:
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{kind}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("text", "seconds"), [("6m0s", 360), ("12ms", 0.012), ("1h2m", 3720), ("7", 7), ("59.5s", 59.5), ("1s?", None)]
)
def test_durations(text: str, seconds: float | None) -> None:
    assert seconds_of(text) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        (headers(5000, 4999, "12ms"), Limit(5000, 4999, 60)),  # 12 ms · 5000 / 1
        (headers(10000, 9999, "8.64s"), Limit(10000, 9999, 86400)),  # of a day
        (headers(60, 60, "0s"), Limit(60, 60, None)),
        (headers(-1, -1, "0"), None),
        (headers("many", 3, "1s"), None),
        ({}, None),
    ],
)
def test_limits_are_read_from_headers(told: dict[str, str], limit: Limit | None) -> None:
    assert told_limit(told, "requests") == limit


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "2", "retry-after-ms": "150"}, 0.15),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0),  # second 100, at second 40
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
    ],
)
def test_retry_after(told: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(told, now=40.0) == seconds


def test_a_bucket_refills_evenly_and_lends_what_it_cannot_hold() -> None:
    bucket = Bucket(limit=120, window=60, now=0.0)  # 2 a second, and at most 2 at once
    assert bucket.wait(1, 0.0) == 0
    bucket.level -= 2
    assert bucket.wait(1, 0.0) == pytest.approx(0.5)
    assert bucket.wait(1, 0.5) == 0
    assert bucket.wait(50, 0.5) == pytest.approx(0.5)  # when it is full
    bucket.wait(0, 1.0)
    bucket.level -= 50
    assert bucket.wait(1, 1.0) == pytest.approx(49 / 2)
    assert Bucket(limit=10_000, window=86400, now=0.0).level == 10_000


def test_concurrency_doubles_falls_once_and_comes_back_along_a_cubic() -> None:
    async def main() -> None:
        now = 0.0
        pace = Pace(200, clock=lambda: now)
        assert pace.limit == 16
        pace.running = 200
        for _ in range(16):
            pace.succeeded(1.0)
        assert pace.limit == 32
        now = 10.0
        for _ in range(5):
            pace.refused(None, 0.0)
        assert pace.limit == pytest.approx(0.7 * 32)
        for trips, limit in ((2, 32 * (1 - 0.3 / 8)), (4, 32), (6, 32 * (1 + 0.3 / 8)), (8, 32 * 1.3)):  # K = 4
            now = 10.0 + trips
            pace.succeeded(1.0)
            assert pace.limit == pytest.approx(limit)
        now = 20.0
        pace.limit = before = 100.0
        for _ in range(60):
            pace.succeeded(9.0)
        assert pace.limit == pytest.approx(0.9 * before)

    asyncio.run(main())


def test_what_was_refused_frees_no_place() -> None:
    async def main() -> None:
        pace = Pace(200)
        pace.running = 30
        for _ in range(20):
            pace.succeeded(1.0)
        assert pace.limit == 36
        for left in range(29, 19, -1):  # ten of the thirty are refused: the endpoint bears twenty
            pace.refused(None, 0.0)
            pace.running = left
        assert pace.limit == 20

    asyncio.run(main())


def test_latencies_that_vary_as_always_are_no_queue() -> None:
    async def main() -> None:
        pace, chance = Pace(100), random.Random(1)
        pace.running = 100
        for _ in range(3000):
            pace.succeeded(chance.lognormvariate(0, 0.35))
        assert pace.limit == 100

    asyncio.run(main())


@pytest.mark.parametrize(
    ("endpoint", "share", "refused"),
    [
        ({"calls": 2000, "rate": 50}, 0.98, 0.05),
        ({"calls": 1000, "rate": 10}, 0.92, 0.10),
        ({"calls": 8000, "rate": 200}, 0.95, 0.03),
        ({"calls": 1000, "rate": 1e6, "at_once": 8}, 0.88, 0.05),  # it limits the calls under way, and not the rate
        ({"calls": 4000, "rate": 1e6, "at_once": 100}, 0.85, 0.01),
    ],
)
def test_a_limit_that_nobody_tells_is_found_and_nearly_used(
    endpoint: dict[str, Any], share: float, refused: float
) -> None:
    """In simulated time, from start to end; refusals by call."""
    ends = [simulate(**endpoint, seed=seed) for seed in range(3)]
    assert min(end.share for end in ends) > share
    assert max(end.refused for end in ends) < refused * endpoint["calls"]


def test_concurrency_does_not_grow_while_it_is_not_used() -> None:
    async def main() -> None:
        pace = Pace(200)
        pace.running = 3
        for _ in range(50):
            pace.succeeded(1.0)
        assert pace.limit == 16

    asyncio.run(main())


def test_what_is_let_in_keeps_a_limit_per_minute_and_what_is_not_used_is_given_back() -> None:
    async def main(tokens: float, used: float) -> float:
        pace = Pace(50, tokens_per_minute=60_000)  # 1000 a second
        started = time.monotonic()

        async def call() -> None:
            async with pace.turn(tokens) as settle:
                settle(used)

        await asyncio.gather(*(call() for _ in range(20)))
        return time.monotonic() - started

    assert asyncio.run(main(100, 100)) == pytest.approx(1.0, abs=0.3)  # 20 · 100, the first 1000 at once
    assert asyncio.run(main(100, 10)) < 0.3


def test_a_known_limit_that_refuses_is_waited_out_without_fewer_calls_at_once() -> None:
    async def main() -> None:
        pace = Pace(50)
        pace.hear(headers(600, 0, "60s"))
        pace.refused(0.2, 0.0)
        assert pace.limit == 16
        started = time.monotonic()
        async with pace.turn(1):
            assert 0.18 < time.monotonic() - started < 0.5

    asyncio.run(main())


def test_who_waits_when_it_is_stopped_is_not_let_in() -> None:
    async def main() -> None:
        pace = Pace(1, requests_per_minute=0.1)
        async with pace.turn(1):

            async def call() -> None:
                async with pace.turn(1):
                    pytest.fail("it was let in")

            waiting = [asyncio.create_task(call()) for _ in range(3)]
            await asyncio.sleep(0.05)
            pace.stop()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert [type(end) for end in ends] == [Stopped] * 3

    asyncio.run(main())


def test_a_limit_of_the_endpoint_that_asks_for_hours_is_not_waited_for_and_one_of_the_user_is() -> None:
    async def main() -> None:
        pace = Pace(5, requests_per_minute=0.1)
        async with pace.turn(1):
            waiting = asyncio.create_task(pace.turn(1).__aenter__())
            await asyncio.sleep(0.05)
            assert not waiting.done()  # for ten minutes: so it was told
        pace.give_up(PauseTooLong(7200, "so it says"))
        with pytest.raises(PauseTooLong, match="so it says"):
            await waiting
        told = Pace(5)
        told.hear(headers(1000, 0, "24h", "tokens"))
        with pytest.raises(PauseTooLong) as pause:
            async with told.turn(500):
                pytest.fail("it was let in")
        assert pause.value.seconds == pytest.approx(43200, rel=0.01)

    asyncio.run(main())
