"""The books of a judge: what they must offer, and how many calls under way write into them at once.

A write is acknowledged when it is on disk. Those that wait at the same time share one commit, made in a thread of its
own, so that the disk holds up no request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from judges.budget import UNLIMITED, Budget
from labeling.records import Annotator, JudgeCall, Label, Slate, Spending

T = TypeVar("T")
Write = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class Ledger(Protocol):
    """Where calls and labels are kept; the project's store is one. What a method returns from is on disk."""

    def add_annotator(self, annotator: Annotator) -> None:
        """Make an annotator known, or bring its weight up to date."""

    def judging_alone(
        self, annotator: str, on_wait: Callable[[str], None] = lambda holder: None
    ) -> AbstractContextManager[None]:
        """Keep other processes from labeling as this annotator meanwhile; `on_wait` hears whom it has to wait for."""

    def revoked(self) -> dict[str, str]:
        """Why each annotator is revoked whose labels count for nothing."""

    def labels_on(self, annotator: str, slate_ids: Sequence[str]) -> dict[str, Label]:
        """The label of an annotator that stands on each of these slates, by slate."""

    def judge_calls(self, annotator: str, slate_ids: Sequence[str] | None = None) -> dict[str, JudgeCall]:
        """The last attempt of each call about these slates, by key."""

    def calls_by_key(self, keys: Sequence[str]) -> dict[str, JudgeCall]:
        """The last attempt of each of these calls, by key, whatever slate it was made for."""

    def unsettled_calls(self, annotator: str) -> list[JudgeCall]:
        """The calls of which no reply is known."""

    def count_unsettled_of_others(self, annotator: str) -> int:
        """How many calls of other annotators than this one no reply is known of."""

    def slates(self, *, ids: Sequence[str]) -> list[Slate]:
        """Slates by id."""

    def judge_spending(self, annotator: str) -> Spending:
        """What the annotator has spent, in all runs."""

    def total_spending(self) -> Spending:
        """What all judges have spent, in all runs."""

    def reserve_call(self, call: JudgeCall, own: Budget = UNLIMITED, together: Budget = UNLIMITED) -> bool:
        """Note an unsettled call unless its judge's total, or that of all, would exceed a cap; say whether it was."""

    def note_call(self, call: JudgeCall) -> None:
        """Put an answered call that cost nothing in the books; it is no spending."""

    def settle_call(self, call: JudgeCall) -> None:
        """Put what came of a reserved call in its place."""

    def add_labels(self, labels: Iterable[Label]) -> int:
        """Keep labels; one that is there already changes nothing."""

    def writing(self) -> AbstractContextManager[Any]:
        """One transaction for all writes of this thread inside it."""


class LedgerWriter:
    """Writes to a ledger from one event loop; an async context manager that leaves nothing unwritten."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._thread = ThreadPoolExecutor(1, "ledger")
        self._waiting: list[Write] = []
        self._commits: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LedgerWriter:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._commits is not None:
            await self._commits
        self._thread.shutdown()

    async def write(self, work: Callable[[], T]) -> T:
        """Do `work`, which writes to the ledger, and return once it is on disk. Whoever is cancelled has written."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, done))
        if self._commits is None or self._commits.done():
            self._commits = asyncio.create_task(self._commit_all())
        return await done

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            results = await loop.run_in_executor(self._thread, self._commit, [work for work, _ in batch])
            for (_, done), result in zip(batch, results, strict=True):
                if done.done():  # whoever asked was cancelled meanwhile
                    continue
                if isinstance(result, Exception):
                    done.set_exception(result)
                else:
                    done.set_result(result)

    def _commit(self, batch: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results of all in one transaction; if one fails, each gets a transaction and an end of its own."""
        try:
            with self._ledger.writing():
                return [work() for work in batch]
        except Exception as error:
            return [error] if len(batch) == 1 else [result for work in batch for result in self._commit([work])]
