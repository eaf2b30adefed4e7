"""Bounded concurrency: a few workers share one queue, so one slow item holds up nothing but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from judges.pace import Stopped

T = TypeVar("T")


async def run_workers(
    items: Iterable[T],
    work: Callable[[T], Awaitable[None]],
    concurrency: int,
    drain_seconds: float,
    stop: Callable[[], None],
) -> None:
    """Do `work` on every item, at most `concurrency` at a time.

    When it is cancelled (Ctrl-C) or a piece of work raises, no new item is begun and `stop` is called; what is under
    way has been paid for, so it gets `drain_seconds` to finish. Then the cancellation or the first exception goes on.
    """
    queue, stopping = iter(items), asyncio.Event()

    async def worker() -> None:
        while not stopping.is_set() and (item := next(queue, None)) is not None:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(concurrency)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        stopping.set()
        stop()
        await asyncio.wait(tasks, timeout=drain_seconds)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception) and not isinstance(end, Stopped):
            raise end
