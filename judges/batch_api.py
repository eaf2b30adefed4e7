"""Judging by the OpenAI Batch API: a file of questions now, a file of replies within a day, at half the price.

A submission gets a name of our own, which stands in the ledger with each of its reserved calls before anything is
sent, and in the batch's metadata. So a process may die at any moment: the next one looks for the batch by that name,
waits for it if it was made, and releases its calls if it was not. Nothing is asked or paid for twice.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from judges.answer import Answer, Waiting
from judges.budget import BudgetReached, size_of
from judges.endpoint import CallFailed, read_body
from judges.endpoint_run import reading
from judges.ledger import Ledger
from judges.questions import Question
from judges.verdict import FINAL_CALLS, excerpt
from labeling.records import JudgeCall, Label, Slate, UserError, content_id

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

    from judges.endpoint_judge import EndpointJudge

SHARE_OF_PRICE = 0.5
RETRIES = 5
PAGE = 256
ENDPOINT: Literal["/v1/chat/completions"] = "/v1/chat/completions"
NAME = "prefloop"  # the key of the submission's name in a batch's metadata
SENT_AS = "batch:"  # before that name, in the ledger
MOST_SLATES = 5_000  # in one submission; each makes two questions or more
MOST_REQUESTS, MOST_BYTES = 50_000, 180 << 20  # of an input file: the API takes 50,000 and 200 MB
FIRST_POLL, LONGEST_POLL = 2.0, 60.0
ENDED = ("completed", "failed", "expired", "cancelled")


class _Response(BaseModel):
    status_code: int = 200
    body: dict[str, Any] | None = None


class _Line(BaseModel):
    """A line of a result file. error: an object with a message, which may stand in one more, or the message itself."""

    custom_id: str
    response: _Response | None = None
    error: Any = None


class BatchRun:
    """One run of a judge by the Batch API. keep, tell: see `judges.answer.Judge`."""

    def __init__(
        self,
        judge: EndpointJudge,
        ledger: Ledger,
        client: AsyncOpenAI,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        self._judge, self._ledger = judge, ledger
        self._client = client.with_options(max_retries=RETRIES)
        self._keep, self._tell = keep, tell

    async def answer_all(self, slates: Iterable[Waiting]) -> None:
        """Submit and collect until every slate is answered; what earlier runs left open must have been collected.

        Raises BudgetReached, after what it left room for is answered, and UserError when the endpoint takes no batch.
        """
        stream = iter(slates)
        with self._explained():
            while page := list(islice(stream, MOST_SLATES)):
                await self._answer(page)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from openai import OpenAIError

        try:
            yield
        except OpenAIError as error:
            file, url = self._judge.file, self._judge.endpoint.base_url
            raise UserError(
                f"{file}: the endpoint {url} failed at its Batch API ({excerpt(str(error))}): "
                "run the same command again, it goes on from here, or leave out --batch-api"
            ) from error

    async def _answer(self, page: Sequence[Waiting]) -> None:
        asked = list({one[0]: one for one in chain.from_iterable(map(self._unanswered, page))}.values())
        reached: BudgetReached | None = None
        while asked and reached is None:
            name = content_id("submission", self._judge.annotator.id, time.time_ns())
            lines, reached = self._reserve(name, asked)
            asked = asked[len(lines) :]
            if lines:
                await self._collect(name, await self._submit(name, lines))
        known = self._ledger.calls_by_key([key for waiting in page for key, _, _ in self._keys(waiting.slate)])
        answered = [(waiting, calls) for waiting in page if (calls := self._calls(waiting, known))]
        with self._ledger.writing():
            labels = [self._keep(waiting, self._judge.form.answer(waiting.slate, calls)) for waiting, calls in answered]
        for label in labels:
            self._tell(label)
        if reached is not None:
            raise reached

    def _keys(self, slate: Slate) -> Iterator[tuple[str, Question, int]]:
        for sample in range(self._judge.endpoint.calls_per_question):
            for question in self._judge.questions(slate):
                yield self._judge.call_key(question, sample), question, sample

    def _unanswered(self, waiting: Waiting) -> Iterator[tuple[str, JudgeCall | None, Question, int]]:
        keys = list(self._keys(waiting.slate))
        elsewhere = self._ledger.calls_by_key([key for key, question, _ in keys if question.scale])
        for key, question, sample in keys:
            last = waiting.known.get(key) or elsewhere.get(key)
            if last is None or last.outcome not in FINAL_CALLS:
                yield key, last, question, sample

    def _calls(self, waiting: Waiting, known: Mapping[str, JudgeCall]) -> list[JudgeCall]:
        """All calls about a slate, none when one of them was not made."""
        calls = [known.get(key) for key, _, _ in self._keys(waiting.slate)]
        made = [call for call in calls if call is not None and call.outcome != "unsettled"]
        return made if len(made) == len(calls) else []

    def _reserve(
        self, name: str, asked: Sequence[tuple[str, JudgeCall | None, Question, int]]
    ) -> tuple[list[bytes], BudgetReached | None]:
        """The lines of a submission, each reserved in the ledger: as many as it and the budget have room for."""
        judge, budget = self._judge, self._judge.budget
        lines: list[bytes] = []
        size = 0
        with self._ledger.writing():
            for key, last, question, sample in asked[:MOST_REQUESTS]:
                request = judge.request(question, sample)
                body = {"model": judge.endpoint.model, "messages": list(request.messages), **request.settings}
                line = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": body}
                data = json.dumps(line, ensure_ascii=False).encode() + b"\n"
                size += len(data)
                if lines and size > MOST_BYTES:
                    break
                attempt = last.attempt + 1 if last else 0
                tokens = size_of(request.messages).most_tokens, request.most_reply_tokens
                slate, who = question.slate.id, judge.annotator.id
                call = JudgeCall(
                    key, who, slate, "unsettled", "", attempt, SENT_AS + name, *tokens, self._cost(*tokens)
                )
                if not self._ledger.reserve_call(call, money=budget.money, tokens=budget.tokens, calls=budget.calls):
                    used = budget.used(self._ledger.judge_spending(who))
                    return lines, BudgetReached(f"the budget has no room for another call ({used})")
                lines.append(data)
        return lines, None

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        price = self._judge.price
        return price.of(prompt_tokens, completion_tokens) * SHARE_OF_PRICE if price else 0.0

    async def _submit(self, name: str, lines: Sequence[bytes]) -> Batch:
        made = await self._client.files.create(file=(f"{name}.jsonl", b"".join(lines)), purpose="batch")
        return await self._client.batches.create(
            input_file_id=made.id, endpoint=ENDPOINT, completion_window="24h", metadata={NAME: name}
        )

    async def collect_open(self) -> None:
        """Settle what earlier runs left open: by the batch that was made of it, or as never sent. Raises UserError."""
        who = self._judge.annotator.id
        names = {call.sent_as.removeprefix(SENT_AS) for call in open_calls(self._ledger, who)}
        with self._explained():
            found = await self._batches(names) if names else {}
            for name in names:
                await self._collect(name, found.get(name))

    async def _batches(self, names: Collection[str]) -> dict[str, Batch]:
        """The batches that were made of these submissions."""
        found: dict[str, Batch] = {}
        async for batch in self._client.batches.list(limit=100):
            name = (batch.metadata or {}).get(NAME, "")
            if name in names:
                found[name] = batch
            if len(found) == len(names):
                break
        return found

    async def _collect(self, name: str, batch: Batch | None) -> None:
        """Wait for a batch and settle all calls of its submission; without a batch they were never sent."""
        reason = "no batch was made of it"
        if batch is not None:
            batch = await self._ended(batch)
            for file in (batch.output_file_id, batch.error_file_id):
                if file is not None:
                    await self._settle_lines(name, file)
            said = batch.errors.data[0].message if batch.errors and batch.errors.data else ""
            reason = f"the batch {batch.id} {batch.status} without a reply" + (f": {excerpt(said)}" if said else "")
        rest = [call for call in open_calls(self._ledger, self._judge.annotator.id) if call.sent_as == SENT_AS + name]
        with self._ledger.writing():
            for call in rest:
                self._ledger.settle_call(failed(call, reason))

    async def _ended(self, batch: Batch) -> Batch:
        pause = FIRST_POLL
        while batch.status not in ENDED:
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL, 1.5 * pause)
            batch = await self._client.batches.retrieve(batch.id)
        return batch

    async def _settle_lines(self, name: str, file: str) -> None:
        """Settle the calls that the lines of a result file answer, some at a time."""
        open_now = {
            call.key: call
            for call in open_calls(self._ledger, self._judge.annotator.id)
            if call.sent_as == SENT_AS + name
        }
        async with self._client.files.with_streaming_response.content(file) as response:
            page: list[tuple[JudgeCall, _Line]] = []
            async for text in response.iter_lines():
                line = _read_line(text)
                if line is not None and line.custom_id in open_now:
                    page.append((open_now.pop(line.custom_id), line))
                if len(page) == PAGE:
                    self._settle_page(page)
                    page = []
            self._settle_page(page)

    def _settle_page(self, page: Sequence[tuple[JudgeCall, _Line]]) -> None:
        slates = self._ledger.slates(ids=sorted({call.slate_id for call, _ in page}))
        asked = {key: question for slate in slates for key, question, _ in self._keys(slate)}
        with self._ledger.writing():
            for call, line in page:
                self._ledger.settle_call(self._settled(call, line, asked.get(call.key)))

    def _settled(self, call: JudgeCall, line: _Line, question: Question | None) -> JudgeCall:
        """What a line of a result file makes of a call."""
        if line.response is None or line.response.status_code != 200 or line.error:
            said = _message(line.error) or json.dumps(line.response.body if line.response else None)
            return failed(call, f"in the batch: {excerpt(said)}")
        try:
            completion = read_body(json.dumps(line.response.body).encode(), 0.0)
        except CallFailed as failure:
            return replace(call, outcome="endpoint_failure", reply=str(failure), sent_as="")
        prompt, reply = completion.usage or (call.prompt_tokens, call.completion_tokens)
        call = replace(call, prompt_tokens=prompt, completion_tokens=reply, cost=self._cost(prompt, reply), sent_as="")
        if question is None:
            changed = "the judge's file was changed after it was submitted"
            return replace(call, outcome="endpoint_failure", reply=changed)
        outcome, kept = reading(question, self._judge.endpoint.replies_per_call)(completion)
        return replace(call, outcome=outcome, reply=kept)


def open_calls(ledger: Ledger, annotator: str) -> list[JudgeCall]:
    """The calls that stand in a batch whose replies are not here yet."""
    return [call for call in ledger.unsettled_calls(annotator) if call.sent_as.startswith(SENT_AS)]


def failed(call: JudgeCall, reason: str) -> JudgeCall:
    """A call that got no reply and was not billed."""
    done = replace(call, outcome="endpoint_failure", reply=reason, sent_as="")
    return replace(done, prompt_tokens=0, completion_tokens=0, cost=0.0)


def _message(error: Any) -> str:
    """What an error says, however deep its message stands; empty where there is none."""
    while isinstance(error, dict):
        error = error.get("error") or error.get("message")
    return error if isinstance(error, str) else ""


def _read_line(text: str) -> _Line | None:
    """A line of a result file, None when it is none."""
    try:
        return _Line.model_validate_json(text)
    except ValidationError:
        return None
