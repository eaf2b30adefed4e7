"""Webhooks against a real receiver: in order, signed, again until it is there, and from the moment they were added."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from labeling import webhooks
from labeling.records import Annotator, Candidate, Label, Message, Prompt, Slate, UserError
from labeling.store import RunEvent, Store
from labeling.webhooks import Sender, check_hook


class Receiver(ThreadingHTTPServer):
    """Keeps what it is told; `refusals` is how many requests it answers with 500 first."""

    def __init__(self) -> None:
        self.told: list[tuple[dict[str, Any], bytes, str]] = []
        self.refusals = 0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server: Any = self.server
        body = self.rfile.read(int(self.headers["content-length"]))
        if server.refusals:
            server.refusals -= 1
            self.send_response(500)
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("location", server.url)
        else:
            server.told.append((json.loads(body), body, self.headers["x-prefloop-signature"]))
            self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 3600.0)  # the tests say when
    store = Store(tmp_path, create=True)
    store.add_annotator(Annotator("human:ann", "human"))
    store.add_slates(Slate(Prompt((Message("user", f"q{n}"),)), (Candidate("a"), Candidate("b"))) for n in range(4))
    return store


def label(store: Store, n: int) -> None:
    slate = store.slates()[n]
    store.add_labels([Label(slate.id, "human:ann", "ranked", f"key-{n}", (1, 2), reason="‮ =1+1")])


def test_a_hook_is_told_in_order_with_a_signature(store: Store, receiver: Receiver) -> None:
    label(store, 0)  # before the hook: not told
    store.add_webhook(receiver.url, "s3cret", ("label", "iteration"))
    sender = Sender(store)
    label(store, 1)
    store.add_event(RunEvent("demo", 3, "fit", {}))
    store.add_event(RunEvent("demo", 3, "iteration", {"gold_heldout": 0.5, "kl": nan, "of": {"a": [inf]}}))
    label(store, 2)
    sender.send_new()
    sender.send_new()
    sender.close()
    assert [(m["event"], m.get("client_key"), m.get("iteration")) for m, _, _ in receiver.told] == [
        ("label", "key-1", None),
        ("label", "key-2", None),
        ("iteration", None, 3),
    ]
    told, body, signed = receiver.told[0]
    assert signed == "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    assert (told["ranks"], told["annotator"], told["reason"]) == ([1, 2], "human:ann", "‮ =1+1")
    assert receiver.told[2][0]["figures"] == {"gold_heldout": 0.5, "kl": None, "of": {"a": [None]}}


def test_what_does_not_arrive_is_sent_again_and_nothing_overtakes_it(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "LONGEST_WAIT", 0.0)
    store.add_webhook(receiver.url, "s", ("label",))
    sender = Sender(store)
    receiver.refusals = 2
    label(store, 0)
    label(store, 1)
    sender.send_new()
    assert store.webhooks()[0].last_error == "it answered 500"
    sender.send_new()
    sender.send_new()
    sender.close()
    assert [m["client_key"] for m, _, _ in receiver.told] == ["key-0", "key-1"]
    assert store.webhooks()[0].last_error == ""


def test_after_a_restart_it_goes_on_where_it_was(store: Store, receiver: Receiver) -> None:
    store.add_webhook(receiver.url, "s", ("label",))
    for n in range(3):
        label(store, n)
        sender = Sender(Store(store.project))
        sender.send_new()
        sender.close()
    assert [m["client_key"] for m, _, _ in receiver.told] == ["key-0", "key-1", "key-2"]


def test_a_redirect_is_no_arrival_and_a_dead_address_harms_no_other(store: Store, receiver: Receiver) -> None:
    store.add_webhook(receiver.url.replace("/hook", "/moved"), "s", ("label",))
    store.add_webhook("http://127.0.0.1:9/", "s", ("label",))
    store.add_webhook(receiver.url, "s", ("label",))
    sender = Sender(store)
    label(store, 0)
    sender.send_new()
    sender.close()
    assert len(receiver.told) == 1
    assert [bool(hook.last_error) for hook in store.webhooks()] == [True, True, False]
    assert store.remove_webhook(1)
    assert not store.remove_webhook(1)


@pytest.fixture
def odd_receiver() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Listens, and lets the given function do as it likes with the first connection; returns the port."""
    listeners: list[socket.socket] = []

    def listen(answer: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield listen
    for listener in listeners:
        listener.close()


def drip(beginning: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(beginning)
        for _ in range(200):  # until the other side hangs up
            time.sleep(0.05)
            try:
                connection.sendall(b"x")
            except OSError:
                return

    return answer


def no_http(connection: socket.socket) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    while connection.recv(65536):  # to hang up on what was not read would be a reset
        pass


def test_whoever_answers_with_no_http_harms_no_other(
    store: Store, receiver: Receiver, odd_receiver: Callable[..., int]
) -> None:
    for url in (f"http://127.0.0.1:{odd_receiver(no_http)}/", "http://a b/", "http://127.0.0.1:abc/", "x"):
        store.add_webhook(url, "s", ("label",))
    store.add_webhook(receiver.url, "s", ("label",))
    sender = Sender(store)
    label(store, 0)
    sender.send_new()
    sender.close()
    assert len(receiver.told) == 1
    errors = [hook.last_error for hook in store.webhooks()]
    assert errors[0].startswith("it answered with no HTTP: SSH-2.0-OpenSSH")
    assert [bool(error) for error in errors] == [True] * 4 + [False]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\nx: "])
def test_whoever_drips_is_hung_up_on(
    store: Store,
    receiver: Receiver,
    odd_receiver: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    beginning: bytes,
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 0.5)  # longer than from byte to byte
    record = b"\x16\x03\x03\x40\x00"  # so much of a handshake is to come
    port = odd_receiver(drip(record if scheme == "https" else beginning))
    store.add_webhook(f"{scheme}://127.0.0.1:{port}/", "s", ("label",))
    store.add_webhook(receiver.url, "s", ("label",))
    sender = Sender(store)
    label(store, 0)
    began = time.monotonic()
    sender.send_new()
    assert time.monotonic() - began < 4
    sender.close()
    assert len(receiver.told) == 1
    assert "did not answer within" in store.webhooks()[0].last_error


def test_the_thread_outlives_what_nobody_foresaw(
    store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 0.01)
    store.add_webhook("http://127.0.0.1:9/", "s", ("label",))
    store.add_webhook(receiver.url, "s", ("label",))
    label(store, 0)
    post, found = webhooks._post, store.webhooks
    failures = iter([RuntimeError("of the store")])

    def unforeseen(url: str, *given: Any) -> None:
        if url != receiver.url:
            raise RuntimeError("of one hook")
        post(url, *given)

    def hooks() -> Any:
        for error in failures:
            raise error
        return found()

    monkeypatch.setattr(webhooks, "_post", unforeseen)
    monkeypatch.setattr(store, "webhooks", hooks)
    sender = Sender(store)
    until = time.monotonic() + 10
    while not receiver.told and time.monotonic() < until:
        time.sleep(0.01)
    sender.close()
    assert len(receiver.told) == 1
    assert store.webhooks()[0].last_error == "of one hook"
    assert "of the store" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        *("", "file:///etc/passwd", "ftp://x/", "http://", "javascript:alert(1)", "http://" + "x" * 2000),
        *("http://a b/", "http://a/b c", " http://a/", "http://a/\n", "http://a\t/", "http://a/\x7f", "http://[x"),
        *("http://a:abc/", "http://a:70000/", "http://a:0/", "http://a:-1/", "http://name:word@a/"),
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="no address for a webhook"):
        check_hook(url, ("label",))


@pytest.mark.parametrize("events", [(), ("labels",)])
def test_what_is_no_event_is_refused(events: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="a webhook tells of label or iteration"):
        check_hook("http://127.0.0.1/", events)
