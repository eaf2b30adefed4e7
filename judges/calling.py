"""One call to an endpoint from the question to the books: reserved, let in, asked, asked again, settled.

Every attempt that may have been billed is a row of the ledger. It is noted at the most that it can cost before it is
sent, and as what it did cost before anything is made of its reply.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from judges.budget import TOKENS_PER_BYTE, UNLIMITED, BudgetReached, Caps, Price, Size, size_of
from judges.endpoint import CallFailed, Completion, Endpoint, Request, ask
from judges.ledger import Ledger, LedgerWriter
from judges.pace import LONGEST_PAUSE, Pace, PauseTooLong
from labeling.records import CallOutcome, JudgeCall, UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

LONGEST_STORM = 600.0  # seconds for which a call heeds an endpoint that keeps asking to slow down
FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 8.0
ANSWERED, RATE_LIMITED = 200, 429


@dataclass
class Meter:
    """What calls cost: exactly when they are done, at most and about before."""

    price: Price
    per_byte: float = TOKENS_PER_BYTE
    reply_tokens: float | None = None

    def about(self, size: Size, most_reply_tokens: int) -> float:
        """Tokens that a question of this size will come to, both ways, by what earlier ones did."""
        return size.text * self.per_byte + (most_reply_tokens if self.reply_tokens is None else self.reply_tokens)

    def learn(self, size: Size, prompt_tokens: int, reply_tokens: int) -> None:
        """Remember what a question came to (a running mean of about twenty)."""
        self.per_byte += 0.05 * (prompt_tokens / max(1, size.text) - self.per_byte)
        before = float(reply_tokens) if self.reply_tokens is None else self.reply_tokens
        self.reply_tokens = before + 0.05 * (reply_tokens - before)


class Caller:
    """Asks one endpoint as one annotator: within its budget, at its pace, every attempt in the books."""

    def __init__(
        self,
        client: AsyncOpenAI,
        endpoint: Endpoint,
        annotator: str,
        ledger: Ledger,
        writer: LedgerWriter,
        caps: Caps,
        price: Price,
        pace: Pace,
    ) -> None:
        self._client, self._endpoint, self._annotator = client, endpoint, annotator
        self._ledger, self._writer, self._pace = ledger, writer, pace
        self._caps = caps
        self._meter = Meter(price)
        self._open = 0  # calls of this process that are reserved and not settled
        self._settled = asyncio.Event()
        self._chance = random.Random()

    async def call(
        self,
        key: str,
        slate_id: str,
        request: Request,
        read: Callable[[Completion], tuple[CallOutcome, str]],
        last: JudgeCall | None = None,
    ) -> tuple[JudgeCall, CallFailed | None]:
        """Ask until there is a reply or no hope: the last attempt as it is in the books, and why it failed if it did.

        read: a reply's outcome, and what is kept of it. last: the last attempt of earlier. A call that fails is a call
        too, with its reason in place of the reply. Raises BudgetReached, Stopped when it was not sent any more, and
        UserError when the endpoint asks for a pause that is too long to sit through.
        """
        try:
            return await self._call(key, slate_id, request, read, last)
        except PauseTooLong as pause:
            raise UserError(
                f"the endpoint {self._endpoint.base_url} asks for a pause of {in_words(pause.seconds)} ({pause}): "
                "run the same command again after that, it goes on from here"
            ) from pause

    async def _call(
        self,
        key: str,
        slate_id: str,
        request: Request,
        read: Callable[[Completion], tuple[CallOutcome, str]],
        last: JudgeCall | None,
    ) -> tuple[JudgeCall, CallFailed | None]:
        attempt = last.attempt + 1 if last else 0
        sent_as = (last.sent_as if last else "") or f"{key}-{attempt}"
        failures, storm = 0, math.inf
        while True:
            call = JudgeCall(key, self._annotator, slate_id, "unsettled", "", attempt, sent_as)
            made, failure = await self._attempt(call, request, read)
            if failure is None:
                return made, None
            if failure.status == RATE_LIMITED:
                storm = min(storm, time.monotonic())
                hopeless = time.monotonic() - storm > LONGEST_STORM
            else:
                failures += 1
                hopeless = failures > self._endpoint.max_retries
            if hopeless or not failure.retry:
                return made, failure
            attempt += 1
            # A refusal says nothing of an earlier try that was lost: only an answer ends a request.
            sent_as = made.sent_as or f"{key}-{attempt}"
            await self._pace.rest(self._backoff(failures, failure))

    async def _attempt(
        self, call: JudgeCall, request: Request, read: Callable[[Completion], tuple[CallOutcome, str]]
    ) -> tuple[JudgeCall, CallFailed | None]:
        """One attempt as it stands in the books, and why it failed if it did. Cut off, it stays there unsettled."""
        size = size_of(request.messages)
        async with self._pace.turn(self._meter.about(size, request.most_reply_tokens)) as used:
            reserved = await self._reserve(call, size.most_tokens, request.most_reply_tokens)
            started = time.monotonic()
            try:
                completion = await ask(self._client, self._endpoint, request, call.sent_as, self._pace.hear)
            except CallFailed as failure:
                pause = too_long(failure)
                if pause is not None:
                    self._pace.give_up(pause)
                elif failure.status == RATE_LIMITED:
                    self._pace.refused(failure.after, self._chance.random())
                seconds = time.monotonic() - started
                made = replace(reserved, outcome="endpoint_failure", reply=str(failure), seconds=seconds)
                if failure.status == ANSWERED:
                    made = replace(made, sent_as="")
                if not failure.billed:
                    made = replace(made, prompt_tokens=0, completion_tokens=0, cost=0.0)
                await self._settle(made)
                if pause is not None:
                    raise pause from failure
                return made, failure
            except BaseException:
                self._close()
                raise
            self._pace.succeeded(completion.seconds)
            prompt, reply = completion.usage or (reserved.prompt_tokens, reserved.completion_tokens)
            if completion.usage:
                self._meter.learn(size, prompt, reply)
                used(prompt + reply)
            outcome, kept = read(completion)
            made = replace(
                reserved,
                outcome=outcome,
                reply=kept,
                prompt_tokens=prompt,
                completion_tokens=reply,
                cost=self._meter.price.of(prompt, reply),
                seconds=completion.seconds,
                sent_as="",
            )
            await self._settle(made)
            return made, None

    def _backoff(self, failures: int, failure: CallFailed) -> float:
        """What the endpoint asks for, or a random wait whose range doubles with each failure (full jitter)."""
        if failure.after is not None:
            return failure.after
        return self._chance.uniform(0, min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** min(failures, 10)))

    async def _reserve(self, call: JudgeCall, prompt: int, reply: int) -> JudgeCall:
        """Note the attempt at its most; wait while calls under way hold what it needs. Raises BudgetReached."""
        call = replace(call, prompt_tokens=prompt, completion_tokens=reply, cost=self._meter.price.of(prompt, reply))

        ledger, caps = self._ledger, self._caps
        while not await self._writer.write(lambda: ledger.reserve_call(call, caps.own, caps.together)):
            if self._open == 0:
                raise BudgetReached(no_room(caps, ledger, self._annotator))
            self._settled.clear()
            await self._settled.wait()
        self._open += 1
        return call

    async def _settle(self, call: JudgeCall) -> None:
        await self._writer.write(lambda: self._ledger.settle_call(call))
        self._close()

    def _close(self) -> None:
        self._open -= 1
        self._settled.set()


def no_room(caps: Caps, ledger: Ledger, annotator: str) -> str:
    """Which caps leave no room, and how much of them is used."""
    used = caps.used(ledger.judge_spending(annotator), ledger.total_spending())
    elsewhere = 0 if caps.together == UNLIMITED else ledger.count_unsettled_of_others(annotator)
    held = f"; {elsewhere:,} calls of other judges hold their most of it until they end" if elsewhere else ""
    return f"the budget has no room for another call ({used}{held})"


def too_long(failure: CallFailed) -> PauseTooLong | None:
    """The pause that an endpoint asks for where it is too long, None for any other failure."""
    if failure.status != RATE_LIMITED or failure.after is None or failure.after <= LONGEST_PAUSE:
        return None
    return PauseTooLong(failure.after, str(failure))


def in_words(seconds: float) -> str:
    """So many seconds in minutes or hours, rounded up so that who waits as long has waited enough."""
    minutes = math.ceil(seconds / 60)
    return f"{minutes} minutes" if minutes <= 120 else f"{math.ceil(minutes / 60)} hours"
