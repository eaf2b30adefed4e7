"""No page has a barrier that axe-core calls serious or critical; labels, focus and contrast are among its rules."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from barriers import barriers, none_in_either_colours
from label_world import Site, ask, shown
from playwright.sync_api import Page, expect

from labeling.records import Annotator, Candidate, Label, Message, Prompt, Slate


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


def quality(site: Site, page: Page) -> None:
    for who, kind in (("human:ann", "human"), ("human:bob", "human"), ("judge:j", "judge")):
        site.store.add_annotator(Annotator(who, kind))  # type: ignore[arg-type]
    for n in range(6):
        one = Slate(Prompt((Message("user", f"q{n}"),)), (Candidate("a", "old policy"), Candidate("b", "new policy")))
        site.store.add_slates([one])
        for who, ranks in (("human:ann", (2, 1)), ("human:bob", (1, 2) if n == 0 else (2, 1)), ("judge:j", (2, 1))):
            site.store.add_labels([Label(one.id, who, "ranked", f"{who}-{n}", ranks)])
    site.store.revoke("judge:j", "a mistake", "local")
    page.goto(site.address + "/quality")
    expect(page.locator("#quality-annotators")).to_contain_text("revoked: a mistake")


def guidelines_page(site: Site, page: Page) -> None:
    site.store.set_settings({"guidelines": "# How\n\n| good | bad |\n|---|---|\n| `a` | b |\n\n> An example"})
    page.goto(site.address + "/guidelines")
    expect(page.locator("h1")).to_have_text("How")


@pytest.mark.parametrize(
    "visit",
    [
        *(pair, ranking, skipping, nothing, guidelines, guidelines_page, keys, last_answers),
        *(sign_in, joining, live, quality),
    ],
)
def test_there_is_no_serious_barrier(site: Site, page: Page, visit: Callable[[Site, Page], None]) -> None:
    visit(site, page)
    none_in_either_colours(page)


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
