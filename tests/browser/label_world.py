"""A served project of texts to compare, and what a person sees and does on the labeling page."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from playwright.sync_api import Locator, Page, expect

from labeling.records import Candidate, Message, Prompt, Slate
from labeling.service import create_app
from labeling.store import Store

SETTLED = 450  # milliseconds after which the page believes that a key was meant for the slate on the screen


@dataclass
class Site:
    """The app of one project, really served."""

    address: str
    store: Store


@contextmanager
def serving_texts(project: Path) -> Iterator[Site]:
    """Serve a new project."""
    store = Store(project, create=True)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `serve` does
    server = uvicorn.Server(uvicorn.Config(create_app(store), log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", store)
    server.should_exit = True
    thread.join(timeout=30)


def ask(store: Store, question: str, *texts: str, finished: bool = True) -> Slate:
    candidates = tuple(Candidate(text, "policy", finished) for text in texts)
    slate = Slate(Prompt((Message("user", question),)), candidates)
    store.add_slates([slate])
    return slate


def shown(page: Page, question: str) -> None:
    """Wait until this question is on the screen and its keys count."""
    expect(page.locator(".prompt")).to_contain_text(question)
    page.wait_for_timeout(SETTLED)


def note(page: Page) -> Locator:
    return page.locator(".prefloop .status")


def key_of(page: Page, text: str) -> str:
    """The key on the card that shows this text."""
    return page.locator(".card", has_text=text).locator("kbd").inner_text()


def preferred(store: Store) -> list[set[tuple[str, str, str]]]:
    """What stands in the store, slate by slate, by text."""
    return [
        {in_words(p.p, *(labeled.slate.candidates[n].text for n in (p.i, p.j))) for p in labeled.preferences}
        for labeled in store.labeled_slates()
    ]


def in_words(p: float, a: str, b: str) -> tuple[str, str, str]:
    if p == 0.5:
        return (min(a, b), "ties with", max(a, b))
    return (a, "better than", b) if p > 0.5 else (b, "better than", a)


def until(true: Callable[[], bool]) -> None:
    """Wait until the store shows it."""
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit, "it did not happen within 30 s"
        time.sleep(0.05)
