"""The Live page in a real browser, over the real app and a real store that another connection writes to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Page, expect

from labeling.records import Annotator, Candidate, Label, Lineage, Message, Prompt, Slate
from labeling.service import create_app
from labeling.store import RunEvent, Store

HOSTILE = "<img src=x onerror=\"document.title='owned'\"> {{7*7}} ${8*8}"
SOON = 30_000  # milliseconds: several refreshes of two seconds, on a busy machine


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    project = tmp_path_factory.mktemp("live") / "project"
    app = create_app(Store(project, create=True))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/live", project
    server.should_exit = True
    thread.join(timeout=30)


def say(store: Store, run: str, iteration: int, kind: str, **data: Any) -> None:
    store.add_event(RunEvent(run, iteration, kind, data))


def answer(store: Store, run: str, key: str, text: str) -> None:
    slate = Slate(Prompt((Message("user", text),)), (Candidate("a"), Candidate("b")), Lineage(run))
    store.add_slates([slate])
    store.add_labels([Label(slate.id, "human:anna", "ranked", key, (1, 2))])


def first_iteration(store: Store, run: str) -> None:
    """A run that has evaluated the untouched model and done one iteration with one human label."""
    sample = {"prompt": f"Is it safe? {HOSTILE}", "response": f"before {HOSTILE}", "gold": 0.1, "proxy": None}
    store.add_annotator(Annotator("human:anna", "human"))
    say(store, run, 0, "run", recipe="grpo", model="tiny", iterations=4, sources=["human"], config={"seed": 7})
    say(store, run, 0, "evaluation", gold=0.211, gold_low=0.2, gold_high=0.222, samples=[sample])
    answer(store, run, f"{run}-first", f"{run}: why is the sea salt?")
    say(store, run, 1, "phase", phase="fit", state="start", done=0, total=2, seconds=0.0, note="")
    store.add_fit(run, 1, [f"{run}-first"])
    labels = {"human": 1, "judge": 30, "oracle": 0}
    say(store, run, 1, "fit", pairs=31, labels_by_kind=labels, new_labels_by_kind=labels, heldout_accuracy=0.617)
    after = {**sample, "response": f"after {HOSTILE}"}
    say(store, run, 1, "evaluation", gold=0.347, gold_low=0.33, gold_high=0.36, kl_per_sequence=1.23, samples=[after])


def test_a_person_sees_the_run_begin_and_the_label_enter_the_next_fit(page: Page, site: tuple[str, Path]) -> None:
    url, project = site
    loop = Store(project)
    page.goto(url)
    expect(page.locator("#run-status")).to_contain_text("prefloop loop RUN.toml")

    first_iteration(loop, "first-run")
    plots, people = page.locator("#run-plots"), page.locator("#run-labels")
    expect(plots).to_contain_text("0.347", timeout=SOON)
    for shown in ("+0.136 since iteration 0", "clearly above the untouched model", "1.23", "62 %"):
        expect(plots).to_contain_text(shown)
    expect(people).to_contain_text("entered fit #1")
    expect(page.locator("#run-sources")).to_contain_text("30 (+30)")
    # What only agents have takes no room; both places are read in one moment, since the page goes on refreshing.
    page.wait_for_function(
        "(([upper, lower]) => lower.top - upper.bottom === 14)"
        "(['status', 'labels'].map((name) => document.getElementById(`run-${name}`).getBoundingClientRect()))"
    )

    answer(loop, "first-run", "second", "Name a bakery by the sea.")
    waiting = people.locator("[data-count=waiting]")
    expect(waiting).to_have_text("1", timeout=SOON)
    mine = people.locator("li", has_text="Name a bakery by the sea.")
    expect(mine).to_contain_text("waits for the next fit")

    say(loop, "first-run", 2, "phase", phase="fit", state="start", done=0, total=2, seconds=0.0, note="")
    loop.add_fit("first-run", 2, ["first-run-first", "second"])
    say(loop, "first-run", 2, "fit", pairs=32, labels_by_kind={"human": 2}, new_labels_by_kind={"human": 1})
    expect(mine).to_contain_text("entered fit #2", timeout=SOON)
    expect(waiting).to_have_text("0")
    expect(people).to_contain_text("entered the reward model by fit #2")
    expect(page.locator("#run-status")).to_contain_text("Fitting the reward model")


def test_text_from_a_model_is_shown_and_never_run(page: Page, site: tuple[str, Path]) -> None:
    url, project = site
    first_iteration(Store(project), "hostile-run")
    page.goto(url)
    samples = page.locator("#run-samples")
    expect(samples).to_contain_text(f"before {HOSTILE}", timeout=SOON)
    expect(samples).to_contain_text(f"after {HOSTILE}")
    assert page.locator("[id^=run-] img").count() == 0
    assert page.title() != "owned"


def test_who_watches_the_newest_run_follows_to_the_next_and_who_chose_an_older_one_stays(
    page: Page, site: tuple[str, Path]
) -> None:
    url, project = site
    loop = Store(project)
    for run in ("older", "newer"):
        first_iteration(loop, run)
    page.goto(url)
    picker = page.locator("#run-picker input")
    expect(picker).to_have_value("newer", timeout=SOON)
    first_iteration(loop, "newest")
    expect(picker).to_have_value("newest", timeout=SOON)

    picker.click()
    page.get_by_role("option", name="older").click()
    people = page.locator("#run-labels")
    expect(people.locator("li", has_text="older: why")).to_contain_text("entered fit #1", timeout=SOON)
    first_iteration(loop, "latest")
    expect(people).to_contain_text("latest: why", timeout=SOON)  # the page has refreshed
    expect(picker).to_have_value("older")


def test_what_did_not_change_is_left_alone(page: Page, site: tuple[str, Path]) -> None:
    url, project = site
    loop = Store(project)
    first_iteration(loop, "calm")
    page.goto(url)
    expect(page.locator("#run-config")).to_contain_text("Config of this run", timeout=SOON)
    page.locator("#run-config summary").click()
    page.evaluate(
        "changes = 0; new MutationObserver(() => changes++).observe("
        "document.querySelector('#run-plots .plots').parentElement, "
        "{subtree: true, childList: true, attributes: true, characterData: true})"
    )
    for done in (1, 3):
        say(loop, "calm", 2, "phase", phase="label", state="progress", done=done, total=5, seconds=1.0, note="")
        expect(page.locator("#run-status")).to_contain_text(f"{done} of 5", timeout=SOON)
    assert page.evaluate("changes") == 0
    expect(page.locator("#run-config pre")).to_be_visible()

    say(loop, "calm", 2, "evaluation", gold=0.456)
    expect(page.locator("#run-plots")).to_contain_text("0.456", timeout=SOON)
    assert page.evaluate("changes") > 0  # so the observer can see
