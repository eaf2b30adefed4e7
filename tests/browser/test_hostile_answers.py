"""What a model wrote, on the page of whoever reads it: nothing of it runs, and nothing leaves the page.

What would leave is counted where it would arrive: by a server of another port, which is another site to the browser.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hostile_texts import HOSTILE
from label_world import Site, ask, serving_texts, shown, until
from playwright.sync_api import Browser, Page, expect

# What is under .text: names of elements, and of their attributes.
INSIDE = """() => {
    const all = [...document.querySelectorAll('.prefloop .text *')];
    return [
        [...new Set(all.map((e) => e.localName))],
        [...new Set(all.flatMap((e) => e.getAttributeNames().map((name) => `${e.localName} ${name}`)))],
    ];
}"""
WATCH = """
window.broken = [];
document.addEventListener('securitypolicyviolation', (e) => window.broken.push(e.violatedDirective));
"""


@dataclass
class Evil:
    """Another site. It counts who comes."""

    port: int
    visits: list[bytes] = field(default_factory=list)

    def lures(self, text: str) -> str:
        """The text, its links to evil leading here."""
        return text.replace("//evil", f"//127.0.0.1:{self.port}")


@pytest.fixture(scope="module")
def evil() -> Iterator[Evil]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        site = Evil(listener.getsockname()[1])

        def receive() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    site.visits.append(connection.recv(1000))

        threading.Thread(target=receive, daemon=True).start()
        yield site
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving_texts(tmp_path_factory.mktemp("hostile") / "project") as served:
        yield served


@dataclass
class Witness:
    """A tab, and what happened in it that nobody asked for."""

    page: Page
    happened: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Witness]:
    """One tab for all tests here."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.add_init_script(WATCH)
    seen = Witness(page)
    page.on("dialog", lambda dialog: (seen.happened.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("popup", lambda other: seen.happened.append(f"popup {other.url}"))
    page.on("download", lambda download: seen.happened.append(f"download {download.url}"))
    page.on("pageerror", lambda error: seen.happened.append(f"error {error}"))
    yield seen
    context.close()


def provoke(page: Page) -> None:
    """Point at everything and click what a text might have made clickable."""
    page.evaluate(
        """() => document.querySelectorAll('.prefloop .text *').forEach((e) => {
            for (const kind of ['mouseover', 'pointerover', 'focus', 'click', 'animationstart', 'toggle'])
                e.dispatchEvent(new Event(kind));
        })"""
    )
    page.wait_for_timeout(300)


@pytest.mark.parametrize("path", ["/", "/label"])
def test_nothing_of_an_answer_runs_and_nothing_leaves(hostile_site: Site, tab: Witness, evil: Evil, path: str) -> None:
    page, lures = tab.page, [evil.lures(text) for text in HOSTILE]
    groups = [lures[n : n + 8] for n in range(0, len(lures), 8)]
    for n, group in reversed(list(enumerate(groups))):
        # Each also as the question; and `path` makes it another slate.
        ask(hostile_site.store, f"group {n} {path}\n\n" + "\n\n".join(group), *group, "**harmless**")
    page.goto(hostile_site.address + path)
    page.get_by_role("tab", name="Rankings").click()
    for n in range(len(groups)):
        shown(page, f"group {n} {path}")
        provoke(page)
        names, attributes = page.evaluate(INSIDE)
        assert "strong" in names  # the texts are shown as Markdown
        assert not {*names} & {
            "a",
            "img",
            "svg",
            "style",
            "script",
            "iframe",
            "form",
            "input",
            "object",
            "embed",
            "link",
        }
        assert {a for a in attributes if not a.startswith(("m", "o"))} <= {"div class", "span class"}, attributes
        assert not [a for a in attributes if a.split()[1].startswith(("on", "style", "href", "src", "xlink"))]
        assert page.evaluate("window.broken") == []  # the page's policy had nothing to stop
        page.keyboard.press("x")
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()
    assert page.url == hostile_site.address + path
    assert (tab.happened, evil.visits) == ([], [])


def test_if_markup_got_in_all_the_same_the_labelers_page_would_not_run_or_load_it(
    hostile_site: Site, tab: Witness, evil: Evil, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labeling.blind_view.rich", lambda text: text)
    raw = [evil.lures(text) for text in HOSTILE if "<" in text and "http-equiv" not in text]
    raw += [f"<img src=http://127.0.0.1:{evil.port}/pixel.png>", "<img src=data:, onerror=alert(1)>"]
    raw += [f"<style>.card {{ background: url(http://127.0.0.1:{evil.port}/leak) }}</style>"]
    raw += [f"<video src=http://127.0.0.1:{evil.port}/v.mp4 autoplay></video>"]
    ask(hostile_site.store, "raw", "\n".join(raw), "plain")
    page = tab.page
    page.goto(hostile_site.address + "/label")
    page.get_by_role("tab", name="Pairs").click()
    shown(page, "raw")
    assert page.locator(".text img").count() > 2  # it did get in
    provoke(page)
    stopped = " ".join(page.evaluate("window.broken"))
    assert "img-src" in stopped
    assert "script-src" in stopped
    assert (tab.happened, evil.visits) == ([], [])
    page.keyboard.press("1")
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()


def test_texts_that_hide_or_break_are_shown_as_what_they_are(hostile_site: Site, tab: Witness) -> None:
    page = tab.page
    zalgo = "Z" + "\u0351\u0347\u0327" * 200
    ask(hostile_site.store, "bidi \u202egnp.exe", f"left\u2067\u202etfel {zalgo}", "a\x00b\x1b[0m \ufeff\u2028end")
    page.goto(hostile_site.address + "/label")
    page.get_by_role("tab", name="Pairs").click()
    shown(page, "bidi")
    said = page.locator(".prefloop .body").inner_text()
    for visible in ("[U+202E]", "[U+2067]", "[U+FEFF]", "[U+2028]", "a\ufffdb\ufffd[0m"):
        assert visible in said
    card = page.locator(".card", has_text="tfel")
    assert card.bounding_box()["height"] < 700  # type: ignore[index]
    page.keyboard.press("1")
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()


def test_answers_of_a_megabyte_are_shown_and_labeled(hostile_site: Site, tab: Witness, tmp_path: Path) -> None:
    page, before = tab.page, len(hostile_site.store.labels())
    ask(hostile_site.store, "after it", "a", "b")
    ask(hostile_site.store, "huge", "**word** " * 120_000, "x" * 1_000_000)
    page.goto(hostile_site.address + "/label")
    shown(page, "huge")
    assert page.locator(".card", has_text="**word**").bounding_box()["height"] < 900  # type: ignore[index]
    page.keyboard.press("2")
    shown(page, "after it")
    page.keyboard.press("1")
    until(lambda: len(hostile_site.store.labels()) == before + 2)


@pytest.mark.parametrize(
    "wanted", ["//evil.example/x", "/\\\\evil.example", "https://evil.example", "javascript:alert(1)"]
)
def test_signing_in_leads_to_no_other_site(hostile_site: Site, tab: Witness, wanted: str) -> None:
    page = tab.page
    page.goto(f"{hostile_site.address}/login?next={wanted}")
    page.route("**/api/login", lambda route: route.fulfill(json={"name": "x"}))
    page.get_by_label("Name").fill("x")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(hostile_site.address + "/")
    page.unroute("**/api/login")
    assert tab.happened == []
