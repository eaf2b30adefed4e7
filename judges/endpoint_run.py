"""A run of the judge behind an endpoint over many slates: several at once, canaries among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from judges.answer import Answer, Waiting
from judges.calling import Caller
from judges.canaries import EVERY
from judges.canary_rides import require_sound, riders
from judges.endpoint import Completion
from judges.ledger import Ledger, LedgerWriter
from judges.pace import Pace
from judges.questions import Question
from judges.reply import call_outcome, kept, reply_of
from judges.verdict import FINAL_CALLS
from judges.workers import run_workers
from labeling.records import CallOutcome, JudgeCall, Label, UserError

if TYPE_CHECKING:
    from judges.endpoint_judge import EndpointJudge

FEWEST_FAILURES_TO_STOP = 20
T = TypeVar("T")


class EndpointRun:
    """One run. keep: writes an answer down as a label; tell: hears of each label that is on disk."""

    def __init__(
        self,
        judge: EndpointJudge,
        ledger: Ledger,
        caller: Caller,
        writer: LedgerWriter,
        pace: Pace,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        self._judge, self._ledger, self._caller, self._writer, self._pace = judge, ledger, caller, writer, pace
        self._keep, self._tell = keep, tell
        self._failures_in_a_row, self._last_failure = 0, ""
        self._under_way: dict[str, asyncio.Task[JudgeCall]] = {}  # calls that other slates may wait for too

    async def answer_all(self, slates: Iterable[Waiting]) -> None:
        """Answer every slate. Raises UserError when the endpoint is down, and when too many attacks on it succeed."""
        stream = await self.with_canaries_first(slates)
        endpoint = self._judge.endpoint
        work = among(stream, EVERY) if self._judge.canary_rules.each else stream
        await run_workers(work, self._work, endpoint.concurrency, endpoint.timeout_seconds, self._pace.stop)

    async def with_canaries_first(self, slates: Iterable[Waiting]) -> Iterator[Waiting]:
        """The slates, once a set of canaries was asked; there are none among clips, and none for nothing."""
        stream = iter(slates)
        first = next(stream, None)
        if first is None:
            return stream
        if not is_clips(first):
            await self._ride(0)
        return chain([first], stream)

    async def _work(self, item: Waiting | int) -> None:
        if isinstance(item, int):
            await self._ride(item)
            return
        calls = await self._ask(item)
        self._tell(await self._writer.write(lambda: self._keep(item, self._judge.form.answer(item.slate, calls))))
        self._require_alive()

    def _require_alive(self) -> None:
        """Raise UserError when so many calls failed in a row that the endpoint must be down."""
        judge = self._judge
        if self._failures_in_a_row >= max(FEWEST_FAILURES_TO_STOP, 2 * judge.endpoint.concurrency):
            raise UserError(
                f"{judge.file}: the endpoint {judge.endpoint.base_url} failed {self._failures_in_a_row} times in a "
                f"row ({self._last_failure}): mend it and run the same command again, it goes on from here"
            )

    async def _ask(self, waiting: Waiting) -> list[JudgeCall]:
        """The calls about a slate, to every order as often as the judge samples."""
        asked = self._judge.questions(waiting.slate)
        samples = range(self._judge.endpoint.calls_per_question)
        ends = await asyncio.gather(
            *(self._call(question, sample, waiting) for sample in samples for question in asked), return_exceptions=True
        )
        return [_made(end) for end in ends]

    async def _call(self, question: Question, sample: int, waiting: Waiting) -> JudgeCall:
        key = self._judge.call_key(question, sample)
        if question.scale is None:
            return await self._known_or_made(key, question, sample, waiting.known.get(key))
        task = self._under_way.get(key)
        if task is None:
            last = self._ledger.calls_by_key([key]).get(key)
            task = asyncio.create_task(self._known_or_made(key, question, sample, last))
            self._under_way[key] = task
            task.add_done_callback(lambda _: self._under_way.pop(key))
        return await task

    async def _known_or_made(self, key: str, question: Question, sample: int, last: JudgeCall | None) -> JudgeCall:
        judge = self._judge
        if last is not None and last.outcome in FINAL_CALLS:
            return last
        request = judge.request(question, sample)
        made, failure = await self._caller.call(
            key, question.slate.id, request, reading(question, judge.endpoint.replies_per_call), last
        )
        self._failures_in_a_row = 0 if failure is None else self._failures_in_a_row + 1
        self._last_failure = str(failure or self._last_failure)
        return made

    async def _ride(self, seed: int) -> None:
        """Ask the canaries of a seed, those that were answered before excepted."""
        judge = self._judge
        drawn = riders(judge, self._ledger, seed)
        ends = await asyncio.gather(*(self._ask(rider) for _, rider in drawn), return_exceptions=True)
        self._require_alive()
        require_sound(judge, zip((canary for canary, _ in drawn), map(_made, ends), strict=True))


def is_clips(waiting: Waiting) -> bool:
    """Whether a slate shows clips."""
    return any(candidate.clip for candidate in waiting.slate.candidates)


def among(slates: Iterable[Waiting], every: int) -> Iterator[Waiting | int]:
    """The slates, with the seed of another set of canaries after so many of them, again and again."""
    for number, waiting in enumerate(slates):
        if number and number % every == 0 and not is_clips(waiting):
            yield number
        yield waiting


def _made(end: T | BaseException) -> T:
    """What one of several came to. Raises why it came to nothing."""
    if isinstance(end, BaseException):
        raise end
    return end


def reading(question: Question, most: int) -> Callable[[Completion], tuple[CallOutcome, str]]:
    """How a call with the question is read, which asked for so many replies: its outcome, and what the ledger keeps."""

    def read(completion: Completion) -> tuple[CallOutcome, str]:
        replies = [reply_of(question, one) for one in (completion, *completion.others)[:most]]
        return call_outcome(replies), kept(replies)

    return read
