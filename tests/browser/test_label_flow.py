"""The work goes on without waiting and nothing is lost: keys, drafts, lost connections, crashes, changes, rest."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from label_world import SETTLED, Site, ask, key_of, note, preferred, shown, until
from playwright.sync_api import BrowserContext, Page, expect

from labeling.store import Store

APP = [sys.executable, str(Path(__file__).resolve().parents[2] / "app.py")]
TIME_THE_CHANGE = """() => new Promise((done) => {
    const before = document.querySelector('.prompt').textContent;
    const start = (event) => {
        if (event.target.closest?.('.main') === null && event.type === 'click') return;
        const since = performance.now();
        const look = () => {
            if (document.querySelector('.prompt')?.textContent === before) return requestAnimationFrame(look);
            requestAnimationFrame(() => done(performance.now() - since)); // the frame with it is on its way
        };
        look();
    };
    document.addEventListener('click', start, { once: true, capture: true });
})"""


def test_the_next_slate_is_there_within_a_tenth_of_a_second(site: Site, page: Page) -> None:
    for n in reversed(range(41)):
        ask(site.store, f"question {n}.", f"a {n} " * 200, f"b {n} " * 200)
    page.goto(site.address)
    took: list[float] = []
    for n in range(40):
        shown(page, f"question {n}.")
        timing = page.evaluate_handle(f"() => ({{ change: ({TIME_THE_CHANGE})() }})")
        page.get_by_role("button", name="1 is better").click()
        took.append(timing.evaluate("(timing) => timing.change"))
    took.sort()
    print(f"click to next slate: median {took[20]:.0f} ms, 95 % {took[37]:.0f} ms, longest {took[-1]:.0f} ms")
    assert took[37] < 100
    until(lambda: len(site.store.labels()) == 40)


def test_answers_without_a_connection_are_shown_as_unsent_and_sent_once_each(site: Site, page: Page) -> None:
    for n in reversed(range(8)):
        ask(site.store, f"question {n}.", f"good {n}", f"bad {n}")
    page.goto(site.address)
    shown(page, "question 0.")
    page.context.set_offline(True)
    for n in range(2):  # of eight slates a person holds one ahead, so that others find some too
        shown(page, f"question {n}.")
        page.keyboard.press(key_of(page, f"good {n}"))
    expect(page.locator(".unsent")).to_have_text("2 not sent")
    expect(note(page)).to_contain_text("Not sent yet")
    expect(page.get_by_text("The next comparison is on its way")).to_be_visible()
    expect(page.locator(".count")).to_have_text("2 labels")
    assert site.store.labels() == []
    page.context.set_offline(False)
    shown(page, "question 2.")
    expect(page.locator(".unsent")).to_be_empty()
    expect(note(page)).to_be_empty()
    page.keyboard.press(key_of(page, "good 2"))
    shown(page, "question 3.")
    until(lambda: len(site.store.labels(history=True)) == 3)
    assert sorted(preferred(site.store), key=str) == [{(f"good {n}", "better than", f"bad {n}")} for n in range(3)]


def test_a_lost_connection_does_not_stop_the_work_for_a_dozen_answers(site: Site, page: Page) -> None:
    for n in reversed(range(90)):
        ask(site.store, f"question {n}.", f"good {n}", f"bad {n}")
    sent: list[Any] = []
    page.on("request", lambda request: sent.append(request.post_data_json) if "submit" in request.url else None)
    page.goto(site.address)
    for n in range(2):  # few are given at first, more with each answer
        shown(page, f"question {n}.")
        page.keyboard.press(key_of(page, f"good {n}"))
        until(lambda n=n: len(site.store.labels(history=True)) == n + 1)
    shown(page, "question 2.")
    expect(page.locator(".unsent")).to_be_empty()
    page.context.set_offline(True)
    for n in range(2, 13):
        shown(page, f"question {n}.")
        page.keyboard.press(key_of(page, f"good {n}"))
    shown(page, "question 13.")  # and what is here can still be read
    expect(page.locator(".unsent")).to_have_text("11 not sent")
    page.context.set_offline(False)
    until(lambda: len(site.store.labels(history=True)) == 13)
    expect(page.locator(".unsent")).to_be_empty()
    shown(page, "question 13.")
    page.keyboard.press(key_of(page, "good 13"))
    shown(page, "question 14.")
    until(lambda: len(site.store.labels(history=True)) == 14)
    wanted = {("good " + str(n), "better than", "bad " + str(n)) for n in range(14)}
    assert set().union(*preferred(site.store)) == wanted
    assert [len(request["have"]) for request in sent[:2]] == [2, 7]
    assert 8 <= len(sent[-1]["have"]) <= 12  # what is here is not sent again


def test_a_refused_answer_is_said_and_the_work_goes_on(site: Site, page: Page) -> None:
    slate = ask(site.store, "answered elsewhere", "a", "b")
    ask(site.store, "the first", "c", "d")
    page.goto(site.address)
    shown(page, "the first")
    page.keyboard.press("1")
    shown(page, "answered elsewhere")
    with site.store.writing():
        site.store.db.execute("DELETE FROM lease WHERE slate_id = ?", [slate.id])
        site.store.db.execute("UPDATE slate SET taken_until = 0")
    page.keyboard.press("1")
    expect(note(page)).to_contain_text("An answer was not taken: this comparison is not open for you")
    shown(page, "answered elsewhere")  # as it is given again, it can be answered
    page.keyboard.press("1")
    until(lambda: len(site.store.labels()) == 2)


def draft(page: Page) -> tuple[list[str], str]:
    return page.locator(".strip .group .chip").all_inner_texts(), page.get_by_label("Why, in your words").input_value()


def test_a_draft_survives_a_reload_and_is_gone_once_it_is_sent(site: Site, page: Page) -> None:
    ask(site.store, "rank", "x", "y", "z")
    page.goto(site.address)
    shown(page, "rank")
    page.keyboard.press("c")
    page.keyboard.press("a")
    page.get_by_label("Why, in your words").fill("half a sentence")
    page.get_by_role("button", name="Flag as broken").click()
    page.reload()
    shown(page, "rank")
    assert draft(page) == (["C", "A"], "half a sentence")
    expect(page.get_by_role("button", name="Flag as broken")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    until(lambda: len(site.store.labels()) == 1)
    assert [site.store.labels()[0].ranks[c] for c in site.store.labels()[0].order] == [2, 3, 1]  # type: ignore[index]
    page.keyboard.press("u")
    shown(page, "rank")
    assert draft(page) == ([], "")


def start_app(project: Path, port: int) -> subprocess.Popen[str]:
    command = [*APP, "serve", "--project", str(project), "--port", str(port)]
    web = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert web.stdout is not None
    assert "http://" in web.stdout.readline()
    return web


def profile(page: Page, chromium: str, folder: Path) -> BrowserContext:
    """A browser that keeps what it is told in a folder, as a person's does."""
    kind = page.context.browser.browser_type  # type: ignore[union-attr]
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    return kind.launch_persistent_context(str(folder), executable_path=chromium, args=arguments)


def kill_browser(folder: Path) -> None:
    """Kill the main process of the browser that uses this folder, as a crash does."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"--user-data-dir={folder}".encode() in line and not any(a.startswith(b"--type=") for a in line):
            os.kill(int(process.name), signal.SIGKILL)


def test_a_draft_and_an_unsent_answer_survive_crashes_of_browser_and_server(
    tmp_path: Path, page: Page, chromium: str
) -> None:
    project, folder = tmp_path / "project", tmp_path / "profile"
    store = Store(project, create=True)
    ask(store, "ranked later", "x", "y", "z")
    ask(store, "answered now", "good 1", "good 2", "bad")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    web = start_app(project, port)
    try:
        first = profile(page, chromium, folder)
        tab = first.pages[0]
        tab.goto(f"http://127.0.0.1:{port}")
        shown(tab, "answered now")
        web.kill()
        web.wait()
        for text in ("good 1", "good 2", "bad"):
            tab.keyboard.press(key_of(tab, text).lower())
        tab.keyboard.press("Enter")
        shown(tab, "ranked later")
        expect(tab.locator(".unsent")).to_have_text("1 not sent")
        tab.keyboard.press("b")
        tab.get_by_label("Why, in your words").fill("half a sentence")
        tab.wait_for_timeout(100)  # what was typed in the last moment may be lost, not more
        with first.expect_event("close"):
            kill_browser(folder)
        web = start_app(project, port)
        assert store.labels() == []
        second = profile(page, chromium, folder)
        tab = second.pages[0]
        tab.goto(f"http://127.0.0.1:{port}")
        shown(tab, "ranked later")
        until(lambda: len(store.labels()) == 1)
        assert draft(tab) == (["B"], "half a sentence")
        assert ("good 1", "better than", "bad") in preferred(store)[0]
        second.close()
    finally:
        web.terminate()
        web.wait()


# Changing what was said


def test_an_earlier_answer_is_changed_and_the_work_goes_on_where_it_was(site: Site, page: Page) -> None:
    site.store.set_settings({"criteria": "tone"})
    ask(site.store, "third", "e", "f")
    ask(site.store, "second", "c", "d")
    ask(site.store, "first", "right", "wrong")
    page.goto(site.address)
    shown(page, "first")
    page.get_by_label("Why, in your words").fill("a slip")
    page.keyboard.press("Escape")
    page.get_by_role("radio").first.check()
    page.keyboard.press(key_of(page, "wrong"))
    shown(page, "second")
    page.keyboard.press("1")
    shown(page, "third")
    until(lambda: len(site.store.labels()) == 2)
    assert [name for name, _ in site.store.labels()[0].criteria] == ["tone"]
    site.store.set_settings({"criteria": ""})  # what is asked no more is said no more, and hinders no change
    page.reload()
    shown(page, "third")
    page.keyboard.press("m")
    expect(page.get_by_role("dialog").locator("li")).to_have_count(2)
    page.get_by_role("button", name="Change the answer to: first").click()
    shown(page, "first")
    expect(page.locator(".banner")).to_contain_text("You are changing an answer")
    expect(page.get_by_label("Why, in your words")).to_have_value("a slip")
    page.keyboard.press("Escape")
    shown(page, "third")
    page.keyboard.press("m")
    page.get_by_role("button", name="Change the answer to: first").click()
    shown(page, "first")
    page.keyboard.press(key_of(page, "right"))
    shown(page, "third")
    until(lambda: len(site.store.labels(history=True)) == 3)
    assert {("right", "better than", "wrong")} in preferred(site.store)
    assert site.store.labels()[-1].criteria == ()
    assert site.store.labels()[-1].supersedes == site.store.labels(history=True)[0].client_key
    expect(page.locator(".count")).to_have_text("2 labels")


# Keys


def test_keys_are_chosen_without_conflicts_and_kept(site: Site, page: Page) -> None:
    ask(site.store, "second", "c", "d")
    ask(site.store, "first", "a", "b")
    page.goto(site.address)
    shown(page, "first")

    def choose(action: str, key: str) -> None:
        page.get_by_role("button", name=re.compile(f"^{action}: ")).click()
        page.keyboard.press(key)

    said = page.locator("dialog .note")
    page.keyboard.press("k")
    for key, complaint in (
        ("s", "S is “Skip” already"),
        ("c", "C is “Go to the criteria” already"),
        ("l", "L is “Loop the clips” already"),
    ):
        choose("Both bad", key)
        expect(said).to_contain_text(complaint)
    choose("Undo", "a")
    expect(said).to_contain_text("A chooses an answer in rankings")
    choose("Both bad", "q")
    expect(said).to_have_text("Both bad is now Q.")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.reload()
    shown(page, "first")
    expect(page.get_by_role("button", name="Both bad")).to_contain_text("Q")
    page.keyboard.press("b")
    page.wait_for_timeout(200)
    assert site.store.labels() == []
    page.keyboard.press("q")
    shown(page, "second")
    until(lambda: [label.outcome for label in site.store.labels()] == ["both_bad"])
    page.keyboard.press("k")
    page.get_by_role("button", name="All keys as they were").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Both bad")).to_contain_text("B")


# Guidance


def test_guidelines_open_once_by_themselves_and_again_by_a_key(site: Site, page: Page) -> None:
    guide = "# How to decide\n\n| good | bad |\n|---|---|\n| short | long |\n\n<img src=x onerror=alert(1)>"
    site.store.set_settings({"guidelines": guide})
    ask(site.store, "question", "a", "b")
    page.goto(site.address)
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("h1")).to_have_text("How to decide")
    expect(dialog.locator("td")).to_have_text(["short", "long"])
    assert dialog.locator("img").count() == 0
    page.wait_for_timeout(SETTLED)
    page.keyboard.press("1")  # an open dialog takes the keys
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.reload()
    shown(page, "question")
    expect(dialog).to_have_count(0)
    page.keyboard.press("t")
    expect(dialog).to_be_visible()
    assert site.store.labels() == []


def test_who_fails_the_qualifying_round_is_told(site: Site, page: Page) -> None:
    gold = [ask(site.store, f"known {n}", f"good {n}", f"bad {n}") for n in range(2)]
    ask(site.store, "real work", "x", "y")
    for slate in gold:
        site.store.add_gold(slate.id, (1, 2))
    site.store.set_settings({"qualifying": "2"})
    page.goto(site.address)
    shown(page, "known 0")
    expect(page.locator(".count")).to_have_text("Qualifying round: 0 of 2")
    page.keyboard.press(key_of(page, "good 0"))
    shown(page, "known 1")
    page.keyboard.press(key_of(page, "bad 1"))
    expect(page.get_by_text("agreed with the known ones in 50 %")).to_be_visible()
    expect(page.get_by_text("70 % were needed")).to_be_visible()
    expect(page.locator(".card")).to_have_count(0)


def test_a_rest_is_suggested_to_who_wants_that(site: Site, page: Page) -> None:
    for n in reversed(range(4)):
        ask(site.store, f"question {n}.", f"a {n}", f"b {n}")
    page.clock.install()
    page.goto(site.address)
    shown(page, "question 0.")
    page.keyboard.press("k")
    page.get_by_label("Remind me to rest").fill("3")
    page.keyboard.press("Escape")
    shown(page, "question 0.")
    page.keyboard.press("1")
    shown(page, "question 1.")
    expect(note(page)).to_be_empty()
    page.clock.fast_forward(200_000)
    page.keyboard.press("1")
    expect(note(page)).to_have_text("You have worked for 3 minutes: look up, and rest a little")


def test_who_is_revoked_is_told_why_nothing_comes_and_goes_on_when_that_is_lifted(site: Site, page: Page) -> None:
    ask(site.store, "first", "one", "two")
    ask(site.store, "second", "one", "two")
    page.goto(site.address)
    shown(page, "second")
    site.store.revoke("human:local", "a mistake", "the owner")
    page.keyboard.press("1")
    expect(note(page)).to_contain_text("An answer was not taken")
    expect(page.locator(".nothing")).to_contain_text(
        "Your labels are set aside for now: ask whoever runs this project."
    )
    page.reload()
    expect(page.locator(".nothing")).to_contain_text("set aside")
    site.store.restore("human:local")
    shown(page, "second")
    page.keyboard.press("1")
    shown(page, "first")
    until(lambda: len(site.store.labels()) == 1)
