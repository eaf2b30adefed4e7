"""Webhooks: what happens in a project is told to other programs by HTTP, in order, until they have it.

Each hook has its own place in the sequence of labels and of finished iterations, kept in the store. A message is sent
again until the other side answers with 2xx, so it may arrive twice: its `id` says so. The body is signed with the
secret of the hook (HMAC-SHA256), so that the other side knows who sent it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from labeling.records import UserError
from labeling.store import Store

EventKind = Literal["label", "iteration"]
POLL_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0
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
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > 2000:
        raise UserError(f"{url[:80]!r} is no address for a webhook: give one that begins with http:// or https://")
    unknown = [e for e in events if e not in get_args(EventKind)]
    if unknown or not events:
        raise UserError(
            f"a webhook tells of {' or '.join(get_args(EventKind))}, not of {', '.join(unknown) or 'nothing'}"
        )


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
            yield Message(
                "iteration", seq, {"run": event.run, "iteration": event.iteration, "figures": dict(event.data)}
            )


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

    def send_new(self) -> None:
        """Send what is new to every hook whose turn it is."""
        for hook in self.store.webhooks():
            if time.monotonic() < self._wait_until.get(hook.id, 0) or self._stopped.is_set():
                continue
            for message in messages(self.store, hook.events, hook.told_labels, hook.told_iterations):
                error = self._send(hook.url, hook.secret, hook.id, message)
                if error is None:
                    self._failures.pop(hook.id, None)
                    self.store.told(hook.id, message.kind, message.place)
                else:
                    failures = self._failures[hook.id] = self._failures.get(hook.id, 0) + 1
                    self._wait_until[hook.id] = time.monotonic() + min(2.0**failures, LONGEST_WAIT)
                    self.store.told(hook.id, message.kind, None, error)
                    break

    def _send(self, url: str, secret: str, hook_id: int, message: Message) -> str | None:
        """POST one message; None when it arrived, else why not."""
        told = {"id": f"{hook_id}-{message.kind}-{message.place}", "event": message.kind, **message.data}
        body = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
        headers = {"content-type": "application/json", "x-prefloop-signature": signature(secret, body)}
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            with _OPENER.open(request, timeout=TIMEOUT_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            return f"it answered {error.code}"
        except (OSError, ValueError) as error:
            return f"{getattr(error, 'reason', error)}"[:200]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A signed message goes where the owner said, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """No."""
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)
