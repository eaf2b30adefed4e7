"""The HTTP client under that of OpenAI's package, which reads the body of an error whole, however long it is."""

from __future__ import annotations

from typing import Any

import httpx2
from openai import DefaultAsyncHttpxClient

FRAMING = {"content-encoding", "content-length", "transfer-encoding"}  # true of the body as it was sent


class BoundedErrors(DefaultAsyncHttpxClient):
    """Keeps only the first `most` bytes of the body of an error, which is enough for its words."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    async def send(self, request: httpx2.Request, *, stream: bool = False, **more: Any) -> httpx2.Response:
        """Send a request, as the client above it does."""
        response = await super().send(request, stream=True, **more)
        if response.is_error:
            return await self._cut(response)
        if not stream:
            await response.aread()
        return response

    async def _cut(self, response: httpx2.Response) -> httpx2.Response:
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk[: self._most - len(body)]
                if len(body) == self._most:
                    break
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in FRAMING]
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)
