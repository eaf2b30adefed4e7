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
    from openai import AsyncOpenAI, OpenAIError

RETRIES = 5  # of what may be done twice
CREATIONS = 4  # tries to have a batch made
MAYBE_DONE = (408, 409, 429)  # statuses below 500 after which it is worth another try
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
            return await self._create(client, name, made.id)

    async def _create(self, client: AsyncOpenAI, name: str, file: str) -> str:
        """Have one batch made of a file, and no second one, which would be billed too, where a reply was lost."""
        from openai import OpenAIError

        once, pause, tries = client.with_options(max_retries=0), FIRST_POLL, 0
        while True:
            tries += 1
            try:
                batch = await once.batches.create(
                    input_file_id=file, endpoint=URL, completion_window="24h", metadata={NAME: name}
                )
                return batch.id
            except OpenAIError as error:
                if is_refusal(error):
                    raise
                await asyncio.sleep(pause)  # what was made may be listed a little later
                if found := await self.submitted([name]):
                    return found[name]
                if tries == CREATIONS:
                    raise
                pause = min(LONGEST_POLL, 2 * pause)

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


def is_refusal(error: OpenAIError) -> bool:
    """Whether an error says that nothing was done, and that asking again is no use."""
    status = getattr(error, "status_code", 0)
    return 400 <= status < 500 and status not in MAYBE_DONE
