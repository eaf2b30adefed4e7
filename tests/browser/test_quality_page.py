"""The Quality page in a real browser: figures follow the labels, an annotator is revoked and restored by click."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Dialog, Page, expect

from labeling.records import Annotator, Candidate, HumanRequest, Label, Message, Prompt, Slate
from labeling.service import create_app
from labeling.store import Store
from labeling.stored_requests import REASONS

SOON = 30_000  # milliseconds: several refreshes of four seconds, on a busy machine
HOSTILE = "judge:<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Store]]:
    store = Store(tmp_path / "project", create=True)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(store), log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", Store(store.project)
    server.should_exit = True
    thread.join(timeout=30)


def compare(store: Store, name: str, *said: tuple[str, tuple[int, int]]) -> None:
    slate = Slate(Prompt((Message("user", name),)), (Candidate("a", "old policy"), Candidate("b", "new policy")))
    store.add_slates([slate])
    for n, (who, ranks) in enumerate(said):
        store.add_annotator(Annotator(who, "judge" if who.startswith("judge") else "human"))
        store.add_labels([Label(slate.id, who, "ranked", f"{name}-{n}", ranks)])


def test_figures_follow_and_an_annotator_is_revoked_and_restored(page: Page, site: tuple[str, Store]) -> None:
    url, store = site
    page.goto(f"{url}/quality")
    expect(page.locator("#quality-figures")).to_contain_text("No label yet")
    for n in range(4):
        compare(store, f"same {n}", ("human:ann", (2, 1)), ("human:bob", (2, 1)))
    compare(store, "other", ("human:ann", (2, 1)), ("human:bob", (1, 2)), (HOSTILE, (2, 1)))

    summary, figures, people = (page.locator(f"#quality-{name}") for name in ("summary", "figures", "annotators"))
    expect(summary.locator("[data-count=labels]")).to_have_text("11", timeout=SOON)
    expect(summary.locator("[data-count=disputed]")).to_have_text("1")
    expect(summary).to_contain_text("80 % the same, on 5 pairs")
    expect(figures.locator("svg[aria-label='Leaderboard of policies']")).to_contain_text("new policy")
    expect(people).to_contain_text(HOSTILE)
    assert page.title() != "owned"

    questions: list[str] = []

    def reply(dialog: Dialog) -> None:
        questions.append(dialog.message)
        dialog.accept("contradicts everybody")

    page.on("dialog", reply)
    people.locator("button[data-annotator='human:bob']").click()
    expect(people).to_contain_text("human:bob revoked: contradicts everybody", timeout=SOON)
    assert questions == ["Why shall the labels of human:bob count for nothing?"]
    expect(summary.locator("[data-count=labels]")).to_have_text("6")
    expect(summary).to_contain_text("no pair was answered by two people")
    people.locator("button[data-annotator='human:bob']").click()
    expect(summary.locator("[data-count=labels]")).to_have_text("11", timeout=SOON)
    with page.expect_download() as download:
        people.get_by_role("link", name="CSV").click()
    assert download.value.suggested_filename == "annotators.csv"


def test_judges_are_shown_beside_people_with_what_people_are_to_answer(page: Page, site: tuple[str, Store]) -> None:
    url, store = site
    for n in range(25):
        compare(store, f"{n}", ("human:ann", (2, 1)), (HOSTILE, (2, 1) if n % 5 else (1, 2)))
    page.goto(f"{url}/quality")
    judges = page.locator("#quality-judges")
    expect(judges).to_contain_text("25 slates that people happened to label", timeout=SOON)
    expect(judges).to_contain_text("20 · 0 · 5")
    [audit, *doubtful] = [HumanRequest(s.id, HOSTILE, "audit", 0.1, 0.5) for s in store.slates()]
    store.request_people([audit, *doubtful, HumanRequest(audit.slate_id, HOSTILE, "orders", 1.5)])
    expect(judges).to_contain_text("25 slates, drawn at random", timeout=SOON)
    expect(judges).to_contain_text(REASONS["orders"])
    expect(judges.get_by_role("img", name="Reliability of judge:")).to_be_visible()
    assert page.title() != "owned"
    with page.expect_download() as download:
        judges.get_by_role("link", name="judges.csv").click()
    assert download.value.suggested_filename == "judges.csv"
