"""What is found out about an endpoint before anything is spent on slates: whether it answers, and what it can do.

Servers refuse what they do not know, or ignore it without a word. So each ability that the judge wants is tried with a
small question whose reply shows whether it was heeded; what is missing is said, and done without.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from judges.calling import Caller
from judges.endpoint import TOKEN_LIMITS, CallFailed, Completion, Endpoint, Request
from judges.pictures import ChatMessage, chat, grey_png, image_part
from judges.schemas import ranking_pattern, verdict_schema
from judges.verdict import stated_json
from labeling.records import CallOutcome, Message, UserError, content_id

WORDS = "Reply with the letter A."
LONG = "Count from 1 to 100, with a space between the numbers."
FEW_TOKENS, ROOM = 8, 64
RANKED = 3  # candidates of the ranking that is tried
REFUSALS = (400, 422)  # statuses of a server that does not take what is asked of it
LONGEST_TOKEN = 12  # characters; a reply of more than so many for each token was not cut off
PROBED = "probe"  # stands for a slate in the ledger


class Probe:
    """Tries an endpoint for a judge. remarks: what it found missing, in words."""

    def __init__(self, caller: Caller, endpoint: Endpoint, key_source: str, file: str) -> None:
        self._caller, self._endpoint, self._key_source, self._file = caller, endpoint, key_source, file
        self.remarks: list[str] = []
        self._asked = 0

    async def abilities(self) -> Endpoint:
        """The endpoint with those settings that it heeds. Raises UserError, with the cure, when it is of no use."""
        await self._limit_replies()
        if self._endpoint.seeded:  # before what is tried with it
            await self._try_seed()
        if self._endpoint.logprobs and not await self._gives_logprobs():
            self._endpoint = replace(self._endpoint, logprobs=False)
            self._missing("logprobs", "token probabilities", "verdicts count as votes; samples = 5 gives soft labels")
        if self._endpoint.schema:
            await self._try_schemas()
        if self._endpoint.replies_per_call > 1 and not await self._gives_several():
            self._endpoint = replace(self._endpoint, n=False)
            self._missing("n", "several replies at once", "each sample is a call of its own")
        if self._endpoint.frames:
            await self._takes_pictures()
        return self._endpoint

    def _missing(self, setting: str, what: str, instead: str) -> None:
        self.remarks.append(f"it refuses or ignores the request for {what} ({setting}): {instead}")

    async def _limit_replies(self) -> None:
        """Find the name under which the endpoint heeds a limit on tokens; it must answer under one of them."""
        first = self._endpoint.token_limit
        failures: dict[str, CallFailed] = {}
        for name in (first, *(other for other in TOKEN_LIMITS if other != first)):
            settings = {"temperature": self._endpoint.temperature, name: FEW_TOKENS}
            completion, failure = await self._ask(chat([Message("user", LONG)]), settings)
            if failure is not None:
                failures[name] = failure
                if failure.status not in REFUSALS:
                    break
            elif completion is not None and heeded(completion):
                if name != first:
                    self._endpoint = replace(self._endpoint, token_limit=name)
                    self.remarks.append(f"it knows {first} not at all: {name} is used (token_limit)")
                return
        if len(failures) == 0 or (first not in failures and failures[name].status in REFUSALS):
            self.remarks.append("it ignores the limit on tokens: a reply can cost more than was reserved for it")
            return
        raise self._useless(failures.get(first) or failures[name])

    async def _gives_logprobs(self) -> bool:
        alone = replace(self._endpoint, n=False)
        completion, _ = await self._ask(chat([Message("user", WORDS)]), alone.sampling())
        return completion is not None and gives_logprobs(completion)

    async def _gives_several(self) -> bool:
        """Whether as many come as will be asked for (some servers have a limit), each with what else is wanted."""
        completion, _ = await self._ask(chat([Message("user", WORDS)]), self._endpoint.sampling())
        if completion is None or len(completion.others) != self._endpoint.replies_per_call - 1:
            return False
        return not self._endpoint.logprobs or all(gives_logprobs(one) for one in completion.others)

    async def _try_schemas(self) -> None:
        """Whether verdicts about pairs come by a schema, and whether rankings do."""
        instead = "the last verdict in a reply of free form counts"
        if await self._stated(2) is None:
            self._endpoint = replace(self._endpoint, schema=False)
            self._missing("schema", "the JSON schema", instead)
        elif (
            self._endpoint.list_schema
            and re.fullmatch(ranking_pattern(RANKED), await self._stated(RANKED) or "") is None
        ):
            self._endpoint = replace(self._endpoint, list_schema=False)
            self._missing("list_schema", "the pattern in the JSON schema of rankings", instead)

    async def _stated(self, k: int) -> str | None:
        """What it states as JSON by the schema of a verdict about k, where nothing but the schema asks for one."""
        asked = chat([Message("user", "Write a line of verse about the sea.")])
        settings = {"temperature": 0.0, self._endpoint.token_limit: ROOM, "response_format": verdict_schema(k)}
        completion, _ = await self._ask(asked, settings)
        return stated_json(completion.text) if completion else None

    async def _try_seed(self) -> None:
        asked = chat([Message("user", "Write eight random letters.")])
        settings = {"temperature": 1.5, self._endpoint.token_limit: 24, "seed": 7}
        replies = []
        for _ in range(2):
            completion, failure = await self._ask(asked, settings)
            if failure is not None and failure.status in REFUSALS and await self._refuses_seed():
                self._endpoint = replace(self._endpoint, seed=False)
                self.remarks.append("it refuses seed: samples go without, and asking again may give others")
                return
            replies.append(completion and completion.text)
        if None in replies or len(set(replies)) > 1:
            self.remarks.append("it ignores seed: asking the same again may give another reply")

    async def _refuses_seed(self) -> bool:
        """Whether it refuses a seed at the judge's own temperature, at which it has answered without one."""
        settings = {"temperature": self._endpoint.temperature, self._endpoint.token_limit: FEW_TOKENS, "seed": 7}
        _, failure = await self._ask(chat([Message("user", LONG)]), settings)
        return failure is not None and failure.status in REFUSALS

    async def _takes_pictures(self) -> None:
        seen: ChatMessage = {"role": "user", "content": [{"type": "text", "text": WORDS}, image_part(grey_png())]}
        _, failure = await self._ask([seen], self._endpoint.sampling())
        if failure is None:
            return
        if failure.status in (0, 401, 403, 429):
            raise self._useless(failure)
        e = self._endpoint
        raise UserError(
            f"{self._file}: frames = {e.frames}, but {e.model!r} at {e.base_url} takes no pictures ({failure}): name a "
            "model that sees, or set frames = 0 to judge by descriptions alone"
        )

    async def _ask(
        self, messages: Sequence[ChatMessage], settings: Mapping[str, Any]
    ) -> tuple[Completion | None, CallFailed | None]:
        heard: list[Completion] = []

        def read(completion: Completion) -> tuple[CallOutcome, str]:
            heard.append(completion)
            return "abstain", completion.text

        self._asked += 1
        key = content_id("call", PROBED, time.time_ns(), self._asked)
        _, failure = await self._caller.call(key, PROBED, Request(messages, settings), read)
        return (heard[0] if heard else None), failure

    def _useless(self, failure: CallFailed) -> UserError:
        e = self._endpoint
        cures = {
            0: "start the server, or mend base_url",
            200: "mend base_url (it usually ends in /v1), or try again later",
            **dict.fromkeys(REFUSALS, f"check model = {e.model!r} and try another temperature"),
            401: f"check the key ({self._key_source})",
            403: f"check the key ({self._key_source})",
            404: f"check model = {e.model!r} and base_url (it usually ends in /v1)",
        }
        cure = cures.get(failure.status, "try again later, or name another endpoint")
        return UserError(f"{self._file}: the endpoint {e.base_url} failed: {failure}: {cure}")


def gives_logprobs(completion: Completion) -> bool:
    """Whether a reply came with its tokens' alternatives."""
    return any(alternatives for _, alternatives in completion.tokens)


def heeded(completion: Completion) -> bool:
    """Whether a reply to LONG kept to FEW_TOKENS."""
    if completion.finish_reason == "length":
        return True
    if completion.usage is not None:
        return completion.usage[1] <= FEW_TOKENS
    return len(completion.text) <= FEW_TOKENS * LONGEST_TOKEN
