"""Judging by submissions: many questions as one file, and their replies when they are there.

A submission gets a name of our own, which stands in the ledger with each of its reserved calls before anything is
sent. So a process may die at any moment: the next one looks for the submission by that name, waits for it if it was
made, and releases its calls if it was not. Nothing is asked or paid for twice.

Where the endpoint can be asked small questions too, canaries are asked call by call before anything is submitted;
where it cannot, they travel in the submission, and no label is made before they are back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from judges.answer import Answer, Waiting
from judges.budget import BudgetReached, size_of
from judges.calling import no_room
from judges.canaries import EVERY, Canary, canaries_by_slate
from judges.canary_rides import require_sound, riders
from judges.endpoint import CallFailed, read_body
from judges.endpoint_run import is_clips, reading
from judges.ledger import Ledger
from judges.questions import Question
from judges.submissions import URL, RepliesAwaited, Submissions
from judges.verdict import FINAL_CALLS, excerpt
from labeling.records import JudgeCall, Label, Slate, content_id

if TYPE_CHECKING:
    from judges.endpoint_judge import EndpointJudge

PAGE = 256
MOST_SLATES = 5_000  # in one submission; each makes two questions or more
MOST_REQUESTS, MOST_BYTES = 50_000, 180 << 20  # of an input file: the Batch API takes 50,000 and 200 MB


class _Response(BaseModel):
    status_code: int = 200
    body: dict[str, Any] | None = None


class _Line(BaseModel):
    """A line of a result file. error: an object with a message, which may stand in one more, or the message itself."""

    custom_id: str
    response: _Response | None = None
    error: Any = None


class BatchRun:
    """One run of a judge by submissions. keep, tell: see `judges.answer.Judge`."""

    def __init__(
        self,
        judge: EndpointJudge,
        submissions: Submissions,
        ledger: Ledger,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        self._judge, self._submissions, self._ledger = judge, submissions, ledger
        self._keep, self._tell = keep, tell
        self._done: set[str] = set()  # calls that this run collected: what failed among them is for the next run

    async def answer_all(self, slates: Iterable[Waiting]) -> None:
        """Submit and collect until every slate is answered; what earlier runs left open must have been collected.

        Raises BudgetReached and RepliesAwaited, after what is known by then is answered, and UserError when no
        submission is taken, and when too many attacks of the canaries in it succeeded.
        """
        stream, number = iter(slates), 0
        while page := list(islice(stream, MOST_SLATES)):
            await self._answer(page, self._riding(page, number))
            number += len(page)

    def _riding(self, page: Sequence[Waiting], number: int) -> list[tuple[Canary, Waiting]]:
        """The canaries that travel with a page whose first slate is the run's `number`-th: as many as in live calls."""
        if self._submissions.asks_endpoint:
            return []
        seeds = [number + i for i in range(-number % EVERY, len(page), EVERY) if not is_clips(page[i])]
        drawn = [rider for seed in seeds for rider in riders(self._judge, self._ledger, seed)]
        return list({canary.slate.id: (canary, rider) for canary, rider in drawn}.values())

    async def _answer(self, page: Sequence[Waiting], drawn: Sequence[tuple[Canary, Waiting]]) -> None:
        riding = [rider for _, rider in drawn]
        asked = list({one[0]: one for one in chain.from_iterable(map(self._unanswered, [*riding, *page]))}.values())
        stopped: BudgetReached | RepliesAwaited | None = None
        while asked and stopped is None:
            name = content_id("submission", self._judge.annotator.id, time.time_ns())
            lines, stopped = self._reserve(name, asked)
            asked = asked[len(lines) :]
            if lines:
                try:
                    await self._collect(name, await self._submissions.submit(name, lines))
                except RepliesAwaited as awaited:
                    stopped = awaited
        keys = [key for waiting in [*riding, *page] for key, _, _ in self._keys(waiting.slate)]
        known = self._ledger.calls_by_key(keys)
        rides = [(canary, self._calls(canary.slate, known)) for canary, _ in drawn]
        require_sound(self._judge, rides)
        if lost := sum(_unknown(calls) for _, calls in rides):
            raise stopped or RepliesAwaited(
                f"{lost} of {len(rides)} canaries got no reply, and no label is made before"
            )
        answered = [(waiting, calls) for waiting in page if (calls := self._calls(waiting.slate, known))]
        with self._ledger.writing():
            labels = [self._keep(waiting, self._judge.form.answer(waiting.slate, calls)) for waiting, calls in answered]
        for label in labels:
            self._tell(label)
        if stopped is not None:
            raise stopped

    def _keys(self, slate: Slate) -> Iterator[tuple[str, Question, int]]:
        for sample in range(self._judge.endpoint.calls_per_question):
            for question in self._judge.questions(slate):
                yield self._judge.call_key(question, sample), question, sample

    def _unanswered(self, waiting: Waiting) -> Iterator[tuple[str, JudgeCall | None, Question, int]]:
        keys = list(self._keys(waiting.slate))
        elsewhere = self._ledger.calls_by_key([key for key, question, _ in keys if question.scale])
        for key, question, sample in keys:
            last = waiting.known.get(key) or elsewhere.get(key)
            if key not in self._done and (last is None or last.outcome not in FINAL_CALLS):
                yield key, last, question, sample

    def _calls(self, slate: Slate, known: Mapping[str, JudgeCall]) -> list[JudgeCall]:
        """All calls about a slate, none when one of them was not made."""
        calls = [known.get(key) for key, _, _ in self._keys(slate)]
        made = [call for call in calls if call is not None and call.outcome != "unsettled"]
        return made if len(made) == len(calls) else []

    def _reserve(
        self, name: str, asked: Sequence[tuple[str, JudgeCall | None, Question, int]]
    ) -> tuple[list[bytes], BudgetReached | None]:
        """The lines of a submission, each reserved in the ledger: as many as it and the budget have room for."""
        judge, caps = self._judge, self._judge.caps
        sent_as = self._submissions.sent_as + name
        lines: list[bytes] = []
        size, reached = 0, None
        with self._ledger.writing():
            for key, last, question, sample in asked[:MOST_REQUESTS]:
                request = judge.request(question, sample)
                body = {"model": judge.endpoint.model, "messages": list(request.messages), **request.settings}
                line = {"custom_id": key, "method": "POST", "url": URL, "body": body}
                data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
                size += len(data)
                if lines and size > MOST_BYTES:
                    break
                attempt = last.attempt + 1 if last else 0
                tokens = size_of(request.messages).most_tokens, request.most_reply_tokens
                slate, who = question.slate.id, judge.annotator.id
                call = JudgeCall(key, who, slate, "unsettled", "", attempt, sent_as, *tokens, self._cost(*tokens))
                if not self._ledger.reserve_call(call, caps.own, caps.together):
                    reached = BudgetReached(no_room(caps, self._ledger, who))
                    break
                lines.append(data)
            if lines:
                self._submissions.prepare(name, lines)
        return lines, reached

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        price = self._judge.price
        return price.of(prompt_tokens, completion_tokens) * self._submissions.share_of_price if price else 0.0

    async def collect_open(self) -> None:
        """Settle what earlier runs left open: by the submission that was made of it, or as never sent.

        Raises RepliesAwaited and UserError.
        """
        names = {call.sent_as.removeprefix(self._submissions.sent_as) for call in self._open()}
        found = await self._submissions.submitted(names) if names else {}
        for name in sorted(names):
            await self._collect(name, found.get(name))

    def _open(self) -> list[JudgeCall]:
        return open_calls(self._ledger, self._judge.annotator.id, self._submissions.sent_as)

    async def _collect(self, name: str, id: str | None) -> None:
        """Wait for a submission and settle all its calls; without an id they were never sent."""
        sent_as, reason = self._submissions.sent_as + name, "no batch was made of it"
        if id is not None:
            ended = await self._submissions.ended(id)
            reason = ended.reason
            waiting = {call.key: call for call in self._open() if call.sent_as == sent_as}
            self._done |= waiting.keys()
            for file in ended.files:
                await self._settle_lines(waiting, file)
        with self._ledger.writing():
            for call in self._open():
                if call.sent_as == sent_as:
                    self._ledger.settle_call(failed(call, reason))

    async def _settle_lines(self, waiting: dict[str, JudgeCall], file: str) -> None:
        """Settle, some at a time, the calls that the lines of a result file answer, and take them from `waiting`."""
        page: list[tuple[JudgeCall, _Line]] = []
        async for text in self._submissions.lines(file):
            line = _read_line(text)
            if line is not None and line.custom_id in waiting:
                page.append((waiting.pop(line.custom_id), line))
            if len(page) == PAGE:
                self._settle_page(page)
                page = []
        self._settle_page(page)

    def _settle_page(self, page: Sequence[tuple[JudgeCall, _Line]]) -> None:
        ids = {call.slate_id for call, _ in page}
        canaries = [canary.slate for id in sorted(ids) if (canary := canaries_by_slate().get(id))]
        slates = [*self._ledger.slates(ids=sorted(ids)), *canaries]
        asked = {key: question for slate in slates for key, question, _ in self._keys(slate)}
        with self._ledger.writing():
            for call, line in page:
                self._ledger.settle_call(self._settled(call, line, asked.get(call.key)))

    def _settled(self, call: JudgeCall, line: _Line, question: Question | None) -> JudgeCall:
        """What a line of a result file makes of a call."""
        if line.response is None or line.response.status_code != 200 or line.error:
            said = _message(line.error) or json.dumps(line.response.body if line.response else None)
            return failed(call, f"in the batch: {excerpt(said)}")
        most = self._judge.endpoint.replies_per_call
        try:
            completion = read_body(json.dumps(line.response.body).encode(), 0.0, most)
        except CallFailed as failure:
            return replace(call, outcome="endpoint_failure", reply=str(failure), sent_as="")
        prompt, reply = completion.usage or (call.prompt_tokens, call.completion_tokens)
        call = replace(call, prompt_tokens=prompt, completion_tokens=reply, cost=self._cost(prompt, reply), sent_as="")
        if question is None:
            changed = "the judge's file was changed after it was submitted"
            return replace(call, outcome="endpoint_failure", reply=changed)
        outcome, kept = reading(question, most)(completion)
        return replace(call, outcome=outcome, reply=kept)


def open_calls(ledger: Ledger, annotator: str, sent_as: str) -> list[JudgeCall]:
    """The calls that stand in a submission of this kind whose replies are not here yet."""
    return [call for call in ledger.unsettled_calls(annotator) if call.sent_as.startswith(sent_as)]


def _unknown(calls: Sequence[JudgeCall]) -> bool:
    """Whether a slate's calls, none when one of them was not made, lack a reply."""
    return not calls or any(call.outcome == "endpoint_failure" for call in calls)


def failed(call: JudgeCall, reason: str) -> JudgeCall:
    """A call that got no reply and was not billed."""
    done = replace(call, outcome="endpoint_failure", reply=reason, sent_as="")
    return replace(done, prompt_tokens=0, completion_tokens=0, cost=0.0)


def _message(error: Any) -> str:
    """What an error says, however deep its message stands; empty where there is none."""
    while isinstance(error, dict):
        error = error.get("error") or error.get("message")
    return error if isinstance(error, str) else ""


def _read_line(text: str | bytes) -> _Line | None:
    """A line of a result file, None when it is none."""
    try:
        return _Line.model_validate_json(text)
    except ValidationError:
        return None
