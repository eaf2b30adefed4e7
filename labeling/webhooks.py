"""Webhooks: what happens in a project is told to other programs by HTTP, in order, until they have it.

Each hook has its own place in the sequence of labels and of finished iterations, kept in the store. A message is sent
again until the other side answers with 2xx, so it may arrive twice: its `id` says so. The body is signed with the
secret of the hook (HMAC-SHA256), so that the other side knows who sent it.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import math
import re
import socket
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from labeling.records import UserError
from labeling.store import Store
from labeling.stored_webhooks import Webhook

EventKind = Literal["label", "iteration"]
POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0  # for one message and what is answered to it
LONGEST_WAIT = 3600.0
BATCH = 100  # messages of one hook before the others have their turn


@dataclass(frozen=True)
class Message:
    """What is told: `place` is its number in the sequence of its kind."""

    kind: EventKind
    place: int
    data: dict[str, Any]


def check_hook(url: str, events: tuple[str, ...]) -> None:
    """Raise UserError unless messages of these kinds could be sent to this address."""
    if not _is_address(url):
        need = "give one like https://host/path or http://host:8000/path, without spaces, names or passwords"
        raise UserError(f"{url[:80]!r} is no address for a webhook: {need}")
    unknown = [e for e in events if e not in get_args(EventKind)]
    if unknown or not events:
        raise UserError(
            f"a webhook tells of {' or '.join(get_args(EventKind))}, not of {', '.join(unknown) or 'nothing'}"
        )


def _is_address(url: str) -> bool:
    """Whether a message could be sent there, as far as its letters tell."""
    if len(url) > 2000 or re.search(r"[\s\x00-\x1f\x7f]", url):  # urlsplit would drop some of them silently
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # brackets that do not close, or a port that is none
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0 and "@" not in parts.netloc


def signature(secret: str, body: bytes) -> str:
    """What the header `X-Prefloop-Signature` says: `sha256=` and the HMAC of the body in hex."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def messages(store: Store, events: tuple[str, ...], labels: int, iterations: int) -> Iterator[Message]:
    """What is new for a hook that has been told of everything up to these places."""
    if "label" in events:
        for row in store.labels_after(labels, BATCH):
            yield Message("label", row.pop("seq"), row)
    if "iteration" in events:
        for seq, event in store.iterations_after(iterations, BATCH):
            figures = _finite(event.data)
            yield Message("iteration", seq, {"run": event.run, "iteration": event.iteration, "figures": figures})


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON does not have and other readers refuse."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Sender:
    """Tells every hook of a project what is new, in a thread of its own, until `close`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._wait_until: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="webhooks", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; a message under way may be sent again next time."""
        self._stopped.set()
        self._thread.join(TIMEOUT_SECONDS + 1)

    def _work(self) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self.send_new()
            except UserError:  # a locked or full database: the server's own requests say so
                continue
            except Exception:  # whatever it was, later messages must not be lost to it
                traceback.print_exc()

    def send_new(self) -> None:
        """Send what is new to every hook whose turn it is."""
        for hook in self.store.webhooks():
            if time.monotonic() < self._wait_until.get(hook.id, 0) or self._stopped.is_set():
                continue
            for message in messages(self.store, hook.events, hook.told_labels, hook.told_iterations):
                error = self._send(hook, message)
                if error is None:
                    self._failures.pop(hook.id, None)
                    self.store.told(hook.id, message.kind, message.place)
                else:
                    failures = self._failures[hook.id] = self._failures.get(hook.id, 0) + 1
                    self._wait_until[hook.id] = time.monotonic() + min(2.0**failures, LONGEST_WAIT)
                    self.store.told(hook.id, message.kind, None, error)
                    break

    def _send(self, hook: Webhook, message: Message) -> str | None:
        """POST one message; None when it arrived, else why not."""
        told = {"id": f"{hook.id}-{message.kind}-{message.place}", "event": message.kind, **message.data}
        body = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
        headers = {"content-type": "application/json", "x-prefloop-signature": signature(hook.secret, body)}
        try:
            _post(hook.url, body, headers)
            return None
        except urllib.error.HTTPError as error:
            return f"it answered {error.code}"
        except http.client.HTTPException as error:
            return f"it answered with no HTTP: {error}"[:200]
        except Exception as error:  # whatever one receiver brings about, the others are still told
            return f"{getattr(error, 'reason', error)}"[:200] or type(error).__name__


def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    """Send a message and wait for its 2xx, TIMEOUT_SECONDS in all. Raises what urllib does, and TimeoutError."""
    patience = _Patience()
    opener = urllib.request.build_opener(_NoRedirect, _Patient(patience))
    try:
        with opener.open(urllib.request.Request(url, body, headers, method="POST"), timeout=TIMEOUT_SECONDS):
            pass
    except (OSError, http.client.HTTPException) as error:
        if patience.over:  # what was cut off looks like any other error
            raise TimeoutError(patience.line) from error
        raise
    finally:
        patience.end()
    if patience.over:  # headers that were cut off look like headers that ended
        raise TimeoutError(patience.line)


class _Patience:
    """Hangs up once the time for an exchange is over.

    A socket's own timeout starts again with every byte, so a receiver that drips would hold up all hooks for ever.
    """

    line = f"it did not answer within {TIMEOUT_SECONDS:g} s"

    def __init__(self) -> None:
        self.over = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(TIMEOUT_SECONDS, self._hang_up)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, connected: socket.socket) -> None:
        """End this connection too when the time is over. Raises TimeoutError when it already is."""
        self._sockets.append(connected.dup())  # TLS takes the socket itself away
        if self.over:
            raise TimeoutError(self.line)

    def end(self) -> None:
        """The exchange is done."""
        self._timer.cancel()
        self._timer.join()
        for connected in self._sockets:
            connected.close()

    def _hang_up(self) -> None:
        self.over = True
        for connected in self._sockets:
            with suppress(OSError):  # the other side was quicker
                connected.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """A connection that is watched from its first byte."""

    patience: _Patience

    def connect(self) -> None:
        """Connect, and be watched."""
        super().connect()
        self.patience.watch(self.sock)


class _SecureConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS, whose handshake is watched too: `connect` of HTTPSConnection begins with the other's."""


class _Patient(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http:// and https:// so that they are watched."""

    def __init__(self, patience: _Patience) -> None:
        super().__init__()
        self._patience = patience

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send the request."""
        return self.do_open(partial(self._watched, _Connection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Send the request."""
        return self.do_open(partial(self._watched, _SecureConnection), req)

    def _watched(self, kind: type[_Connection], host: str, /, **how: Any) -> _Connection:
        connection = kind(host, **how)
        connection.patience = self._patience
        return connection


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed message goes where the owner said, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """No."""
        return None
