"""The Batch API as OpenAI documents it, on loopback: files, batches, their list, cancelled and expired ones.

It checks what it is sent as the real one does (purpose, one JSON object a line, unique custom_ids, the url of the
batch), writes results in an order of its own, and keeps failed requests in a file apart. Chat completions are answered
too.
"""

import json
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

STEPS = ("validating", "in_progress", "finalizing", "completed")


@dataclass
class BatchServer:
    """verdict: what it replies to a request's body. polls: how often a batch is asked for before its next status."""

    verdict: Callable[[dict[str, Any]], str]
    polls: int = 1
    broken: float = 0.0  # share of the requests that fail
    lost: float = 0.0  # share of the requests that expire
    garble: bool = False  # results hold lines that are none of anybody's
    refuse_batches: bool = False
    creations_lost: int = 0  # batches yet to be made whose maker hears only of an error
    creations_failed: int = 0  # batches yet to be asked for of which none is made
    creations: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked_for: dict[str, int] = field(default_factory=dict)
    billed: list[str] = field(default_factory=list)
    chats: int = 0
    created: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def start(self) -> None:
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    self.reply(*outer.post(self.path, self.headers["Content-Type"], body))

            def do_GET(self) -> None:
                with lock:
                    self.reply(*outer.get(self.path))

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, path: str, kind: str, body: bytes) -> tuple[int, bytes]:
        match path:
            case "/v1/files":
                parts = body.split(b"--" + kind.partition("boundary=")[2].encode())
                fields = {re.search(rb'name="([^"]+)"', p)[1]: p.partition(b"\r\n\r\n")[2][:-2] for p in parts[1:-1]}  # type: ignore[index]
                if fields[b"purpose"] != b"batch":
                    return error(400, "invalid purpose")
                id = self.keep(fields[b"file"])
                head = {
                    "id": id,
                    "object": "file",
                    "bytes": len(fields[b"file"]),
                    "created_at": 1,
                    "status": "processed",
                }
                return 200, json.dumps(head | {"filename": "x.jsonl", "purpose": "batch"}).encode()
            case "/v1/batches":
                return self.create(json.loads(body))
            case "/v1/chat/completions":
                self.chats += 1
                return 200, json.dumps(self.completion(json.loads(body))).encode()
        return error(404, "no such path")

    def get(self, path: str) -> tuple[int, bytes]:
        url = urlsplit(path)
        if found := re.fullmatch(r"/v1/files/([\w-]+)/content", url.path):
            return 200, self.files[found[1]]
        if found := re.fullmatch(r"/v1/batches/([\w-]+)", url.path):
            self.advance(found[1])
            return 200, json.dumps(self.batches[found[1]]).encode()
        if url.path == "/v1/batches":
            ids, query = list(reversed(self.batches)), parse_qs(url.query)
            after = query.get("after", [""])[0]
            start = ids.index(after) + 1 if after else 0
            page = ids[start : start + 2]  # small pages, so that they are turned
            data = [self.batches[id] for id in page]
            ends = {"first_id": page[0] if page else None, "last_id": page[-1] if page else None}
            return 200, json.dumps({"object": "list", "data": data, "has_more": start + 2 < len(ids), **ends}).encode()
        return error(404, "no such path")

    def keep(self, content: bytes) -> str:
        id = f"file-{len(self.files)}"
        self.files[id] = content
        return id

    def create(self, asked: dict[str, Any]) -> tuple[int, bytes]:
        self.creations += 1
        if self.refuse_batches:
            return error(404, "batches are not offered here")
        if self.creations_failed:
            self.creations_failed -= 1
            return error(500, "not now")
        if asked["completion_window"] != "24h" or asked["input_file_id"] not in self.files:
            return error(400, "invalid batch")
        id = f"batch_{len(self.batches)}"
        counts = {"total": 0, "completed": 0, "failed": 0}
        self.batches[id] = {"id": id, "object": "batch", "created_at": 1, "status": STEPS[0], "request_counts": counts}
        self.batches[id] |= asked
        self.asked_for[id] = 0
        self.created.set()
        if self.creations_lost:
            self.creations_lost -= 1
            return error(500, "the gateway lost the reply")
        return 200, json.dumps(self.batches[id]).encode()

    def advance(self, id: str) -> None:
        self.asked_for[id] += 1
        batch = self.batches[id]
        if batch["status"] not in STEPS[:-1] or self.asked_for[id] % self.polls:
            return
        batch["status"] = STEPS[STEPS.index(batch["status"]) + 1]
        if batch["status"] == "in_progress":
            lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
            names = [line["custom_id"] for line in lines]
            if len(set(names)) < len(names) or any(line["url"] != batch["endpoint"] for line in lines):
                wrong = {"code": "duplicate_custom_id", "message": "the custom_id is taken", "line": 2}
                batch |= {"status": "failed", "errors": {"object": "list", "data": [wrong]}}
            batch["request_counts"]["total"] = len(lines)
        if batch["status"] == "completed":
            self.finish(batch)

    def finish(self, batch: dict[str, Any]) -> None:
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        chance = random.Random(batch["id"])
        chance.shuffle(lines)
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for n, line in enumerate(lines):
            head = {"id": f"batch_req_{n}", "custom_id": line["custom_id"]}
            draw = chance.random()
            if draw < self.lost:
                expired = {"code": "batch_expired", "message": "could not be executed before the window closed"}
                bad.append({**head, "response": None, "error": expired})
            elif draw < self.lost + self.broken:
                said = {"error": {"message": "the model is overloaded"}}
                bad.append({**head, "response": {"status_code": 500, "request_id": "r", "body": said}, "error": None})
            else:
                self.billed.append(json.dumps(line["body"]["messages"]))
                body = self.completion(line["body"])
                good.append({**head, "response": {"status_code": 200, "request_id": "r", "body": body}, "error": None})
        if self.garble:
            good += [{**good[0], "custom_id": "nobody's"}, good[0], {"no": "line"}]
        if self.lost:
            batch["status"] = "expired"
        for name, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                batch[name] = self.keep("".join(json.dumps(line) + "\n" for line in found).encode())
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": self.verdict(body)}
        usage = {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 104}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return {**head, "choices": [choice], "usage": usage}


def error(status: int, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
