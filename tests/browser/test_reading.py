"""Long answers and conversations can be read side by side, on a phone, and where they differ is marked on demand."""

from __future__ import annotations

import pytest
from label_world import Site, ask, shown
from playwright.sync_api import Browser, Page, expect

from labeling.records import Candidate, Message, Prompt, Slate

MARKED = "[...(CSS.highlights.get('prefloop-difference') ?? [])].map((range) => range.toString())"
SCROLLED = "[...document.querySelectorAll('.card .said')].map((e) => e.scrollTop / (e.scrollHeight - e.clientHeight))"


def test_long_answers_scroll_together_by_their_share_until_told_not_to(site: Site, page: Page) -> None:
    ask(site.store, "question", "\n\n".join(["short"] * 60), "\n\n".join(["a longer one"] * 140))
    page.goto(site.address)
    shown(page, "question")
    texts = page.locator(".card .said")
    for place, share in ((0, 0.5), (1, 0.25), (0, 1)):
        texts.nth(place).evaluate("(e, share) => e.scrollTop = share * (e.scrollHeight - e.clientHeight)", share)
        page.wait_for_timeout(150)
        assert page.evaluate(SCROLLED) == pytest.approx([share, share], abs=0.01)
    page.keyboard.press("y")
    texts.nth(0).evaluate("(e) => e.scrollTop = 0")
    page.wait_for_timeout(150)
    assert page.evaluate(SCROLLED) == pytest.approx([0, 1], abs=0.01)
    expect(page.get_by_role("button", name="Scroll together")).to_have_attribute("aria-pressed", "false")
    texts.nth(0).focus()  # who has no mouse reads on by keys
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('.card .said').scrollTop > 100")


def test_differences_are_marked_word_by_word_and_change_no_element(site: Site, page: Page) -> None:
    ask(site.store, "question", "The **quick** fox <b>jumps</b> over", "The **slow** fox <b>jumps</b> far over")
    page.goto(site.address)
    shown(page, "question")
    before = page.locator(".cards").inner_html()
    page.keyboard.press("v")
    assert sorted(page.evaluate(MARKED)) == ["far", "quick", "slow"]
    assert page.locator(".cards").inner_html() == before
    page.get_by_role("button", name="Mark differences").click()
    assert page.evaluate(MARKED) == []


def test_marks_of_very_long_answers_are_there_at_once_and_go_with_the_slate(site: Site, page: Page) -> None:
    words = [f"word{n}" for n in range(9000)]
    lines = "\n".join(" ".join(words[n : n + 9]) for n in range(0, 9000, 9))
    ask(site.store, "next", "c", "d")
    ask(site.store, "question", lines, lines.replace("word4500", "another"))
    page.goto(site.address)
    shown(page, "question")
    took = page.evaluate("(() => { const t = performance.now(); document.dispatchEvent; return t; })()")
    page.keyboard.press("v")
    page.wait_for_function(f"{MARKED}.length === 2")
    assert page.evaluate("performance.now()") - took < 3000
    assert any("another" in text for text in page.evaluate(MARKED))
    page.keyboard.press("0")
    shown(page, "next")
    assert page.evaluate(MARKED) == []


def test_a_conversation_shows_who_said_what_and_its_end(site: Site, page: Page) -> None:
    turns = [Message("system", "Be brief.")]
    for n in range(12):
        turns += [Message("user", f"request {n} " * 20), Message("assistant", f"reply {n} " * 20)]
    turns.append(Message("user", "and now the last request"))
    site.store.add_slates([Slate(Prompt(tuple(turns)), (Candidate("a"), Candidate("b")))])
    page.goto(site.address)
    shown(page, "and now the last request")
    expect(page.locator(".turn").last).to_be_in_viewport()
    roles = page.locator(".turn .role").all_inner_texts()
    assert [role.lower() for role in roles] == ["system", *["user", "assistant"] * 12, "user"]
    expect(page.locator(".card").first).to_be_in_viewport()


@pytest.mark.parametrize(("k", "strength"), [(2, "no"), (2, "yes"), (4, "no"), (9, "no")])
def test_on_a_phone_nothing_is_cut_and_the_answers_are_in_sight(
    site: Site, browser: Browser, k: int, strength: str
) -> None:
    site.store.set_settings({"strength": strength, "criteria": "helpful,honest,harmless"})
    ask(site.store, "a question of some length that wraps", *(f"answer {n} " * 30 for n in range(k)))
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto(site.address)
    shown(page, "a question")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    expect(page.locator(".card").first).to_be_in_viewport()
    bar = page.locator(".prefloop footer").bounding_box()
    assert bar
    assert bar["height"] < 0.45 * 740
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    note = page.get_by_label("Why, in your words").bounding_box()
    assert note
    assert note["y"] + note["height"] <= bar["y"]  # the end of the page comes out from under the bar
    page.close()


WIDE = (
    "```\n"
    + "a_long_line_of_code " * 40
    + "\n```\n\n"
    + "| column " * 30
    + "|\n"
    + "|---" * 30
    + "|\n"
    + "| cell " * 30
    + "|"
)


def test_what_is_wider_than_its_card_scrolls_in_it_and_both_cards_stay_equal(site: Site, browser: Browser) -> None:
    ask(site.store, "pair", WIDE, "short")
    ask(site.store, "ranking", WIDE, "short", "other")
    for width in (1280, 390):
        page = browser.new_page(viewport={"width": width, "height": 844}, has_touch=True, is_mobile=width < 500)
        page.goto(site.address)
        for tab, question in (("Pairs", "pair"), ("Rankings", "ranking")):
            page.get_by_role("tab", name=tab).click()
            shown(page, question)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (width, question)
            widths = page.evaluate("[...document.querySelectorAll('.card')].map((card) => card.offsetWidth)")
            assert len(set(widths)) == 1, (width, question, widths)
        page.close()


@pytest.mark.alone
def test_two_answers_of_a_megabyte_are_shown_whole_and_at_once(site: Site, page: Page) -> None:
    text = "".join(f"{n}\n" * (n % 3) + f"line {n} of many words\n" for n in range(35_000))
    one, other = text + "the end", "different " + text
    ask(site.store, "long", one, other)
    page.goto(site.address + "/label")
    shown(page, "long")
    texts = page.locator(".card .said").evaluate_all("(all) => all.map((e) => e.textContent)")
    assert sorted(texts) == sorted([one, other])
    laid_out = page.evaluate(
        "() => { const body = document.querySelector('.body'); const began = performance.now();"
        " body.style.display = 'none'; body.offsetHeight; body.style.display = ''; body.offsetHeight;"
        " return performance.now() - began; }"
    )
    assert laid_out < 500  # 1,100 ms when all of it was laid out
    page.keyboard.press("v")
    assert sorted(page.evaluate(MARKED))[0].startswith("different")
    page.locator(".card .said", has_text="the end").last.focus()
    for _ in range(3):  # the heights are guessed until a part is in sight
        page.keyboard.press("End")
        page.wait_for_timeout(300)
    assert min(page.evaluate(SCROLLED)) > 0.95
    expect(page.locator(".part", has_text="the end")).to_be_in_viewport()
