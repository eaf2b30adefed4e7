"""The Live page of a run of an agent in a real browser: real videos, which no refresh starts again."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Page, expect

from labeling.clips import UnknownClip
from labeling.service import create_app
from labeling.store import RunEvent, Store

SOON = 30_000  # milliseconds: several refreshes of two seconds, on a busy machine
HOSTILE = "<img src=x onerror=\"document.title='owned'\"> </p><script>document.title='owned'</script>"
LOST = "clip_ffffffffffffffff"
NEWEST, STRIP = "#run-clips .newest video", "#run-clips .strip video"


def clip(i: int) -> str:
    return f"clip_{i:016x}"


def write_mp4(path: Path) -> Path:
    """Two seconds of a square that crosses a grey ground, in H.264."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for n in range(50):
            frame = np.full((96, 96, 3), 90, np.uint8)
            frame[40:60, n : n + 20] = (230, 120, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return path


class Shelf:
    """One video under every name but one, and how often each was asked for."""

    def __init__(self, file: Path) -> None:
        self.file, self.asked = file, Counter[str]()

    def video(self, clip_id: str) -> Path:
        self.asked[clip_id] += 1
        if clip_id == LOST:
            raise UnknownClip(clip_id)
        return self.file

    def prepare(self, clip_ids: Sequence[str]) -> None:
        raise AssertionError("watching prepares nothing")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Shelf]]:
    folder = tmp_path_factory.mktemp("agent")
    shelf = Shelf(write_mp4(folder / "clip.mp4"))
    app = create_app(Store(folder / "project", create=True), shelf)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/live", folder / "project", shelf
    server.should_exit = True
    thread.join(timeout=30)


def say(store: Store, run: str, iteration: int, kind: str, **data: Any) -> None:
    store.add_event(RunEvent(run, iteration, kind, data))


def evaluated(store: Store, run: str, i: int, name: str) -> None:
    gold = {"gold": 40.0 * i, "gold_low": 40.0 * i - 9, "gold_high": 40.0 * i + 9}
    say(
        store,
        run,
        i,
        "evaluation",
        **gold,
        proxy=2.5 * i,
        length=200.0,
        clip=name,
        samples=[],
        environment_steps=4096 * i,
    )


def begin(store: Store, run: str, iterations: int = 3, first: int = 0, newest: str = "", text: str = "") -> None:
    """An agent that was evaluated after each of some iterations. Clips are named from `first` on."""
    question, guide = f"Which one flips better? {text}", f"It turns over backward once and lands on its foot. {text}"
    about = {"environment": "Hopper-v5", "model": "Hopper-v5", "recipe": "ppo", "sources": ["human", "clip-vision"]}
    say(store, run, 0, "run", **about, question=question, guide=guide, iterations=6, config={"seed": 7})
    for i in range(iterations + 1):
        if i:
            kinds = {"human": 12 * i, "judge": 30 * i}
            accuracy = {"heldout_accuracy": 0.5 + 0.1 * i, "heldout_accuracy_low": 0.4, "heldout_accuracy_high": 0.95}
            say(store, run, i, "fit", **accuracy, heldout_pairs=40, labels_by_kind=kinds, slates=42 * i, pairs=42 * i)
            say(store, run, i, "update", environment_steps=4096 * i, steps_per_second=912.0, episodes=20)
        evaluated(store, run, i, newest if newest and i == iterations else clip(first + i))
        if i:
            say(store, run, i, "iteration", labels=42 * i, seconds=60.0, verdict="not clear yet", proxy_heldout=2.5 * i)


def is_playing(page: Page, video: str) -> bool:
    first = page.eval_on_selector(video, "v => v.currentTime")
    page.wait_for_timeout(400)
    return bool(page.eval_on_selector(video, "v => v.currentTime") != first)


def test_the_newest_clip_plays_on_while_the_page_refreshes(page: Page, site: tuple[str, Path, Shelf]) -> None:
    url, project, _ = site
    loop = Store(project)
    begin(loop, "flip")
    page.goto(url)
    goal = page.locator("#run-goal")
    for shown in ("What to look for", "Which one flips better?", "lands on its foot", "126", "80 %"):
        expect(goal).to_contain_text(shown, timeout=SOON)
    expect(page.locator("#run-plots")).to_contain_text("True return (never seen by the agent)")
    page.wait_for_function(f"document.querySelector('{NEWEST}').currentTime > 0.2")
    assert page.eval_on_selector(NEWEST, "v => v.muted && v.loop && !v.paused")

    page.evaluate("loads = 0; document.addEventListener('loadstart', () => loads++, true)")
    for done in (1, 3):
        say(loop, "flip", 4, "phase", phase="update", state="progress", done=done, total=5, seconds=1.0, note="")
        expect(page.locator("#run-status")).to_contain_text(f"{done} of 5", timeout=SOON)
    expect(page.locator("#run-status")).to_contain_text("Training the agent")
    say(loop, "flip", 4, "fit", heldout_accuracy=0.91)
    expect(goal).to_contain_text("91 %", timeout=SOON)
    assert page.evaluate("loads") == 0
    assert is_playing(page, NEWEST)

    evaluated(loop, "flip", 4, clip(4))
    expect(page.locator(NEWEST)).to_have_attribute("src", f"/clips/{clip(4)}.mp4", timeout=SOON)
    page.wait_for_function("loads > 0")  # so a new start can be seen
    page.wait_for_function(f"!document.querySelector('{NEWEST}').paused")


def test_a_clip_of_the_strip_is_fetched_when_it_is_pointed_at_or_has_the_focus(
    page: Page, site: tuple[str, Path, Shelf]
) -> None:
    url, project, shelf = site
    begin(Store(project), "strip", first=100)
    page.goto(url)
    expect(page.locator("#run-clips")).to_contain_text("Untrained", timeout=SOON)
    page.wait_for_function(f"document.querySelector('{NEWEST}').currentTime > 0.2")
    assert shelf.asked[clip(103)] > 0
    assert shelf.asked[clip(100)] == shelf.asked[clip(101)] == 0

    first, second = (f"{STRIP}[src='/clips/{clip(i)}.mp4']" for i in (100, 101))
    page.hover(first)
    page.wait_for_function("v => document.querySelector(v).currentTime > 0.2", arg=first)
    page.mouse.move(2, 2)
    assert not is_playing(page, first)
    page.focus(second)
    page.wait_for_function("v => document.querySelector(v).currentTime > 0.2", arg=second)
    assert shelf.asked[clip(102)] == 0


def test_a_lost_clip_says_so_and_hostile_text_is_text(page: Page, site: tuple[str, Path, Shelf]) -> None:
    url, project, _ = site
    begin(Store(project), "lost", first=200, newest=LOST, text=HOSTILE)
    page.goto(url)
    expect(page.locator("#run-goal")).to_contain_text(HOSTILE, timeout=SOON)
    expect(page.locator("#run-clips .newest figure")).to_have_class("missing", timeout=SOON)
    evaluated(Store(project), "lost", 4, clip(204))
    page.wait_for_function(f"document.querySelector('{NEWEST}').currentTime > 0.2")
    expect(page.locator("#run-clips .newest figure")).not_to_have_class("missing")
    assert page.locator("[id^=run-] img, [id^=run-] script").count() == 0
    assert page.title() != "owned"
