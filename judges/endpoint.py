"""One question to any OpenAI-compatible endpoint: settings, the request, and what came back.

What comes back is hostile: the body is read up to a limit, validated here, and anything else becomes a
`CallFailed` with a reason. Nothing here knows what a verdict is.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.dataclasses import dataclass as validated_dataclass

from judges.criteria import STRICT
from judges.pace import LONGEST_PAUSE
from judges.pictures import ChatMessage
from judges.verdict import EXCERPT, excerpt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

MAX_REPLY_BYTES = 4 << 20
TOP_LOGPROBS = 20
SHORT_REPLY = 64
NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # causes of the client's that come before any request

TOKEN_LIMITS: tuple[Literal["max_tokens"], Literal["max_completion_tokens"]] = ("max_tokens", "max_completion_tokens")


def _address(url: str) -> str:
    """An address that can be called. Raises ValueError with the cure."""
    try:
        parts = urlsplit(url)
        able = parts.hostname is not None and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:  # no port is so high, or it is no number
        able = False
    if not able:
        raise ValueError(f"{url!r} is no address that can be called: check its host and its port (1 to 65535)")
    return url


Headers = Mapping[str, str]


@validated_dataclass(frozen=True, config=STRICT)
class Endpoint:
    """Where a judge's model answers, and how it is asked.

    api_key: already read from the environment; empty for servers that need none. concurrency: the most calls at once;
    how many there are follows from how the endpoint bears them. requests_per_minute, tokens_per_minute: its limits,
    where it does not tell them itself. max_retries: of a failed call; being asked to slow down is no failure.
    samples: how often each order of a slate is asked. n: all samples of a question come from one call. seed: drawn
    samples have a seed, each its own. logprobs: ask for the probabilities of the verdict's token.
    schema: have scores and verdicts as JSON by a schema; list_schema: with it rankings of more than two as well, whose
    schema has a pattern. token_limit: newer OpenAI models want "max_completion_tokens". frames: pictures shown of each
    clip, to models that see; 0 = its description alone.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://[^/]+"), AfterValidator(_address)]
    model: Annotated[str, Field(min_length=1)]
    api_key: str = field(default="", repr=False)
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 64
    requests_per_minute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    tokens_per_minute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    max_retries: Annotated[int, Field(ge=0, le=20)] = 4
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    samples: Annotated[int, Field(ge=1, le=100)] = 1
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31)] = SHORT_REPLY
    n: bool = False
    seed: bool = True
    logprobs: bool = True
    schema: bool = False
    list_schema: bool = True
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    frames: Annotated[int, Field(ge=0, le=8)] = 0

    @property
    def seeded(self) -> bool:
        """Whether replies are drawn, each from a seed of its own."""
        return self.seed and self.drawn

    @property
    def drawn(self) -> bool:
        """Whether a question's samples are drawn, so that they may differ."""
        return self.samples > 1 and self.temperature > 0

    @property
    def replies_per_call(self) -> int:
        """How many samples one call gives."""
        return self.samples if self.n and self.drawn else 1

    @property
    def calls_per_question(self) -> int:
        """How many calls the samples of a question take."""
        return self.samples // self.replies_per_call

    def sampling(self, sample: int = 0) -> dict[str, Any]:
        """The request's settings besides model, messages and form."""
        settings: dict[str, Any] = {"temperature": self.temperature, self.token_limit: self.max_tokens}
        settings |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.logprobs else {}
        settings |= {"seed": sample} if self.seeded else {}
        return settings | ({"n": self.replies_per_call} if self.replies_per_call > 1 else {})


def _or_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    """What is no part of a verdict spoils none: where it is not as it should be, it is as good as not there."""
    try:
        return read(value)
    except ValidationError:
        return None


def _joined(content: Any) -> Any:
    """The text of a content that comes in parts; those that are no text, like thoughts, are left out."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


LENIENT = WrapValidator(_or_none)


class _Alternative(BaseModel):
    token: str
    logprob: float


class _Token(BaseModel):
    token: str
    top_logprobs: Annotated[list[_Alternative] | None, LENIENT] = None


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Content(BaseModel):
    content: Annotated[str | None, BeforeValidator(_joined)] = None
    refusal: Annotated[str | None, LENIENT] = None


class _Error(BaseModel):
    message: str
    code: Any = None


class _Choice(BaseModel):
    message: _Content
    error: Annotated[_Error | str | None, LENIENT] = None
    finish_reason: Annotated[str | None, LENIENT] = None
    logprobs: Annotated[_Logprobs | None, LENIENT] = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0, lt=1 << 53)
    completion_tokens: int = Field(ge=0, lt=1 << 53)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    error: Annotated[_Error | str | None, LENIENT] = None
    usage: Annotated[_Usage | None, LENIENT] = None
    id: Annotated[str | None, LENIENT] = None
    model: Annotated[str | None, LENIENT] = None


class _ErrorBody(BaseModel):
    error: _Error | str


COMPLETION = TypeAdapter(_Completion)
ERROR = TypeAdapter(_ErrorBody)


@dataclass(frozen=True)
class Completion:
    """A model's reply. tokens: each token's text with the log-probabilities of its alternatives, if they came.

    usage: tokens of question and reply, None if the endpoint does not count. id, model: as the endpoint calls the reply
    and the model that gave it. others: the further replies of the same call, where it asked for several.
    """

    text: str
    finish_reason: str
    refusal: str
    tokens: tuple[tuple[str, Mapping[str, float]], ...]
    usage: tuple[int, int] | None
    seconds: float
    id: str = ""
    model: str = ""
    others: tuple[Completion, ...] = ()


class CallFailed(Exception):
    """No usable reply came.

    status: the HTTP status, 0 if none. retry: whether another try may help. after: seconds that the endpoint asks for.
    billed: whether the endpoint may have billed it all the same.
    """

    def __init__(
        self, reason: str, status: int = 0, retry: bool = True, after: float | None = None, billed: bool = False
    ) -> None:
        super().__init__(reason)
        self.status, self.retry, self.after, self.billed = status, retry, after, billed


@dataclass(frozen=True)
class Request:
    """What is asked in one call, besides the model: messages in the chat format, and settings."""

    messages: Sequence[ChatMessage]
    settings: Mapping[str, Any]

    @property
    def replies(self) -> int:
        """How many replies it asks for."""
        return int(self.settings.get("n", 1))

    @property
    def most_reply_tokens(self) -> int:
        """The limit on tokens that it sets, under either name, for all replies that it asks for."""
        each = int(next(self.settings[name] for name in TOKEN_LIMITS if name in self.settings))
        return each * self.replies


def open_client(endpoint: Endpoint) -> AsyncOpenAI:
    """A client for one event loop, to be used as an async context manager. It does not retry: `judges.calling` does."""
    from openai import AsyncOpenAI

    from judges.http_client import BoundedErrors

    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=endpoint.api_key or "none",
        timeout=endpoint.timeout_seconds,
        max_retries=0,
        http_client=BoundedErrors(MAX_REPLY_BYTES),
    )


async def ask(
    client: AsyncOpenAI,
    endpoint: Endpoint,
    request: Request,
    idempotency_key: str,
    hear: Callable[[Headers], None],
) -> Completion:
    """Ask once, for at most timeout_seconds. `hear` gets the headers of whatever comes back. Raises CallFailed.

    An endpoint that knows the idempotency key answers the same request again without billing it again.
    """
    try:
        async with asyncio.timeout(endpoint.timeout_seconds):
            return await _ask(client, endpoint, request, idempotency_key, hear)
    except TimeoutError as error:
        raise CallFailed(f"no reply within {endpoint.timeout_seconds:g} s", billed=True) from error


async def _ask(
    client: AsyncOpenAI, endpoint: Endpoint, request: Request, idempotency_key: str, hear: Callable[[Headers], None]
) -> Completion:
    import openai

    started = time.monotonic()
    messages: Any = request.messages
    settings: Any = request.settings
    sent = client.chat.completions.with_streaming_response.create(
        model=endpoint.model, messages=messages, extra_headers={"Idempotency-Key": idempotency_key}, **settings
    )
    body = bytearray()
    try:
        async with sent as response:
            hear(response.headers)
            async for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise CallFailed(f"the reply exceeds {MAX_REPLY_BYTES >> 20} MiB", 200, retry=False, billed=True)
    except openai.APITimeoutError as error:
        raise CallFailed(f"no reply within {endpoint.timeout_seconds:g} s", billed=True) from error
    except openai.APIStatusError as error:
        hear(error.response.headers)
        raise _refusal_of(error) from error
    except (openai.OpenAIError, OSError) as error:
        unheard = type(error.__cause__).__name__ in NEVER_SENT
        raise CallFailed(f"no connection ({excerpt(str(error.__cause__ or error))})", billed=not unheard) from error
    except Exception as error:
        if type(error).__module__.startswith(("httpx", "httpcore")):  # what the client's transport lets through
            broken = f"the connection broke ({type(error).__name__}: {excerpt(str(error))})"
            raise CallFailed(broken, billed=True) from error
        raise
    return read_body(bytes(body), time.monotonic() - started, request.replies)


def _refusal_of(error: Any) -> CallFailed:
    """Why the endpoint answered with an error status, and whether and when to ask again."""
    status: int = error.status_code
    headers: Headers = error.response.headers
    after = seconds_to_wait(headers)
    told = headers.get("x-should-retry")
    again = status in (408, 409, 429) or status >= 500 if told is None else told == "true"
    again = again and error.code != "insufficient_quota" and (after is None or after <= LONGEST_PAUSE)
    body = error.body if isinstance(error.body, Mapping) else {}
    said = body.get("message") or error.response.text or "no explanation"
    return CallFailed(f"status {status}: {excerpt(str(said))}", status, again, after)


def seconds_to_wait(headers: Headers, now: float | None = None) -> float | None:
    """What retry-after-ms or Retry-After (seconds or a date) asks for, None when neither can be read."""
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        return seconds if math.isfinite(seconds) and seconds >= 0 else None
    try:
        date = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, date - (time.time() if now is None else now))


def read_body(body: bytes, seconds: float, replies: int) -> Completion:
    """A reply read from the body of a chat completion that was to hold so many. Raises CallFailed when it does not."""
    try:
        completion = COMPLETION.validate_json(body)
    except ValidationError as error:
        raise _no_completion(body, error) from error
    errors = [completion.error, *(choice.error for choice in completion.choices)]
    if said := next((error for error in errors if error), None):
        raise _error_said(said)  # a relay whose model broke off: whatever stands beside it is no answer
    if (count := len(completion.choices)) < replies:
        came = f"{count} of {replies} replies came that were asked for at once: set n = false if it lasts"
        raise CallFailed(came, 200, retry=False, billed=True)
    read = [_completion(choice, completion, seconds) for choice in completion.choices]
    usage = completion.usage
    counted = (usage.prompt_tokens, usage.completion_tokens) if usage else None
    return replace(read[0], usage=counted, others=tuple(read[1:]))


def _no_completion(body: bytes, error: ValidationError) -> CallFailed:
    """Why a body that came with status 200 is no chat completion: in the words of its error, if it holds one."""
    try:
        said = ERROR.validate_json(body).error
    except ValidationError:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = f"{where}: {excerpt(first['msg'])}" if where else f"no JSON: {_beginning(body)}"
        return CallFailed(f"the reply is no chat completion ({what})", 200, billed=True)
    return _error_said(said)


def _beginning(body: bytes) -> str:
    """How a body begins, in words."""
    return excerpt(body[: 4 * EXCERPT].decode(errors="replace")) if body else "nothing"


def _error_said(said: _Error | str) -> CallFailed:
    """The failure that an error in a body of status 200 means."""
    told = _Error(message=said) if isinstance(said, str) else said
    status = 429 if str(told.code) == "429" else 200
    return CallFailed(f"the reply is an error: {excerpt(told.message)}", status, billed=status == 200)


def _completion(choice: _Choice, completion: _Completion, seconds: float) -> Completion:
    content = choice.logprobs.content if choice.logprobs else None
    return Completion(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason or "",
        refusal=choice.message.refusal or "",
        tokens=tuple((t.token, {a.token: a.logprob for a in _ascending(t)}) for t in content or ()),
        usage=None,
        seconds=seconds,
        id=completion.id or "",
        model=completion.model or "",
    )


def _ascending(token: _Token) -> list[_Alternative]:
    """The alternatives, the likeliest last: of several with one text, which may be one token twice, that one counts."""
    return sorted(token.top_logprobs or (), key=lambda alternative: alternative.logprob)
