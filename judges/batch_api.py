"""Submissions to the OpenAI Batch API: a file of questions now, files of replies within a day, at half the price.

The submission's name is in the batch's metadata, so the process that comes after one that died finds the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from judges.endpoint import Endpoint, open_client
from judges.submissions import URL, Ended
from judges.verdict import excerpt
from labeling.records import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

RETRIES = 5
NAME = "prefloop"  # the key of the submission's name in a batch's metadata
FIRST_POLL, LONGEST_POLL = 2.0, 60.0
OVER = ("completed", "failed", "expired", "cancelled")


@dataclass(frozen=True)
class BatchApi:
    """The Batch API of an endpoint. file: that of the judge, for messages."""

    endpoint: Endpoint
    file: str
    sent_as: ClassVar[str] = "batch:"
    share_of_price: ClassVar[float] = 0.5
    asks_endpoint: ClassVar[bool] = True
    takes: ClassVar[str] = "within a day"
    collect: ClassVar[str] = "in a batch that was submitted: collect it with --batch-api"

    def prepare(self, name: str, lines: Sequence[bytes]) -> None:
        """Nothing: whether the endpoint takes it shows only when it is sent."""

    async def submit(self, name: str, lines: Sequence[bytes]) -> str:
        """Send the file, and have a batch made of it."""
        async with self._client() as client:
            made = await client.files.create(file=(f"{name}.jsonl", b"".join(lines)), purpose="batch")
            batch = await client.batches.create(
                input_file_id=made.id, endpoint=URL, completion_window="24h", metadata={NAME: name}
            )
            return batch.id

    async def submitted(self, names: Collection[str]) -> Mapping[str, str]:
        """The batches that were made of these submissions."""
        found: dict[str, str] = {}
        async with self._client() as client:
            async for batch in client.batches.list(limit=100):
                name = (batch.metadata or {}).get(NAME, "")
                if name in names:
                    found[name] = batch.id
                if len(found) == len(names):
                    break
        return found

    async def ended(self, id: str) -> Ended:
        """Wait for a batch."""
        pause = FIRST_POLL
        async with self._client() as client:
            while (batch := await client.batches.retrieve(id)).status not in OVER:
                await asyncio.sleep(pause)
                pause = min(LONGEST_POLL, 1.5 * pause)
        said = batch.errors.data[0].message if batch.errors and batch.errors.data else ""
        reason = f"the batch {id} {batch.status} without a reply" + (f": {excerpt(said)}" if said else "")
        return Ended(tuple(file for file in (batch.output_file_id, batch.error_file_id) if file is not None), reason)

    async def lines(self, file: str) -> AsyncIterator[str]:
        """The lines of a file of results, as they come."""
        async with self._client() as client, client.files.with_streaming_response.content(file) as response:
            async for line in response.iter_lines():
                yield line

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[AsyncOpenAI]:
        from openai import OpenAIError

        try:
            async with open_client(self.endpoint) as client:
                yield client.with_options(max_retries=RETRIES)
        except OpenAIError as error:
            raise UserError(
                f"{self.file}: the endpoint {self.endpoint.base_url} failed at its Batch API ({excerpt(str(error))}): "
                "run the same command again, it goes on from here, or leave out --batch-api"
            ) from error
