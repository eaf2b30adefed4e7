"""Writes of many requests in one transaction, because waiting for the disk is what a write costs.

SQLite has one writer at a time, and each commit waits until the disk has it. Whoever comes while a commit waits is
taken along by the next one (group commit; DeWitt et al. 1984, doi 10.1145/602259.602261): a thread leads, does what
all that wait want done, and commits once. Nobody is told of success before that commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from labeling.database import ProjectDatabase

Result = TypeVar("Result")


class GroupCommit:
    """Does work on a database, together with what other threads want done at the same time."""

    def __init__(self, database: ProjectDatabase) -> None:
        self._database = database
        self._leading = threading.Lock()
        self._adding = threading.Lock()
        self._waiting: list[tuple[Callable[[], Any], Future[Any]]] = []

    def run(self, work: Callable[[], Result]) -> Result:
        """Return what `work()` returns, once all that it wrote is on disk.

        It runs inside a transaction, perhaps in another thread; where it raises, what it wrote is undone and the others
        are not harmed. Raises what it raises, or UserError when the transaction cannot be committed.
        """
        done: Future[Result] = Future()
        with self._adding:
            self._waiting.append((work, done))
        with self._leading:
            if not done.done():  # else another thread took it along
                self._lead()
        return done.result()

    def _lead(self) -> None:
        with self._adding:
            group, self._waiting = self._waiting, []
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
        """Do one thread's work, or undo all of it."""
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
