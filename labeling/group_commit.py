"""Writes of many requests in one transaction, because waiting for the disk is what a write costs.

SQLite has one writer at a time, and each commit waits until the disk has it. Whoever comes while a commit waits is
taken along by the next one (group commit; DeWitt et al. 1984, doi 10.1145/602259.602261). It is one thread that does
what all of them want done: several would spend half of their time on taking Python from each other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from labeling.database import ProjectDatabase

Result = TypeVar("Result")
MOST_AT_ONCE = 32  # so that other processes, which write too, wait for some hundredths of a second and not longer


class GroupCommit:
    """Does work on a database in one thread, as much in one transaction as has come meanwhile."""

    def __init__(self, database: ProjectDatabase) -> None:
        self._database = database
        self._thread = ThreadPoolExecutor(1, "answers")
        self._waiting: deque[tuple[Callable[[], Any], Future[Any]]] = deque()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what `work()` returns, once all that it wrote is on disk.

        It runs inside a transaction; where it raises, what it wrote is undone and the others are not harmed. Raises
        what it raises, or UserError when the transaction cannot be committed.
        """
        done: Future[Result] = Future()
        self._waiting.append((work, done))
        self._thread.submit(self._work)
        return await asyncio.wrap_future(done)

    def _work(self) -> None:
        """Do what waits; nothing does where an earlier turn took it along."""
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        group = [(work, done) for work, done in taken if done.set_running_or_notify_cancel()]
        if not group:
            return
        try:
            with self._database.writing():
                outcomes = [self._attempt(work) for work, _ in group]
        except BaseException as error:
            for _, done in group:
                done.set_exception(error)
            return
        for (_, done), (value, refused) in zip(group, outcomes, strict=True):
            if refused is None:
                done.set_result(value)
            else:
                done.set_exception(refused)

    def _attempt(self, work: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
        """Do one request's work, or undo all of it."""
        db = self._database.db
        db.execute("SAVEPOINT work")
        try:
            value = work()
        except Exception as error:
            if not db.conn.in_transaction:
                raise  # the disk is full or worse: SQLite has undone everybody's work
            db.execute("ROLLBACK TO work")
            db.execute("RELEASE work")
            return None, error
        db.execute("RELEASE work")
        return value, None
