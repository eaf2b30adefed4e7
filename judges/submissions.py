"""Questions asked many at once, as a file: what `judges.batch_run` needs of whoever takes it and brings the replies.

A submission is a file of requests, one a line, under a name of our own; its replies are files of results in any order,
each line with the `custom_id` of its request. Both are those of the OpenAI Batch API.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

URL: Literal["/v1/chat/completions"] = "/v1/chat/completions"  # of every request


class RepliesAwaited(Exception):
    """Replies are not there yet, and no waiting here brings them. Its message says what does."""


@dataclass(frozen=True)
class Ended:
    """A submission that gets no more replies. files: those with results; reason: why a request has none in them."""

    files: tuple[str, ...]
    reason: str


class Submissions(Protocol):
    """Where submissions are taken and replies come from. All methods may raise UserError."""

    sent_as: ClassVar[str]  # before a submission's name, in the ledger
    share_of_price: ClassVar[float]
    asks_endpoint: ClassVar[bool]  # whether the endpoint answers, so that it can be asked small questions too
    takes: ClassVar[str]  # how long, in words
    collect: ClassVar[str]  # where open calls stand and which option collects them, in words

    def prepare(self, name: str, lines: Sequence[bytes]) -> None:
        """Do what may fail before any call of a submission is reserved in the ledger."""

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Submit what was prepared, once its calls are reserved: the id under which it is found from now on."""

    async def submitted(self, names: Collection[str]) -> Mapping[str, str]:
        """The ids of those of these submissions that were made, by name."""

    async def ended(self, id: str) -> Ended:
        """Wait until a submission has its replies. Raises RepliesAwaited where no waiting brings them."""

    def lines(self, file: str) -> AsyncIterator[str | bytes]:
        """The lines of a file of results."""
