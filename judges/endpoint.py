"""One question to any OpenAI-compatible endpoint: settings, the request with its retries, and what came back.

What comes back is hostile: the body is read up to a limit, validated here, and anything else becomes a
`CallFailed` with a reason. Nothing here knows what a verdict is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as validated_dataclass
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from judges.criteria import STRICT
from judges.pictures import ChatMessage, chat, grey_png, image_part
from judges.verdict import excerpt
from labeling.records import Message, UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_REPLY_BYTES = 4 << 20
LONGEST_RETRY_AFTER = 120.0
TOP_LOGPROBS = 20
BACKOFF = wait_random_exponential(multiplier=0.5, max=8)


@validated_dataclass(frozen=True, config=STRICT)
class Endpoint:
    """Where a judge's model answers, and how it is asked.

    api_key: already read from the environment; empty for servers that need none. logprobs: ask for the
    probabilities of the verdict's token. token_limit: newer OpenAI models want "max_completion_tokens".
    frames: pictures shown of each clip, to models that see; 0 = its description alone.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://[^/]+")]
    model: Annotated[str, Field(min_length=1)]
    api_key: str = field(default="", repr=False)
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    max_retries: Annotated[int, Field(ge=0, le=20)] = 4
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] = 64
    logprobs: bool = True
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    frames: Annotated[int, Field(ge=0, le=8)] = 0

    def sampling(self) -> dict[str, Any]:
        """The request's settings besides model and messages."""
        settings: dict[str, Any] = {"temperature": self.temperature, self.token_limit: self.max_tokens}
        return settings | ({"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.logprobs else {})


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Content(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Content
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(default=0, ge=0, lt=1 << 53)
    completion_tokens: int = Field(default=0, ge=0, lt=1 << 53)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


COMPLETION = TypeAdapter(_Completion)


@dataclass(frozen=True)
class Completion:
    """A model's reply. tokens: each token's text with the log-probabilities of its alternatives, if they came."""

    text: str
    finish_reason: str
    refusal: str
    tokens: tuple[tuple[str, Mapping[str, float]], ...]
    prompt_tokens: int
    reply_tokens: int
    seconds: float


class CallFailed(Exception):
    """No usable reply came. status: the HTTP status, 0 if none; retry: whether another try may help."""

    def __init__(self, reason: str, status: int = 0, retry: bool = True, after: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry, self.after = status, retry, after


def open_client(endpoint: Endpoint) -> AsyncOpenAI:
    """A client for one event loop, to be used as an async context manager. It does not retry: `ask` does."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key or "none",
        timeout=endpoint.timeout_seconds,
        max_retries=0,
    )


async def ask(client: AsyncOpenAI, endpoint: Endpoint, messages: Sequence[ChatMessage], retries: int) -> Completion:
    """Ask once, and again up to `retries` times while that may help; each try ends after timeout_seconds.

    A Retry-After of up to two minutes is waited for, otherwise the wait is random and grows. Raises CallFailed.
    """

    async def attempt() -> Completion:
        try:
            async with asyncio.timeout(endpoint.timeout_seconds):
                return await _ask_once(client, endpoint, messages)
        except TimeoutError as error:
            raise CallFailed(f"no reply within {endpoint.timeout_seconds:g} s") from error

    retrying = AsyncRetrying(
        stop=stop_after_attempt(retries + 1),
        retry=retry_if_exception(lambda error: isinstance(error, CallFailed) and error.retry),
        wait=_wait,
        reraise=True,
    )
    return await retrying(attempt)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_for = error.after if isinstance(error, CallFailed) else None
    return BACKOFF(state) if asked_for is None else asked_for


async def _ask_once(client: AsyncOpenAI, endpoint: Endpoint, messages: Sequence[ChatMessage]) -> Completion:
    import openai

    started = time.monotonic()
    shown: Any = messages
    request = client.chat.completions.with_streaming_response.create(
        model=endpoint.model, messages=shown, **endpoint.sampling()
    )
    body = bytearray()
    try:
        async with request as response:
            async for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise CallFailed(f"the reply exceeds {MAX_REPLY_BYTES >> 20} MiB", retry=False)
    except openai.APITimeoutError as error:
        raise CallFailed(f"no reply within {endpoint.timeout_seconds:g} s") from error
    except openai.APIStatusError as error:
        raise _refusal_of(error) from error
    except (openai.OpenAIError, OSError) as error:
        raise CallFailed(f"no connection ({error.__cause__ or error})") from error
    except Exception as error:
        if type(error).__module__.startswith(("httpx", "httpcore")):  # what the client's transport lets through
            raise CallFailed(f"the connection broke ({type(error).__name__}: {error})") from error
        raise
    return _read_body(bytes(body), time.monotonic() - started)


def _refusal_of(error: Any) -> CallFailed:
    """Why the endpoint answered with an error status, and whether and when to ask again."""
    status: int = error.status_code
    after = _seconds(error.response.headers.get("retry-after"))
    again = (status in (408, 409, 429) or status >= 500) and error.code != "insufficient_quota"
    again = again and (after is None or after <= LONGEST_RETRY_AFTER)
    body = error.body if isinstance(error.body, Mapping) else {}
    said = body.get("message") or error.response.text or "no explanation"
    return CallFailed(f"status {status}: {excerpt(str(said))}", status, again, after)


def _seconds(header: str | None) -> float | None:
    """Seconds of a Retry-After header, None when there is none that can be read."""
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _read_body(body: bytes, seconds: float) -> Completion:
    try:
        completion = COMPLETION.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CallFailed(
            f"the reply is no chat completion ({where}{': ' if where else ''}{excerpt(first['msg'])})"
        ) from error
    choice, usage = completion.choices[0], completion.usage or _Usage()
    content = choice.logprobs.content if choice.logprobs else None
    return Completion(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason or "",
        refusal=choice.message.refusal or "",
        tokens=tuple((t.token, {a.token: a.logprob for a in t.top_logprobs}) for t in content or ()),
        prompt_tokens=usage.prompt_tokens,
        reply_tokens=usage.completion_tokens,
        seconds=seconds,
    )


async def probe(endpoint: Endpoint, key_source: str, file: str) -> None:
    """Ask one small question with the judge's own settings, and again with a picture where pictures will be shown.

    Raises UserError naming what is wrong and the cure.
    """
    words = "Reply with the letter A."
    seen: ChatMessage = {"role": "user", "content": [{"type": "text", "text": words}, image_part(grey_png())]}
    understood = False
    try:
        async with open_client(endpoint) as client:
            await ask(client, endpoint, chat([Message("user", words)]), retries=1)
            understood = True
            if endpoint.frames:
                await ask(client, endpoint, [seen], retries=1)
    except CallFailed as failure:
        if understood and failure.status not in (0, 401, 403, 429):
            raise UserError(
                f"{file}: frames = {endpoint.frames}, but {endpoint.model!r} at {endpoint.base_url} takes no pictures "
                f"({failure}): name a model that sees, or set frames = 0 to judge by descriptions alone"
            ) from failure
        cures = {
            0: "start the server, or mend base_url",
            400: f"check model = {endpoint.model!r} and try logprobs = false, another token_limit or temperature",
            401: f"check the key ({key_source})",
            403: f"check the key ({key_source})",
            404: f"check model = {endpoint.model!r} and base_url (it usually ends in /v1)",
        }
        cure = cures.get(failure.status, "try again later, or name another endpoint")
        raise UserError(f"{file}: the endpoint {endpoint.base_url} failed: {failure}: {cure}") from failure
