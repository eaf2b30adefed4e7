"""Every kind of comparison, by mouse, by keyboard and by touch: the store holds what was meant, by text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from label_world import Site, ask, key_of, note, preferred, shown, until
from playwright.sync_api import Browser, Locator, Page, expect

from labeling.records import Label

STRENGTHS = [1, 2 / 3, 1 / 3, 0, 1 / 3, 2 / 3, 1]
TITLES = ["1 significantly", "1 better", "1 slightly", "About equal", "2 slightly", "2 better", "2 significantly"]


def in_places(label: Label) -> list[int]:
    """The ranks as they were given: by place on the screen."""
    assert label.ranks is not None
    return [label.ranks[candidate] for candidate in label.order]


def the_label(site: Site, number: int = 1) -> Label:
    until(lambda: len(site.store.labels()) == number)
    return site.store.labels()[-1]


@pytest.mark.parametrize("how", ["keyboard", "mouse"])
def test_a_pair_with_strength(site: Site, page: Page, how: str) -> None:
    site.store.set_settings({"strength": "yes"})
    for n in reversed(range(7)):
        ask(site.store, f"question {n}.", f"a {n}", f"b {n}")
    page.goto(site.address)
    for n, title in enumerate(TITLES):
        shown(page, f"question {n}.")
        if how == "keyboard":
            page.keyboard.press(str(n + 1))
        else:
            page.get_by_role("button", name=title).click()
    until(lambda: len(site.store.labels()) == 7)
    labels = site.store.labels()
    assert [label.strength for label in labels] == STRENGTHS
    assert [in_places(label) for label in labels] == [[1, 2]] * 3 + [[1, 1]] + [[2, 1]] * 3


def ranked(page: Page) -> str:
    """The ranking as it stands, in letters."""
    groups = page.locator(".strip .group").all()
    return " > ".join("=".join(group.locator(".chip").all_inner_texts()) for group in groups)


def centre(element: Locator) -> tuple[float, float]:
    box = element.bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def drag(page: Page, what: Locator, to: Locator) -> None:
    page.mouse.move(*centre(what))
    page.mouse.down()
    page.mouse.move(*centre(to), steps=6)
    page.mouse.up()


def drag_by_touch(page: Page, what: Locator, to: Locator) -> None:
    """Put a finger on it, move and lift it: real touch events of the browser."""
    (x, y), (to_x, to_y) = centre(what), centre(to)
    devtools = page.context.new_cdp_session(page)
    points = [(x + (to_x - x) * n / 6, y + (to_y - y) * n / 6) for n in range(7)]
    for n, (px, py) in enumerate(points):
        kind = "touchStart" if n == 0 else "touchMove"
        devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": px, "y": py}]})
    devtools.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def rank_by_dragging(page: Page, move: Callable[[Page, Locator, Locator], None]) -> None:
    """C best, A and D tied, B out again: C > A = D."""
    chip = page.locator(".strip .chip")
    gaps, groups = page.locator(".strip .gap"), page.locator(".strip .group")
    move(page, page.locator(".card .grip").nth(0), gaps.last)
    until(lambda: ranked(page) == "A")
    move(page, chip.filter(has_text="B"), gaps.first)
    until(lambda: ranked(page) == "B > A")
    move(page, chip.filter(has_text="C"), gaps.first)
    until(lambda: ranked(page) == "C > B > A")
    move(page, chip.filter(has_text="D"), groups.nth(2).locator(".chip"))
    until(lambda: ranked(page) == "C > B > A=D")
    move(page, chip.filter(has_text="B"), page.locator(".strip .pool"))
    until(lambda: ranked(page) == "C > A=D")


def submit_without(page: Page, letters: Sequence[str], press: bool) -> None:
    """Submit a ranking that leaves something out: it asks first."""
    for time in ("first", "second"):
        page.keyboard.press("Enter") if press else page.get_by_role("button", name="Submit").click()
        if time == "first":
            expect(note(page)).to_contain_text(f"Still to be ranked: {', '.join(letters)}")


def test_a_ranking_by_dragging_with_ties_and_something_left_out(site: Site, page: Page) -> None:
    ask(site.store, "rank", *"wxyz")
    page.goto(site.address)
    shown(page, "rank")
    rank_by_dragging(page, drag)
    submit_without(page, ["B"], press=False)
    label = the_label(site)
    assert in_places(label) == [2, 3, 1, 2]
    assert [label.order.index(candidate) for candidate in label.unranked] == [1]


def test_a_ranking_by_touch(site: Site, browser: Browser) -> None:
    ask(site.store, "rank", *"wxyz")
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(site.address)
    shown(page, "rank")
    rank_by_dragging(page, drag_by_touch)
    # By a click: after touches that were made through the devtools, Chromium makes no click of a tap.
    submit_without(page, ["B"], press=False)
    assert in_places(the_label(site)) == [2, 3, 1, 2]
    context.close()


def test_a_ranking_by_the_arrow_keys(site: Site, page: Page) -> None:
    ask(site.store, "rank", *"wxyz")
    page.goto(site.address)
    shown(page, "rank")
    for key in "abcd":
        page.keyboard.press(key)
    page.locator(".strip .chip", has_text="D").focus()
    steps = ["A > B > C=D", "A > B > D > C", "A > B=D > C", "A > D > B > C"]
    for expected in steps:
        page.keyboard.press("ArrowLeft")
        assert ranked(page) == expected
    expect(page.locator(".strip .chip:focus")).to_have_text("D")
    page.keyboard.press("ArrowRight")
    assert ranked(page) == "A > B=D > C"
    page.keyboard.press("Delete")
    assert ranked(page) == "A > B > C"
    page.evaluate("document.activeElement.blur()")
    submit_without(page, ["D"], press=True)
    assert in_places(the_label(site)) == [1, 2, 3, 4]


def test_an_order_that_nobody_touched_is_no_label(site: Site, page: Page) -> None:
    ask(site.store, "rank", *"xyz")
    page.goto(site.address)
    shown(page, "rank")
    for _ in range(3):
        page.keyboard.press("Enter")
        expect(note(page)).to_contain_text("Rank the answers first")
    page.wait_for_timeout(300)
    assert site.store.labels() == []


@pytest.mark.parametrize("how", ["keyboard", "mouse"])
@pytest.mark.parametrize("k", [2, 3])
def test_bad_answers_and_skips_with_a_reason(site: Site, page: Page, how: str, k: int) -> None:
    for n in reversed(range(3)):
        ask(site.store, f"question {n}.", *(f"{letter} {n}" for letter in "xyz"[:k]))
    page.goto(site.address)
    bad = ("b", "Both bad") if k == 2 else ("x", "All bad")
    shown(page, "question 0.")
    page.keyboard.press(bad[0]) if how == "keyboard" else page.get_by_role("button", name=bad[1]).click()
    shown(page, "question 1.")
    if how == "keyboard":
        page.keyboard.press("s")
        page.keyboard.press("Escape")
        expect(page.get_by_text("Why skip?")).to_have_count(0)
        page.keyboard.press("s")
        page.keyboard.press("2")
    else:
        page.get_by_role("button", name="Skip").click()
        page.get_by_role("button", name="The question is unclear").click()
    shown(page, "question 2.")
    for name in ("Skip", "Skip without a reason"):
        page.keyboard.press("s") if how == "keyboard" else page.get_by_role("button", name=name).click()
    until(lambda: len(site.store.labels()) == 3)
    expected = [("both_bad", ""), ("skip", "The question is unclear"), ("skip", "")]
    assert [(label.outcome, label.reason) for label in site.store.labels()] == expected


def test_criteria_reason_and_flags_go_with_the_answer(site: Site, page: Page) -> None:
    site.store.set_settings({"criteria": "tone,facts"})
    slate = ask(site.store, "question", "good", "bad")
    page.goto(site.address)
    shown(page, "question")
    left = [c.text for c in slate.candidates].index("good" if key_of(page, "good") == "1" else "bad")
    page.keyboard.press("c")  # into the criteria, where the arrow keys choose
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("w")
    page.keyboard.press("n")
    page.keyboard.type("it says 1 thing, well")  # the 1 is no answer
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    label = the_label(site)
    assert dict(label.criteria) == {"tone": ("first", "second")[left], "facts": "tie"}
    assert (label.reason, label.flags) == ("it says 1 thing, well", ("unsafe",))


def test_flags_by_mouse_and_a_reason_with_a_skip(site: Site, page: Page) -> None:
    ask(site.store, "question", "x", "y", "z")
    page.goto(site.address)
    shown(page, "question")
    for name in ("Flag as unsafe", "Flag as broken", "Flag as unsafe"):
        page.get_by_role("button", name=name).click()
    page.get_by_label("Why, in your words").fill("it is no text")
    page.get_by_role("button", name="Skip").click()
    page.get_by_role("button", name="I do not know enough").click()
    label = the_label(site)
    assert (label.flags, label.reason) == (("broken",), "I do not know enough about it: it is no text")


def test_two_people_at_once_see_their_own_orders_and_count_apart(site: Site, browser: Browser) -> None:
    site.store.set_settings({"overlap": "2"})
    for n in reversed(range(4)):
        ask(site.store, f"question {n}.", f"good {n}", f"bad {n}")
    pages = {name: browser.new_context().new_page() for name in ("ann", "bob")}
    for name, page in pages.items():
        page.add_init_script(f"localStorage.setItem('prefloop.name', '{name}')")
        page.goto(site.address)
    for n in range(4):
        for name, page in pages.items():
            shown(page, f"question {n}.")
            page.keyboard.press(key_of(page, f"{'good' if name == 'ann' else 'bad'} {n}"))
    until(lambda: site.store.counts() == {"human:ann": 4, "human:bob": 4})
    both = {kind for slate in preferred(site.store) for kind in [len(slate)]}
    assert both == {2}  # on every slate ann says one thing and bob the other
    for page in pages.values():
        expect(page.locator(".count")).to_have_text("4 labels")
        page.context.close()
