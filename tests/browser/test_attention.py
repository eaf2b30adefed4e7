"""What counts as time at work, in a real browser and by a clock of the test's."""

from __future__ import annotations

from pathlib import Path

from label_world import Site, ask, shown, until
from playwright.sync_api import Page

ATTENTION = Path(__file__).resolve().parents[2] / "labeling" / "pages" / "attention.js"

# Plays a clip of `seconds` so many times over, a second at a time, and returns the milliseconds at work.
PLAY = """
async ([source, seconds, times]) => {
  const { Attention } = await import("data:text/javascript," + encodeURIComponent(source));
  let now = 0;
  performance.now = () => now;
  const attention = new Attention(new AbortController().signal);
  const video = document.body.appendChild(document.createElement("video"));
  let place = 0;
  Object.defineProperty(video, "currentTime", { get: () => place });
  for (let time = 0; time < times; time++)
    for (place = 1; place <= seconds; place++) {
      now += 1000;
      video.dispatchEvent(new Event("timeupdate"));
    }
  return attention.noted();
}
"""


def at_work(page: Page, seconds: int, times: int) -> float:
    page.set_content("<p>Clips</p>")
    return page.evaluate(PLAY, [ATTENTION.read_text(encoding="utf-8"), seconds, times]) / 1000


def test_a_long_clip_is_watched_to_its_end(page: Page) -> None:
    assert at_work(page, 100, 1) == 100  # although nobody touches anything for longer than counts otherwise


def test_a_clip_that_starts_over_by_itself_shows_nobody(page: Page) -> None:
    assert at_work(page, 4, 100) == 4 + 30  # its first time, and the half minute after the last thing that was done


def test_the_time_of_an_answer_leaves_out_who_is_away(site: Site, page: Page) -> None:
    ask(site.store, "second.", "a", "b")
    ask(site.store, "first.", "a", "b")
    page.clock.install()
    page.add_init_script(
        "let seen = 'visible';"
        "Object.defineProperty(document, 'visibilityState', { get: () => seen });"
        "window.turn = (to) => { seen = to; document.dispatchEvent(new Event('visibilitychange')); };"
    )
    page.goto(site.address)
    shown(page, "first.")
    for place in (300, 400):  # 20 seconds of reading before each move of the mouse
        page.clock.fast_forward(20_000)
        page.mouse.move(place, 300)
    page.evaluate("turn('hidden')")
    page.clock.fast_forward(20_000)  # less than who looks at the page may sit still
    page.mouse.move(500, 300)
    page.evaluate("turn('visible')")
    page.clock.fast_forward(600_000)  # in sight, but nobody there: 30 seconds of it count
    page.keyboard.press("1")
    shown(page, "second.")
    page.clock.fast_forward(10_000)
    page.keyboard.press("1")
    until(lambda: len(site.store.labels()) == 2)
    first, second = (label.seconds for label in site.store.labels())
    assert first is not None
    assert second is not None
    assert 70 <= first < 85
    assert 10 <= second < 20
