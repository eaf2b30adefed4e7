"""No page has a barrier that axe-core calls serious or critical; labels, focus and contrast are among its rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from label_world import Site, ask, shown
from playwright.sync_api import Browser, Page, expect

from labeling.records import Candidate, Message, Prompt, Slate

axe = pytest.importorskip("axe_playwright_python.sync_playwright")


def barriers(page: Page) -> list[str]:
    """Each serious or critical violation as: rule, and where."""
    found: list[dict[str, Any]] = axe.Axe().run(page).response["violations"]
    return [
        f"{violation['impact']}: {violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def pair(site: Site, page: Page) -> None:
    site.store.set_settings({"strength": "yes", "criteria": "helpful,honest", "guidelines": "# How\n\nWith care."})
    turns = (Message("user", "hello"), Message("assistant", "hi"), Message("user", "write **much**"))
    long = "\n\n".join(["# Title", "`code` and more", "> said", *["line"] * 90])
    site.store.add_slates([Slate(Prompt(turns), (Candidate(long, finished=False), Candidate("b")))])
    page.goto(site.address)
    page.get_by_role("button", name="Close").click()
    shown(page, "write")
    page.keyboard.press("w")


def ranking(site: Site, page: Page) -> None:
    ask(site.store, "rank them", "a", "b", "c", "d")
    page.goto(site.address)
    shown(page, "rank them")
    for key in ("a", "b", "=", "c"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")


def skipping(site: Site, page: Page) -> None:
    ask(site.store, "question", "a", "b")
    page.goto(site.address)
    shown(page, "question")
    page.keyboard.press("s")


def nothing(site: Site, page: Page) -> None:
    page.goto(site.address)
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()


def guidelines(site: Site, page: Page) -> None:
    site.store.set_settings({"guidelines": "# How\n\n| good | bad |\n|---|---|\n| a | b |\n\n" + "line\n\n" * 90})
    page.goto(site.address)
    expect(page.get_by_role("dialog")).to_be_visible()


def keys(site: Site, page: Page) -> None:
    nothing(site, page)
    page.keyboard.press("k")
    expect(page.get_by_role("dialog")).to_be_visible()


def last_answers(site: Site, page: Page) -> None:
    skipping(site, page)
    page.keyboard.press("1")
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()
    page.keyboard.press("m")
    expect(page.get_by_role("dialog").locator("li")).to_have_count(1)


def sign_in(site: Site, page: Page) -> None:
    page.goto(site.address + "/login")


def joining(site: Site, page: Page) -> None:
    page.goto(site.address + "/join#abc")


def live(site: Site, page: Page) -> None:
    page.goto(site.address + "/live")
    expect(page.locator(".gradio-container")).to_be_visible()
    page.wait_for_timeout(2000)


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize(
    "visit", [pair, ranking, skipping, nothing, guidelines, keys, last_answers, sign_in, joining, live]
)
def test_there_is_no_serious_barrier(
    site: Site, browser: Browser, visit: Callable[[Site, Page], None], colours: str
) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme=colours)  # type: ignore[arg-type]
    visit(site, page)
    page.wait_for_timeout(400)  # what fades in has its colours
    assert barriers(page) == []
    page.close()


def test_a_labelers_own_page_has_none_either(site: Site, page: Page) -> None:
    ask(site.store, "question", "a", "b")
    page.goto(site.address + "/label")
    shown(page, "question")
    assert barriers(page) == []


def test_the_focus_goes_through_the_page_in_its_order_and_is_not_lost(site: Site, page: Page) -> None:
    ask(site.store, "second", "c", "d")
    ask(site.store, "first", "a", "b")
    page.goto(site.address + "/label")
    shown(page, "first")
    names: list[str] = []
    for _ in range(18):
        page.keyboard.press("Tab")
        names.append(page.evaluate("(e => e.getAttribute('aria-label') ?? e.textContent)(document.activeElement)"))
    wanted = ["Pairs", "Your name", "Question", "Flag as unsafe", "Why, in your words", "Undo", "1 is better", "Skip"]
    places = [next(n for n, name in enumerate(names) if name.startswith(start)) for start in wanted]
    assert places == sorted(places)
    page.get_by_role("button", name="1 is better").press("Enter")
    shown(page, "second")
    expect(page.get_by_role("region", name="Comparison")).to_be_focused()
    expect(page.locator(".unseen")).to_contain_text("New comparison of 2. second")
