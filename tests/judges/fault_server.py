"""A chat-completions endpoint on loopback that fails in every way, bills what it answers, and honours idempotency keys.

It runs in a thread of its own. It prefers the answer that holds GOOD, and says so under the letter that it has.
"""

import asyncio
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

GOOD = "splendid"
FAULTS = ("none", "429", "429-after", "500", "hang", "half-json", "dropped", "dropped-late", "wrong-ids", "slow")


@dataclass
class FaultServer:
    """faulty: the share of requests that something befalls. bills: what was billed, by idempotency key."""

    seed: int
    faulty: float
    chance: random.Random = field(init=False)
    bills: dict[str, tuple[str, int, int]] = field(default_factory=dict)  # question, prompt and completion tokens
    halves: Counter[str] = field(default_factory=Counter)  # questions whose billed reply was useless
    bodies: dict[str, bytes] = field(default_factory=dict)
    befallen: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    heard: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def start(self) -> None:
        ready = threading.Event()

        async def main() -> None:
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await self._end.wait()
            server.close()

        self._thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and await self._request(head.decode(), reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client was killed, or has had enough
        finally:
            writer.close()

    async def _request(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; false when the connection ends with it."""
        fields = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n"))}
        request = json.loads(await reader.readexactly(int(fields["content-length"])))
        fault = self.chance.choice(FAULTS[1:]) if self.chance.random() < self.faulty else "none"
        with self.heard:
            self.requests += 1
            self.befallen[fault] += 1
            self.heard.notify_all()
        await asyncio.sleep(self.chance.uniform(0.001, 0.01))
        if fault in ("429", "429-after", "500"):
            more = "retry-after-ms: 30\r\n" if fault == "429-after" else ""
            self._send(writer, int(fault[:3]), b'{"error": {"message": "not now"}}', more)
            return True
        if fault == "dropped":
            return False
        body = self._billed(fields["idempotency-key"], request, fault)
        if fault == "hang":
            await asyncio.sleep(1)
        if fault == "dropped-late":
            return False
        if fault == "slow":
            self._send(writer, 200, body[:40], length=len(body))
            await asyncio.sleep(0.05)
            writer.write(body[40:])
        else:
            self._send(writer, 200, body)
        await writer.drain()
        return True

    def _send(self, writer: asyncio.StreamWriter, status: int, body: bytes, more: str = "", length: int = 0) -> None:
        fields = f"Content-Type: application/json\r\n{more}Content-Length: {length or len(body)}"
        writer.write(f"HTTP/1.1 {status} X\r\n{fields}\r\n\r\n".encode() + body)

    def _billed(self, key: str, request: dict[str, Any], fault: str) -> bytes:
        """The reply to a request, worked out and billed once for each idempotency key."""
        if key not in self.bodies:
            question = request["messages"][-1]["content"]
            tokens = len(question) // 4, 3
            self.bills[key] = (question, *tokens)
            letter = "B" if GOOD in question.partition("<answer_B>")[2] else "A"
            choice = {"index": 0, "message": {"content": f"[[{letter}]]"}, "finish_reason": "stop"}
            reply = {"id": f"chatcmpl-{len(self.bills)}", "model": request["model"], "choices": [choice]}
            if fault == "wrong-ids":
                reply |= {"id": "chatcmpl-1", "model": "another", "object": 7}
                choice["index"] = 3
            usage = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
            body = json.dumps({**reply, "usage": usage}).encode()
            if fault == "half-json":
                body = body[: len(body) // 2]
                self.halves[question] += 1
            self.bodies[key] = body
        return self.bodies[key]
