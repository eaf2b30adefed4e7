"""The judge behind an endpoint: asks a model about each slate in both orders, and keeps account of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from judges.answer import Answer, Clips
from judges.endpoint import CallFailed, Endpoint, ask, open_client, probe
from judges.orders import Reply, combine, reply_of
from judges.pictures import Draw, chat, chat_with_pictures
from judges.questions import Question, questions
from judges.rubric import Rubric
from judges.verdict import ANSWERS
from judges.workers import run_workers
from labeling.records import Annotator, JudgeCall, Slate, UserError, content_id

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FEWEST_FAILURES_TO_STOP = 20


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind an endpoint, with a rubric. file, key_source: the file and the key's origin, for messages.

    draw: draws clips for a model that sees; it is called in the thread that asks, for each order of a slate.
    """

    annotator: Annotator
    rubric: Rubric
    endpoint: Endpoint
    file: str
    key_source: str
    draw: Draw | None = None

    @property
    def clips(self) -> Clips:
        """A description is text like any other; pictures come with it if the endpoint is to see `frames` of them."""
        return "sees" if self.endpoint.frames else "reads"

    def check(self) -> None:
        """Ask one small question. Raises UserError naming base_url and the cure when it gets no answer."""
        asyncio.run(probe(self.endpoint, self.key_source, self.file))

    def answer(
        self,
        slates: Sequence[Slate],
        known: Mapping[str, JudgeCall],
        record: Callable[[JudgeCall], None],
        emit: Callable[[Slate, Answer], None],
    ) -> None:
        """Answer every slate, several at once. See `judges.answer.Judge`.

        Raises UserError when many calls in a row got no reply: the endpoint is down, and asking on is no use; and when
        a clip cannot be drawn.
        """
        asyncio.run(self._answer_all(slates, known, record, emit))

    async def _answer_all(
        self,
        slates: Sequence[Slate],
        known: Mapping[str, JudgeCall],
        record: Callable[[JudgeCall], None],
        emit: Callable[[Slate, Answer], None],
    ) -> None:
        failures_in_a_row, last_failure = 0, ""

        async with open_client(self.endpoint) as client:

            async def call(question: Question) -> JudgeCall:
                nonlocal failures_in_a_row, last_failure
                key = self.call_key(question)
                if key in known and known[key].outcome in ANSWERS:
                    return known[key]
                made = await self._call(client, key, question)
                record(made)
                if made.outcome == "endpoint_failure":
                    failures_in_a_row, last_failure = failures_in_a_row + 1, made.reply
                else:
                    failures_in_a_row = 0
                return made

            async def work(slate: Slate) -> None:
                asked = questions(self.rubric, slate, self.endpoint.frames > 0)
                calls = [await call(question) for question in asked]
                emit(slate, answer_of(calls))
                if failures_in_a_row >= max(FEWEST_FAILURES_TO_STOP, 2 * self.endpoint.concurrency):
                    raise UserError(
                        f"{self.file}: the endpoint {self.endpoint.base_url} failed {failures_in_a_row} times in a "
                        f"row ({last_failure}): mend it and run the same command again, it goes on from here"
                    )

            await run_workers(slates, work, self.endpoint.concurrency, self.endpoint.timeout_seconds)

    def call_key(self, question: Question) -> str:
        """The same question to the same model with the same settings is one call; clips stand for their pictures."""
        shown = [[m.role, m.content] for m in question.messages]
        clips = [part.clip for part in question.parts if part.clip]
        seen = [[self.endpoint.frames, clips]] if clips else []
        asked = [self.endpoint.model, self.endpoint.sampling(), shown, *seen]
        return content_id("call", self.annotator.id, question.slate.id, question.order, asked)

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

    async def _call(self, client: AsyncOpenAI, key: str, question: Question) -> JudgeCall:
        """Ask one question; a failure is a call too, with its reason in place of the reply."""
        seen = any(part.clip for part in question.parts)
        messages = chat_with_pictures(question, self._pictures) if seen else chat(question.messages)
        try:
            completion = await ask(client, self.endpoint, messages, self.endpoint.max_retries)
        except CallFailed as failure:
            return JudgeCall(key, self.annotator.id, question.slate.id, str(failure), "endpoint_failure")
        reply = reply_of(question.order, completion)
        return JudgeCall(
            key=key,
            annotator=self.annotator.id,
            slate_id=question.slate.id,
            reply=reply.to_json(),
            outcome=reply.verdict.outcome,
            prompt_tokens=completion.prompt_tokens,
            reply_tokens=completion.reply_tokens,
            seconds=completion.seconds,
        )


def answer_of(calls: Sequence[JudgeCall]) -> Answer:
    """The answer that the calls about one slate amount to; one that failed makes it that failure."""
    for call in calls:
        if call.outcome == "endpoint_failure":
            return Answer("endpoint_failure", reason=call.reply)
    return combine([Reply.from_json(call.reply) for call in calls], sum(call.seconds for call in calls))
