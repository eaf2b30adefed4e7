"""The owner invites somebody, gives them another role and closes their account, all in the browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from barriers import barriers
from label_world import Site, ask, shown, until
from playwright.sync_api import Browser, Page, expect

from labeling import accounts, stored_accounts

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def quick_hashes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "LOG_N", 4)
        patch.setattr(stored_accounts, "NOBODY", accounts.hash_password(PASSWORD))
        yield


def join(page: Page, link: str, name: str) -> None:
    page.goto(link)
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Join").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def sign_in(page: Page, name: str) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def test_an_owner_invites_promotes_and_closes(site: Site, page: Page, browser: Browser) -> None:
    join(page, f"{site.address}/join#{site.store.invite('owner', 'test')}", "olga")
    page.get_by_role("link", name="People").click()
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_label("Link for a labeler")
    expect(link).to_be_visible()
    assert barriers(page) == []

    theirs = browser.new_page(color_scheme="dark")
    join(theirs, link.input_value(), "lars")
    expect(theirs.get_by_role("link", name="People")).to_have_count(0)
    theirs.goto(site.address + "/people")
    expect(theirs.get_by_text("lars is a labeler: this is not theirs to see or do.")).to_be_visible()
    assert barriers(theirs) == []

    page.reload()
    page.get_by_label("Role of lars").select_option("reviewer")
    expect(page.get_by_label("Role of lars")).to_have_value("reviewer")
    page.get_by_role("button", name="Close the account of lars").click()
    expect(page.get_by_role("button", name="Open the account of lars")).to_be_visible()
    found = {account.name: (account.role, account.closed is not None) for account in site.store.accounts()}
    assert found == {"olga": ("owner", False), "lars": ("reviewer", True)}
    theirs.goto(site.address)
    expect(theirs).to_have_url(f"{site.address}/login?next=/")
    theirs.close()

    page.get_by_label("Role of olga").select_option("labeler")
    expect(page.get_by_role("alert")).to_have_text("olga is the last owner: make another one first")
    expect(page.get_by_label("Role of olga")).to_have_value("owner")


def test_an_owner_binds_and_withdraws_invitations_and_ends_tokens_and_webhooks(site: Site, page: Page) -> None:
    join(page, f"{site.address}/join#{site.store.invite('owner', 'test')}", "olga")
    site.store.add_script("bot")
    secret = site.store.open_session("bot", "token", "length bot", 1000)
    site.store.add_webhook("https://elsewhere.example/told", "secret", ("label",))
    page.goto(f"{site.address}/people")
    invitations, tokens, webhooks = (page.locator("section").nth(n) for n in range(3))
    expect(webhooks.get_by_role("row", name="https://elsewhere.example/told label")).to_be_visible()
    expect(tokens.get_by_role("row", name="bot length bot")).to_be_visible()
    expect(invitations).to_be_hidden()
    page.get_by_label("under the name").fill("ann")
    page.get_by_role("button", name="Make a link").click()
    expect(page.get_by_text("makes one labeler named ann, within seven days.")).to_be_visible()
    expect(invitations.get_by_role("row", name="labeler ann olga")).to_be_visible()
    assert barriers(page) == []
    page.get_by_role("button", name="Withdraw the invitation of ann").click()
    page.get_by_role("button", name="End the token length bot of bot").click()
    page.get_by_role("button", name="Remove the webhook to https://elsewhere.example/told").click()
    expect(invitations).to_be_hidden()
    expect(tokens).to_be_hidden()
    expect(webhooks).to_be_hidden()
    assert site.store.webhooks() == []
    assert site.store.invitations() == []
    assert site.store.account_of(secret) is None


def test_everybody_changes_their_own_password(site: Site, page: Page) -> None:
    site.store.join(site.store.invite("owner", "test"), "olga", PASSWORD)
    join(page, f"{site.address}/join#{site.store.invite('labeler', 'test')}", "lars")
    page.get_by_role("link", name="lars").click()
    old, new = page.get_by_label("Old password"), page.get_by_label("New password")
    for tried, said in (("wrong password", "the old password is wrong"), (PASSWORD, "")):
        old.fill(tried)
        new.fill("another long one")
        page.get_by_role("button", name="Change").click()
        if said:
            expect(page.get_by_role("alert")).to_have_text(said)
            assert barriers(page) == []
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Name").fill("lars")
    page.get_by_label("Password").fill("another long one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


def ann_and_bob(site: Site, page: Page, question: str) -> Page:
    """Sign ann in, who sees this question, and then bob in another tab of the same browser; returns bob's tab."""
    for role, name in (("owner", "olga"), ("labeler", "ann"), ("labeler", "bob")):
        site.store.join(site.store.invite(role, "test"), name, PASSWORD)
    page.goto(site.address)
    sign_in(page, "ann")
    shown(page, question)
    other = page.context.new_page()
    other.goto(f"{site.address}/login")
    sign_in(other, "bob")
    return other


def test_an_answer_waits_while_another_tab_is_signed_in_as_somebody_else(site: Site, page: Page) -> None:
    for n in reversed(range(3)):
        ask(site.store, f"question {n}.", "a", "b")
    other = ann_and_bob(site, page, "question 0.")
    shown(other, "question")
    page.keyboard.press("1")
    said = "you are signed in as bob: nobody labels for somebody else, so sign in as ann again"
    expect(page.locator(".prefloop .status")).to_contain_text(said)
    expect(page.locator(".unsent")).to_have_text("1 not sent")
    assert site.store.labels() == []

    other.goto(f"{site.address}/login")
    sign_in(other, "ann")
    until(lambda: len(site.store.labels()) == 1)
    expect(page.locator(".unsent")).to_be_empty()
    expect(page.locator(".prefloop .status")).to_be_empty()
    [label] = site.store.labels(history=True)
    assert label.annotator == "human:ann"


def test_an_answer_outlives_its_page_when_somebody_else_signs_in(site: Site, page: Page) -> None:
    ask(site.store, "question", "a", "b")
    other = ann_and_bob(site, page, "question")
    page.keyboard.press("1")
    expect(page.locator(".unsent")).to_have_text("1 not sent")
    page.close()

    other.goto(f"{site.address}/login")
    sign_in(other, "ann")
    until(lambda: [label.annotator for label in site.store.labels()] == ["human:ann"])


@pytest.mark.parametrize("path", ["login", "join#secret"])
def test_a_password_never_gets_into_the_address_while_the_page_loads(site: Site, page: Page, path: str) -> None:
    page.route("**/account.js", lambda route: route.abort())
    page.goto(f"{site.address}/{path}")
    page.get_by_label("Name").fill("olga")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.get_by_role("button").click(force=True)
    page.wait_for_timeout(300)
    assert page.url == f"{site.address}/{path}"
