"""An endpoint with a latency and a rate limit: `python judging_endpoint.py RPM HEADERS SECONDS` prints its port.

HEADERS: "told" sends OpenAI's x-ratelimit headers and retry-after-ms, "silent" sends neither. The limit is a bucket
that refills evenly and holds one second's worth. Latency is lognormal around SECONDS. A line on stdin ends it; it
prints how many requests it took, how many it refused, and the seconds between the first and the last that it took.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

SPREAD = 0.35  # standard deviation of the latency's logarithm
PROMPT_TOKENS, REPLY_TOKENS = 220, 4


class Limited:
    def __init__(self, rpm: float, told: bool, median: float) -> None:
        self.rpm, self.rate, self.told, self.median = rpm, rpm / 60, told, median
        self.level, self.at = self.rate, time.monotonic()
        self.times: list[float] = []
        self.refused = 0
        self.chance = random.Random(0)

    def take(self) -> bool:
        now = time.monotonic()
        self.level = min(max(1.0, self.rate), self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            self.refused += 1
            return False
        self.level -= 1
        self.times.append(now)
        return True

    def headers(self, taken: bool) -> str:
        if not self.told:
            return ""
        used = min(self.rpm, max(1, self.rate - self.level))  # of the minute's worth, what has yet to come back
        lines = [
            f"x-ratelimit-limit-requests: {self.rpm:.0f}",
            f"x-ratelimit-remaining-requests: {self.rpm - used:.0f}",
            f"x-ratelimit-reset-requests: {1000 * used / self.rate:.0f}ms",
            *([] if taken else [f"retry-after-ms: {1000 * (1 - self.level) / self.rate:.0f}"]),
        ]
        return "".join(f"{line}\r\n" for line in lines)

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(x[15:]) for x in head.decode().lower().split("\r\n") if x.startswith("content-length:")
                )
                await reader.readexactly(length)
                taken = self.take()
                if taken:
                    await asyncio.sleep(self.chance.lognormvariate(0, SPREAD) * self.median)
                message = {"role": "assistant", "content": "[[A]]"}
                usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": REPLY_TOKENS, "total_tokens": 224}
                reply = {
                    "id": f"chatcmpl-{len(self.times)}",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "fake",
                    "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                    "usage": usage,
                }
                error = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
                body = json.dumps(reply if taken else error).encode()
                fields = f"Content-Type: application/json\r\n{self.headers(taken)}Content-Length: {len(body)}"
                status = "200 OK" if taken else "429 Too Many Requests"
                writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n".encode() + body)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()


async def main() -> None:
    limited = Limited(float(sys.argv[1]), sys.argv[2] == "told", float(sys.argv[3]))
    server = await asyncio.start_server(limited.connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    span = limited.times[-1] - limited.times[0] if limited.times else 0.0
    print(json.dumps({"taken": len(limited.times), "refused": limited.refused, "span": span}), flush=True)


asyncio.run(main())
