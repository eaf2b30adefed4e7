"""A served project whose clips are real H.264 files, and what a browser shows of them.

Frame n of every clip is drawn so that n can be read back from the picture: its grey is 40 + 4 n.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from playwright.sync_api import Page, expect

from labeling.records import Candidate, Message, Prompt, Slate, UserError
from labeling.service import create_app
from labeling.store import Store

FPS, FRAMES, SHORT = 25, 50, 30  # 2 s, and 1.2 s for the clips that end early
FRAME = 1 / FPS
SETTLED = 450  # milliseconds after which the page believes that a key was meant for the slate on the screen


def encode(path: Path, frames: int, number: int) -> Path:
    """A clip of `frames` grey pictures that grow brighter; a white bar as wide as `number` tells which clip it is."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as file:
        stream = file.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 240, 240, "yuv420p"
        for n in range(frames):
            picture = np.full((240, 240, 3), 40 + 4 * n, np.uint8)
            picture[200:220, 10 : 30 + 20 * number] = 255
            picture[100:130, 4 * n : 4 * n + 30] = (99, 102, 241)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        file.mux(stream.encode(None))
    return path


@dataclass
class Shelf:
    """The clip of number n is the movie n % 100; what `fails` names cannot be made until it is taken out."""

    movies: Sequence[Path]
    fails: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    slow: int = 10**16  # clips from this number on take until `free` is set
    free: threading.Event = field(default_factory=threading.Event)

    def video(self, clip_id: str) -> Path:
        self.asked.append(clip_id)
        if int(clip_id.removeprefix("clip_")) >= self.slow:
            self.free.wait(30)
        if clip_id in self.fails:
            raise UserError(f"{clip_id} was not made: the process that draws clips crashed (signal 11)")
        return self.movies[int(clip_id.removeprefix("clip_")) % 100]

    def prepare(self, clip_ids: Sequence[str]) -> None:
        pass


def clip(n: int) -> str:
    return f"clip_{n:016d}"


@dataclass
class Site:
    """The app of one project, really served."""

    address: str
    store: Store
    shelf: Shelf

    def ask(self, question: str, *numbers: int) -> Slate:
        """Have these clips compared; ids are told apart by their hundreds, which do not change the movie."""
        candidates = tuple(Candidate(f"what clip {n} shows", "policy", clip=clip(n)) for n in numbers)
        messages = (Message("system", "technical words"), Message("user", question))
        slate = Slate(Prompt(messages), candidates)
        self.store.add_slates([slate])
        return slate


@contextmanager
def serving(project: Path, movies: Sequence[Path]) -> Iterator[Site]:
    """Serve a new project whose clips are these movies."""
    store, shelf = Store(project, create=True), Shelf(movies)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `serve` does
    config = uvicorn.Config(create_app(store, shelf), log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}", store, shelf)
    server.should_exit = True
    thread.join(timeout=30)


# What the browser shows

READ = """() => [...document.querySelectorAll('.card video')].map((video) => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 240, height: 240 });
    const context = canvas.getContext('2d', { willReadFrequently: true });
    context.drawImage(video, 0, 0, 240, 240);
    const grey = context.getImageData(120, 40, 1, 1).data[1];
    const frame = Math.round((grey - 40) / 4);
    return { time: video.currentTime, frame, paused: video.paused, rate: video.playbackRate };
})"""
WATCH = f"""(seconds) => new Promise((done) => {{
    const read = {READ}, seen = [], until = performance.now() + 1000 * seconds;
    const look = () => {{
        seen.push(read());
        performance.now() < until ? requestAnimationFrame(look) : done(seen);
    }};
    look();
}})"""


def clips(page: Page) -> list[dict[str, Any]]:
    """Each clip on the page: its currentTime, the frame that its picture shows, whether it is paused, its rate."""
    return page.evaluate(READ)


def watch(page: Page, seconds: float) -> list[list[dict[str, Any]]]:
    """What `clips` would have said at every animation frame."""
    return page.evaluate(WATCH, seconds)


def spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def until(true: Callable[[], Any]) -> None:
    limit = time.monotonic() + 30
    while not true():
        assert time.monotonic() < limit, "it did not happen within 30 s"
        time.sleep(0.03)


def shown(page: Page, question: str) -> None:
    """Wait until this question's clips are on the page and its keys count."""
    expect(page.locator(".prompt")).to_contain_text(question)
    page.wait_for_function("[...document.querySelectorAll('.screen')].every((s) => s.dataset.state !== 'loading')")
    page.wait_for_timeout(SETTLED)


def opened(site: Site, page: Page, question: str) -> None:
    page.goto(site.address)
    shown(page, question)


def press_when_playing(page: Page, key: str = "Space") -> None:
    """Stop the clips somewhere in their middle."""
    page.wait_for_function(
        "(v => v && v.currentTime > 0.3 && v.currentTime < 1)(document.querySelector('.card video'))"
    )
    page.keyboard.press(key)
    stopped(page)


def stopped(page: Page) -> None:
    page.wait_for_function("[...document.querySelectorAll('.card video')].every((v) => v.paused && !v.seeking)")
    page.wait_for_timeout(80)  # the pictures of the last seek are painted
