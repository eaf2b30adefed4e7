"""A person labels by keyboard and mouse in a real browser, and the store holds exactly what they meant.

Preferences are compared by the candidates' texts, so an order of display that was not undone would show.
"""

from __future__ import annotations

import pytest
from label_world import Site, ask, key_of, note, preferred, shown, until
from playwright.sync_api import Page, Route, expect


def test_pairs_by_keyboard(site: Site, page: Page) -> None:
    texts = [(f"good {n}", f"bad {n}") for n in range(6)]
    for n, pair in reversed(list(enumerate(texts))):
        ask(site.store, f"question {n}", *(pair if n % 2 else pair[::-1]))
    page.goto(site.address)
    for n in range(4):
        shown(page, f"question {n}")
        key = key_of(page, f"good {n}")
        page.keyboard.press(key if n < 2 else {"1": "ArrowLeft", "2": "ArrowRight"}[key])
    shown(page, "question 4")
    page.keyboard.press("0")
    shown(page, "question 5")
    page.keyboard.press("=")
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()
    expect(page.locator(".count")).to_have_text("6 labels")
    wanted = [{(f"good {n}", "better than", f"bad {n}")} for n in range(4)]
    wanted += [{(f"bad {n}", "ties with", f"good {n}")} for n in (4, 5)]
    assert sorted(preferred(site.store), key=str) == sorted(wanted, key=str)


def test_a_ranking_of_four_by_keyboard(site: Site, page: Page) -> None:
    ask(site.store, "rank without ties", "third", "first", "fourth", "second")
    page.goto(site.address)
    shown(page, "rank without ties")
    for text in ("first", "second", "third", "fourth"):
        page.keyboard.press(key_of(page, text).lower())
    page.keyboard.press("Enter")
    until(lambda: len(site.store.labels()) == 1)
    order = ["first", "second", "third", "fourth"]
    assert preferred(site.store) == [{(a, "better than", b) for a in order for b in order[order.index(a) + 1 :]}]


def test_a_ranking_with_ties_and_second_thoughts(site: Site, page: Page) -> None:
    ask(site.store, "rank with ties", "low", "summit", "peak", "middle")
    page.goto(site.address)
    shown(page, "rank with ties")
    page.keyboard.press("Enter")
    expect(note(page)).to_contain_text("Rank the answers first")
    keys = {text: key_of(page, text).lower() for text in ("low", "middle", "peak", "summit")}
    for key in (keys["low"], "Backspace", keys["peak"], "=", keys["summit"], keys["middle"], "Enter"):
        page.keyboard.press(key)
    expect(note(page)).to_contain_text(f"Still to be ranked: {keys['low'].upper()}")
    page.locator(".card", has_text="low").click()
    page.keyboard.press("Enter")
    until(lambda: len(site.store.labels()) == 1)
    expected = {("peak", "ties with", "summit"), ("middle", "better than", "low")}
    expected |= {(top, "better than", rest) for top in ("peak", "summit") for rest in ("middle", "low")}
    assert preferred(site.store) == [expected]


def test_undo_brings_the_same_view_back_and_the_new_answer_stands(site: Site, page: Page) -> None:
    ask(site.store, "the older one", "c", "d")
    ask(site.store, "the newer one", "right answer", "wrong answer")
    page.goto(site.address)
    shown(page, "the newer one")
    before = page.locator(".cards").inner_text()
    page.keyboard.press(key_of(page, "wrong answer"))
    shown(page, "the older one")
    page.keyboard.press("u")
    shown(page, "the newer one")
    assert page.locator(".cards").inner_text() == before
    assert site.store.labels() == []
    page.keyboard.press(key_of(page, "right answer"))
    shown(page, "the older one")
    assert preferred(site.store) == [{("right answer", "better than", "wrong answer")}]
    assert [label.outcome for label in site.store.labels(history=True)] == ["ranked", "undone", "ranked"]


def test_both_bad_and_skip_are_no_preferences(site: Site, page: Page) -> None:
    ask(site.store, "second", "c", "d")
    ask(site.store, "first", "a", "b")
    page.goto(site.address)
    shown(page, "first")
    page.keyboard.press("b")
    shown(page, "second")
    page.keyboard.press("s")
    page.keyboard.press("s")  # once more: without a reason
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()
    assert [label.outcome for label in site.store.labels()] == ["both_bad", "skip"]
    assert preferred(site.store) == [set(), set()]


@pytest.mark.parametrize("rapid", ["clicks", "keys"])
def test_five_rapid_clicks_make_one_label(site: Site, page: Page, rapid: str) -> None:
    for n in range(6):
        ask(site.store, f"question {n}", f"a {n}", f"b {n}")
    page.goto(site.address)
    shown(page, "question 5")
    if rapid == "clicks":
        page.get_by_role("button", name="1 is better").click(click_count=5, delay=15)
    else:
        for _ in range(5):
            page.keyboard.press("1")
    shown(page, "question 4")
    assert len(site.store.labels(history=True)) == 1


def test_markup_in_a_text_is_shown_as_text(site: Site, page: Page) -> None:
    hostile = "<b>bold</b> <img src=x onerror=\"document.title='owned'\"> {{7+7}} ${8+8}\n  <script>1</script>"
    ask(site.store, f"what is {hostile}", hostile, "plain")
    page.goto(site.address)
    shown(page, "what is")
    expect(page.locator(".card .text", has_text="bold")).to_have_text(hostile, use_inner_text=True)
    assert page.locator(".prompt .text").inner_text() == f"what is {hostile}"
    assert page.locator(".prefloop").locator("img, b, script").count() == 0
    assert page.title() == "Prefloop"


def test_an_answer_that_was_cut_off_says_so(site: Site, page: Page) -> None:
    ask(site.store, "question", "it ends in the mid", "and so do", finished=False)
    page.goto(site.address)
    expect(page.locator(".card .cut")).to_have_text(["cut off", "cut off"])


@pytest.mark.parametrize("lost", ["request", "reply"])
def test_an_answer_survives_a_network_failure(site: Site, page: Page, lost: str) -> None:
    ask(site.store, "later", "c", "d")
    ask(site.store, "question", "good", "bad")
    page.goto(site.address)
    shown(page, "question")
    failures: list[str] = []

    def fail_twice(route: Route) -> None:
        if len(failures) >= 2:
            route.continue_()
            return
        failures.append(lost)
        if lost == "reply":
            route.fetch()
        route.abort()

    page.route("**/api/submit", fail_twice)
    page.keyboard.press(key_of(page, "good"))
    expect(note(page)).to_contain_text("Not sent yet")
    shown(page, "later")
    expect(note(page)).to_be_empty()
    assert len(failures) == 2
    assert preferred(site.store) == [{("good", "better than", "bad")}]
    assert len(site.store.labels(history=True)) == 1


def test_an_answer_survives_a_reload_while_the_network_is_down(site: Site, page: Page) -> None:
    ask(site.store, "later", "c", "d")
    ask(site.store, "question", "good", "bad")
    page.goto(site.address)
    shown(page, "question")
    page.route("**/api/submit", lambda route: route.abort())
    page.keyboard.press(key_of(page, "good"))
    expect(note(page)).to_contain_text("Not sent yet")
    page.unroute("**/api/submit")
    page.reload()
    shown(page, "later")
    assert preferred(site.store) == [{("good", "better than", "bad")}]


def test_what_comes_later_appears_by_itself_and_a_name_is_kept(site: Site, page: Page) -> None:
    page.goto(site.address)
    expect(page.get_by_text("Nothing to label right now")).to_be_visible()
    page.get_by_label("Your name").fill("ann")
    page.keyboard.press("Enter")
    ask(site.store, "a new question", "a", "b")
    shown(page, "a new question")
    page.keyboard.press("1")
    until(lambda: site.store.counts() == {"human:ann": 1})
    page.reload()
    expect(page.get_by_label("Your name")).to_have_value("ann")


def test_nothing_is_asked_of_another_host(site: Site, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path, content in (("/", ".prefloop .nothing"), ("/live", "main")):
        page.goto(site.address + path)
        expect(page.locator(content).first).to_be_visible()
        page.wait_for_timeout(1000)
    assert asked
    assert [url for url in asked if not url.startswith((site.address, "data:", "blob:"))] == []
