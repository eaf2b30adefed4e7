"""The judge behind an endpoint: asks a model about each slate in several orders, and keeps account of each call."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from judges.answer import Answer, Clips, Waiting
from judges.batch_api import BatchApi
from judges.batch_files import BatchFiles
from judges.batch_run import BatchRun, open_calls
from judges.budget import FREE, UNCAPPED, BudgetReached, Caps, Price, Size, size_of
from judges.calling import Caller
from judges.canaries import DEFAULT_CANARIES, CanaryRules
from judges.endpoint import Endpoint, Request, open_client
from judges.endpoint_run import EndpointRun
from judges.forms import LISTED, SCORED, Form
from judges.ledger import Ledger, LedgerWriter
from judges.pace import Pace
from judges.pictures import Draw, chat, chat_with_pictures
from judges.probe import Probe
from judges.questions import Question
from judges.rubric import Rubric
from judges.schemas import score_schema, verdict_schema
from judges.submissions import Submissions
from judges.verdict import FINAL_CALLS
from labeling.records import Annotator, Label, Slate, UserError, content_id


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind an endpoint, with a rubric. file, key_source: the file and the key's origin, for messages.

    price: None where it is not known. price_date: when it was looked up, None where the file says it. draw: draws
    clips for a model that sees; it is called in the thread that asks, for each question. batch: ask by submissions to
    it, None = call by call.
    """

    annotator: Annotator
    rubric: Rubric
    endpoint: Endpoint
    file: str
    key_source: str
    draw: Draw | None = None
    caps: Caps = UNCAPPED
    price: Price | None = None
    price_date: datetime.date | None = None
    canary_rules: CanaryRules = DEFAULT_CANARIES
    remarks: tuple[str, ...] = ()
    batch: Submissions | None = None

    @property
    def clips(self) -> Clips:
        """A description is text like any other; pictures come with it if the endpoint is to see `frames` of them."""
        return "sees" if self.endpoint.frames else "reads"

    @property
    def priced(self) -> bool:
        """Whether it is known what its calls cost."""
        return self.price is not None or (self.batch is not None and not self.batch.share_of_price)

    def within(self, caps: Caps) -> EndpointJudge:
        """The same judge with other caps. Raises UserError for one in dollars where no price is known."""
        money = next((cap for cap in (caps.own.money, caps.together.money) if cap is not None), None)
        if money is not None and self.price is None:
            raise UserError(
                f"{self.file}: there is a cap of ${money:g}, but the price of {self.endpoint.model!r} is not "
                "known: say it in [price] prompt and completion (dollars for a million tokens, 0 for your own server)"
            )
        return replace(self, caps=caps)

    def checked(self, ledger: Ledger) -> EndpointJudge:
        """Ask small questions, and do without what the endpoint cannot do.

        Raises UserError naming base_url and the cure when it gets no answer.
        """
        if self.batch and not self.batch.asks_endpoint:
            return self
        return asyncio.run(self._checked(ledger))

    async def _checked(self, ledger: Ledger) -> EndpointJudge:
        async with self._calling(ledger) as (caller, _, _):
            probe = Probe(caller, self.endpoint, self.key_source, self.file)
            try:
                endpoint = await probe.abilities()
            except BudgetReached:
                return self  # what is asked next says so, and what is left
            return replace(self, endpoint=endpoint, remarks=tuple(probe.remarks))

    @asynccontextmanager
    async def _calling(self, ledger: Ledger) -> AsyncIterator[tuple[Caller, LedgerWriter, Pace]]:
        e = self.endpoint
        pace = Pace(e.concurrency, e.requests_per_minute, e.tokens_per_minute)
        async with open_client(e) as client, LedgerWriter(ledger) as writer:
            price = self.price or FREE
            yield Caller(client, e, self.annotator.id, ledger, writer, self.caps, price, pace), writer, pace

    def answer(
        self,
        slates: Iterable[Waiting],
        ledger: Ledger,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        """Answer every slate, several at once. See `judges.answer.Judge`.

        Raises UserError when many calls in a row got no reply: the endpoint is down, and asking on is no use; and when
        a clip cannot be drawn.
        """
        asyncio.run(self._answer_all(slates, ledger, keep, tell))

    async def _answer_all(
        self,
        slates: Iterable[Waiting],
        ledger: Ledger,
        keep: Callable[[Waiting, Answer], Label],
        tell: Callable[[Label], None],
    ) -> None:
        for way in (BatchApi, BatchFiles):
            submitted = open_calls(ledger, self.annotator.id, way.sent_as)
            if submitted and not isinstance(self.batch, way):
                raise UserError(f"{self.file}: {len(submitted):,} calls stand {way.collect}")
        async with self._calling(ledger) as (caller, writer, pace):
            run = EndpointRun(self, ledger, caller, writer, pace, keep, tell)
            if self.batch is None:
                await run.answer_all(slates)
                return
            batches = BatchRun(self, self.batch, ledger, keep, tell)
            await batches.collect_open()  # before slates are taken, each with what is known of it by then
            await batches.answer_all(await run.with_canaries_first(slates) if self.batch.asks_endpoint else slates)

    @property
    def form(self) -> Form:
        """How it is asked."""
        return SCORED if self.rubric.scale else LISTED

    def questions(self, slate: Slate) -> tuple[Question, ...]:
        """What is asked about a slate: all candidates in several orders, or each alone."""
        return self.form.questions(self.rubric, slate, self.endpoint.frames > 0, self._as_json(len(slate.candidates)))

    def _as_json(self, k: int) -> bool:
        """Whether a score, or a verdict about k candidates, is to come as JSON by a schema."""
        e = self.endpoint
        able = e.schema and (e.list_schema or k == 2 or self.rubric.scale is not None)
        return able and not self.rubric.reasoning

    def unanswered(self, waiting: Waiting) -> Iterator[Size]:
        """The sizes of the questions about a slate that are still to be asked."""
        for question in self.questions(waiting.slate):
            pictures = self.endpoint.frames * sum(part.clip != "" for part in question.parts)
            size = replace(size_of(chat(question.messages)), pictures=pictures)
            for sample in range(self.endpoint.calls_per_question):
                last = waiting.known.get(self.call_key(question, sample))
                if last is None or last.outcome not in FINAL_CALLS:
                    yield size

    def call_key(self, question: Question, sample: int = 0) -> str:
        """The same question to the same model with the same settings is one call; clips stand for their pictures.

        One about a candidate alone is the same in whatever slate the candidate stands.
        """
        shown = [[m.role, m.content] for m in question.messages]
        clips = [part.clip for part in question.parts if part.clip]
        seen = [[self.endpoint.frames, clips]] if clips else []
        settings = self.settings(question, sample)
        asked = [self.rubric.fingerprint, self.endpoint.model, settings, sample, shown, *seen]
        within = [question.slate.id, question.order] if question.scale is None else []
        return content_id("call", self.annotator.id, *within, asked)

    def request(self, question: Question, sample: int = 0) -> Request:
        """What is sent to ask a question."""
        seen = any(part.clip for part in question.parts)
        messages = chat_with_pictures(question, self._pictures) if seen else chat(question.messages)
        return Request(messages, self.settings(question, sample))

    def settings(self, question: Question, sample: int) -> dict[str, Any]:
        """Sampling, and the form of the reply if it is to be JSON."""
        k = len(question.order)
        schema = score_schema(question.scale) if question.scale else verdict_schema(k)
        form = {"response_format": schema} if self._as_json(k) else {}
        return self.endpoint.sampling(sample) | form

    def _pictures(self, clip: str) -> Sequence[bytes]:
        """The pictures of a clip. Raises UserError when it cannot be drawn: that is no failure of the endpoint."""
        assert self.draw is not None
        frames = self.endpoint.frames
        try:
            return self.draw(clip, frames)
        except UserError as error:
            raise UserError(
                f"{self.file}: frames = {frames}, but {clip} cannot be drawn ({error}): mend that, or set "
                "frames = 0 to judge by descriptions alone"
            ) from error
