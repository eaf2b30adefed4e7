"""The loop closes through a browser: what a person prefers, by keyboard, is in the store and in the next fit.

Real processes share only the project's database: the web app, the loop on the tiny model (which waits for the
person, nobody else labels), and Chromium.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from labeling.store import Store

APP = [sys.executable, str(Path(__file__).resolve().parents[2] / "app.py")]
SETTLED = 450  # milliseconds after which the page believes that a key was meant for the slate on the screen
RUN = """
iterations = 1
token_budget = 4096
model = { name = "tiny", adaptation = "full" }
sampling = { prompts = 4, responses = 4, max_new_tokens = 8 }
labels = { slates = 2, candidates = [2, 4], heldout_share = 0.0, wait_for_humans = 2 }
reward_model = { adaptation = "full" }
evaluation = { prompts = 4 }
"""


@pytest.fixture
def project(tmp_path: Path) -> Iterator[tuple[Path, str, subprocess.Popen[bytes]]]:
    """A project whose loop waits for two labels, served."""
    folder, run = tmp_path / "project", tmp_path / "people.toml"
    run.write_text(RUN, encoding="utf-8")
    lines = [f'{{"prompt": "say {w}", "split": "{s}"}}' for w in "abcd" for s in ("train",)]
    lines += [f'{{"prompt": "tell {w}", "split": "heldout"}}' for w in "abcd"]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    subprocess.run([*APP, "import", str(tmp_path / "prompts.jsonl"), "--project", str(folder)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    web = subprocess.Popen([*APP, "serve", "--project", str(folder), "--port", str(port)])
    loop = subprocess.Popen([*APP, "loop", str(run), "--project", str(folder)])
    address = f"http://127.0.0.1:{port}"
    until(lambda: answers(address + "/api/progress"))
    yield folder, address, loop
    for process in (web, loop):
        process.terminate()
        process.wait(20)


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except OSError:
        return False
    return True


def until(true: Callable[[], bool], seconds: float = 90) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, f"it did not happen within {seconds} s"
        time.sleep(0.1)


def card_texts(page: Page) -> list[str]:
    return [card.locator(".text").inner_text() for card in page.locator(".card").all()]


def test_two_labels_by_keyboard_are_the_next_fit(
    project: tuple[Path, str, subprocess.Popen[bytes]], page: Page
) -> None:
    folder, address, loop = project
    store = Store(folder)
    until(lambda: len(store.slates()) == 2)
    by_size = {len(slate.candidates): slate for slate in store.slates()}

    page.goto(address)
    expect(page.locator(".card")).to_have_count(2)
    page.wait_for_timeout(SETTLED)
    page.keyboard.press("2")
    until(lambda: len(store.labels()) == 1)
    page.get_by_role("tab", name="Rankings").click()
    expect(page.locator(".card")).to_have_count(4)
    page.wait_for_timeout(SETTLED)
    for key in "cabd":
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    until(lambda: len(store.labels()) == 2)

    # What was meant, in places of the screen, is what stands, in places of the slate: `order` connects the two.
    pair, ranking = store.labels()
    assert (pair.slate_id, ranking.slate_id) == (by_size[2].id, by_size[4].id)
    assert pair.ranks is not None
    assert ranking.ranks is not None
    assert [pair.ranks[pair.order[place]] for place in (0, 1)] == [2, 1]
    assert [ranking.ranks[ranking.order[place]] for place in (2, 0, 1, 3)] == [1, 2, 3, 4]
    preferences = {len(s.slate.candidates): s.preferences for s in store.labeled_slates()}
    assert [(q.i, q.j, q.p) for q in preferences[2]] == [(0, 1, 1.0 if pair.ranks[0] == 1 else 0.0)]
    assert len(preferences[4]) == 6
    for q in preferences[4]:
        assert q.p == (1.0 if ranking.ranks[q.i] < ranking.ranks[q.j] else 0.0)

    assert loop.wait(120) == 0
    assert set(store.fit_labels("people", 1)) == {pair.client_key, ranking.client_key}
    fit = store.events("people", "fit")[0].data
    assert fit["labels_by_kind"] == {"human": 2, "judge": 0, "oracle": 0}
    assert fit["pairs"] == 1 + 6
    [trust] = fit["trust"]
    assert (trust["annotator"], trust["source"], trust["flip_rate"]) == (pair.annotator, "declared", 0.0)

    page.goto(address + "/live")
    expect(page.get_by_text("entered the reward model").first).to_be_visible()
    expect(page.locator("body")).to_contain_text("fit #1")
