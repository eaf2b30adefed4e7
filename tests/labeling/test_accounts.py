"""Accounts: who gets in, who does not, and what each role reaches."""

from __future__ import annotations

import time
from itertools import count
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import app
from labeling import accounts, stored_accounts
from labeling.accounts import WITH_MANY, WITH_ONE, hash_password, network, password_fits, still_counted, wait_after
from labeling.records import Annotator, Candidate, Label, Message, Prompt, Slate, UserError
from labeling.service import api
from labeling.sign_in import COOKIE, verdict
from labeling.store import Store
from labeling.stored_accounts import NotAllowed

PASSWORD = "correct horse battery"
KEYS = (f"account-key-{n}" for n in count())


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One test looks at the real cost of a hash; the others need not wait for it."""
    monkeypatch.setattr(accounts, "LOG_N", 4)
    monkeypatch.setattr(stored_accounts, "NOBODY", hash_password(PASSWORD))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def member(store: Store, name: str, role: str) -> TestClient:
    """Somebody who joined by an invitation, with a browser of their own."""
    client = TestClient(api(store), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
    body = {"invitation": store.invite(role, "test"), "name": name, "password": PASSWORD}
    reply = client.post("/api/join", json=body)
    assert reply.status_code == 200, reply.text
    return client


@pytest.fixture
def people(store: Store) -> dict[str, TestClient]:
    return {role: member(store, f"some-{role}", role) for role in ("owner", "reviewer", "labeler")}


def add_slates(store: Store, n: int = 4) -> None:
    store.add_slates(
        Slate(Prompt((Message("user", f"q{i}"),)), (Candidate("a", "secret-model"), Candidate("b"))) for i in range(n)
    )


# Passwords and secrets


def test_a_hash_is_salted_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "LOG_N", 15)
    one, other = hash_password(PASSWORD), hash_password(PASSWORD)
    assert one != other
    assert one.startswith("scrypt$15$8$3$")
    assert PASSWORD not in one
    assert password_fits(PASSWORD, one)
    assert not password_fits(PASSWORD + " ", one)
    for broken in ("", "!", "scrypt$15$8$3$x", "scrypt$15$8$3$%%$%%", accounts.NO_PASSWORD):
        assert not password_fits(PASSWORD, broken)


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_passwords_have_a_length(password: str) -> None:
    with pytest.raises(UserError, match="10 to 1024"):
        hash_password(password)


def test_waits_double_after_some_free_tries_up_to_minutes_and_what_caused_them_fades() -> None:
    assert [wait_after(n, WITH_ONE) for n in (1, 4, 5, 6, 10)] == [0, 0, 1, 2, 32]
    assert [wait_after(n, WITH_MANY) for n in (19, 20, 25, 26)] == [0, 1, 32, 60]
    assert wait_after(10**6, WITH_ONE) == 900
    assert [still_counted(9, quiet) for quiet in (-1e6, 0, 599, 600, 3000, 1e6)] == [9, 9, 9, 8, 4, 0]


def test_a_household_is_one_address() -> None:
    assert network("10.0.0.1") == network("::ffff:10.0.0.1") == "10.0.0.1" != network("::ffff:10.0.0.2")
    assert network("2001:db8::1") == network("2001:db8::ffff:0:0:2") == "2001:db8::" != network("2001:db8:0:1::1")
    assert (network("::1"), network("fe80::1%eth0"), network("what" * 99)) == ("::", "fe80::", "what" * 16)


def test_secrets_are_not_in_the_database(store: Store, people: dict[str, TestClient]) -> None:
    token = people["owner"].post("/api/tokens", json={"note": "ci"}).json()["token"]
    secrets = [token, people["labeler"].cookies[COOKIE], store.invite("labeler", "test"), PASSWORD]
    held = b"".join(p.read_bytes() for p in store.project.glob("prefloop.sqlite*"))
    assert not [s for s in secrets if s.encode() in held]


# Joining and signing in


def test_an_invitation_is_good_once_and_for_its_time(store: Store) -> None:
    secret = store.invite("labeler", "test")
    store.join(secret, "ann", PASSWORD)
    for bad in (secret, "guess", store.invite("labeler", "test", seconds=-1)):
        with pytest.raises(NotAllowed, match="invitation was used, has expired or never was"):
            store.join(bad, "bob", PASSWORD)
    with pytest.raises(UserError, match="taken"):
        store.join(store.invite("owner", "test"), "ANN", PASSWORD)  # no twins that look alike
    with pytest.raises(UserError, match="there is no role 'god'"):
        store.invite("god", "test")


def label_as(store: Store, annotator: str) -> None:
    """One label from before, or from elsewhere."""
    store.add_annotator(Annotator(annotator, "human"))
    slate = Slate(Prompt((Message("user", annotator),)), (Candidate("a"), Candidate("b")))
    store.add_slates([slate])
    store.add_labels([Label(slate.id, annotator, "ranked", next(KEYS), (1, 2), order=(0, 1))])


@pytest.mark.parametrize("role", ["owner", "reviewer", "labeler"])
def test_nobody_joins_into_the_labels_of_somebody_else(store: Store, people: dict[str, TestClient], role: str) -> None:
    for annotator in ("human:ann@x.org", "human:local", "import:pairs"):
        label_as(store, annotator)
    store.add_annotator(Annotator("human:idle", "human"))
    secret = store.invite(role, "test")
    for name in ("ann@x.org", "Ann@X.org", "local"):
        body = {"invitation": secret, "name": name, "password": PASSWORD}
        reply = TestClient(api(store), base_url="http://127.0.0.1:7860").post("/api/join", json=body)
        assert reply.status_code == 422
        assert reply.json()["error"].startswith(f"there are labels of a {name!r} already: choose another name, or")
    assert store.join(secret, "idle", PASSWORD).name == "idle"  # the refusals did not use the invitation up
    assert store.join(store.invite(role, "test"), "pairs", PASSWORD).name == "pairs"


def test_an_invitation_for_a_name_leads_to_its_labels_and_to_nothing_else(
    store: Store, people: dict[str, TestClient]
) -> None:
    label_as(store, "human:ann")
    asked = {"role": "labeler", "name": "ann"}
    secret = people["owner"].post("/api/invites", json=asked).json()["link"].partition("#")[2]
    for name in ("bob", "ANN"):
        with pytest.raises(UserError, match="this invitation is for 'ann': join under that name"):
            store.join(secret, name, PASSWORD)
    assert store.join(secret, "ann", PASSWORD).annotator == "human:ann"
    again = people["owner"].post("/api/invites", json=asked)
    assert (again.status_code, again.json()) == (409, {"error": "the name 'ann' is taken: choose another"})


def test_an_owner_sees_and_withdraws_what_lets_others_in(store: Store, people: dict[str, TestClient]) -> None:
    owner = people["owner"]
    gone, kept = store.invite("reviewer", "test"), store.invite("labeler", "test", name="kim")
    store.invite("labeler", "test", seconds=-1)
    listed = owner.get("/api/invites").json()["invites"]
    assert [(i["role"], i["name"], i["by"]) for i in listed] == [("reviewer", "", "test"), ("labeler", "kim", "test")]
    assert gone not in str(listed)
    assert owner.delete(f"/api/invites/{listed[0]['id']}").json() == {"withdrawn": True}
    assert owner.delete(f"/api/invites/{listed[0]['id']}").json() == {"withdrawn": False}
    with pytest.raises(NotAllowed):
        store.join(gone, "eve", PASSWORD)
    store.join(kept, "kim", PASSWORD)
    assert owner.get("/api/invites").json() == {"invites": []}
    assert [account.name for account in store.accounts()][-1] == "kim"


def test_whoever_labelled_here_alone_goes_on_as_the_first_owner(store: Store) -> None:
    label_as(store, "human:ann")
    with pytest.raises(UserError, match="labels of a 'ann'"):
        store.join(store.invite("labeler", "test"), "ann", PASSWORD)
    owner = member(store, "ann", "owner")
    assert len(owner.get("/api/recent").json()["answers"]) == 1
    label_as(store, "human:bob")
    with pytest.raises(UserError, match="labels of a 'bob'"):
        store.join(store.invite("owner", "test"), "bob", PASSWORD)


ALIKE = [("éve", "ÉVE"), ("straße", "STRASSE"), ("fi", "\ufb01"), ("A1", "a\uff11")]
ALIKE += [
    ("ann", "\u0430nn"),
    ("Bob", "\u0412ob"),
    ("bob", "BO\u0412"),
    ("\u0412\u043e\u0432\u0430", "\u0432\u043e\u0432\u0430"),
]  # Cyrillic


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_names_that_look_alike_are_one(store: Store, one: str, other: str) -> None:
    store.join(store.invite("owner", "test"), one, PASSWORD)
    with pytest.raises(UserError, match="is taken: choose another"):
        store.join(store.invite("labeler", "test"), other, PASSWORD)
    with pytest.raises(UserError, match=f"{one} is a person"):
        store.add_script(other)
    store.add_script(f"{one}-bot")
    store.add_script(f"{one}-bot")
    with pytest.raises(UserError, match=f"{one}-bot is a program of nearly that name"):
        store.add_script(f"{other}-bot")


def test_a_stranger_without_an_invitation_has_nothing_hashed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(stored_accounts, "hash_password", lambda password: hashed.append(password) or "x")
    for bad in ("guess", store.invite("labeler", "test", seconds=-1)):
        with pytest.raises(NotAllowed):
            store.join(bad, "bob", PASSWORD)
    assert hashed == []
    store.join(store.invite("labeler", "test"), "bob", PASSWORD)
    assert hashed == [PASSWORD]


def test_nobody_learns_from_a_refusal_whether_a_name_exists(store: Store, people: dict[str, TestClient]) -> None:
    client = TestClient(api(store), base_url="http://127.0.0.1:7860")
    replies = [
        client.post("/api/login", json={"name": name, "password": "wrong password"})
        for name in ("some-owner", "nobody")
    ]
    assert replies[0].json() == replies[1].json()
    assert {r.status_code for r in replies} == {403}


def test_brute_force_waits_even_with_the_right_password(
    store: Store, people: dict[str, TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_accounts, "wait_after", lambda n, patience: min(60 * wait_after(n, patience), 60))
    client = TestClient(api(store), base_url="http://127.0.0.1:7860")
    for _ in range(5):
        assert client.post("/api/login", json={"name": "some-owner", "password": "wrong"}).status_code == 403
    right = {"name": "some-owner", "password": PASSWORD}
    reply = client.post("/api/login", json=right)
    assert reply.status_code == 429
    assert "try again in" in reply.json()["error"]
    with store.writing() as db:
        db.execute("UPDATE failed_login SET until = ?", [time.time() - 1])
    assert client.post("/api/login", json=right).status_code == 200


def test_the_cookie_cannot_be_read_by_scripts_or_sent_by_other_sites(store: Store) -> None:
    store.join(store.invite("owner", "test"), "ann", PASSWORD)
    for scheme, secure in (("http", False), ("https", True)):
        client = TestClient(api(store), base_url=f"{scheme}://127.0.0.1:7860")
        header = client.post("/api/login", json={"name": "ann", "password": PASSWORD}).headers["set-cookie"].lower()
        assert "httponly" in header
        assert "samesite=lax" in header
        assert ("secure" in header) == secure


# Sessions end


def test_sessions_end_by_signing_out_by_time_and_with_the_account(store: Store, people: dict[str, TestClient]) -> None:
    add_slates(store)
    labeler, owner = people["labeler"], people["owner"]
    kept = labeler.cookies[COOKIE]
    assert labeler.post("/api/logout", json={}).status_code == 200
    labeler.cookies.set(COOKIE, kept)  # a replay of the old cookie
    assert labeler.post("/api/lease", json={}).status_code == 401

    again = member(store, "second", "labeler")
    with store.writing() as db:
        db.execute("UPDATE session SET expires = ? WHERE account = 'second'", [time.time() - 1])
    assert again.post("/api/lease", json={}).status_code == 401

    third = member(store, "third", "labeler")
    assert owner.post("/api/people/third", json={"closed": True}).status_code == 200
    assert third.post("/api/lease", json={}).status_code == 401
    login = third.post("/api/login", json={"name": "third", "password": PASSWORD})
    assert login.status_code == 403


def test_a_new_password_ends_every_other_session(store: Store, people: dict[str, TestClient]) -> None:
    elsewhere = TestClient(api(store), base_url="http://127.0.0.1:7860")
    elsewhere.post("/api/login", json={"name": "some-labeler", "password": PASSWORD})
    assert elsewhere.get("/api/me").json()["name"] == "some-labeler"
    change = {"old": PASSWORD, "new": "another long one"}
    assert people["labeler"].post("/api/password", json={**change, "old": "guess"}).status_code == 403
    assert people["labeler"].post("/api/password", json=change).status_code == 200
    assert people["labeler"].get("/api/me").status_code == 200
    assert elsewhere.get("/api/me").status_code == 401


def test_the_last_owner_stays(store: Store, people: dict[str, TestClient]) -> None:
    for change in ({"closed": True}, {"role": "labeler"}):
        reply = people["owner"].post("/api/people/some-owner", json=change)
        assert reply.status_code == 409
        assert "last owner" in reply.json()["error"]
    assert [a.role for a in store.accounts() if a.name == "some-owner"] == ["owner"]


# What a role reaches


def test_without_an_account_nothing_is_reached(store: Store, people: dict[str, TestClient]) -> None:
    stranger = TestClient(api(store), base_url="http://127.0.0.1:7860", follow_redirects=False)
    paths = {route.path for route in stranger.app.routes}  # type: ignore[attr-defined]
    assert len(paths) > 15
    for path in paths | {"/", "/live", "/gradio_api/queue/join", "/gradio_api/component_server", "/clips/x.mp4"}:
        for method in ("GET", "POST", "DELETE"):
            reply = stranger.request(method, path.replace("{name}", "x").replace("{name:path}", "x"))
            if verdict(path.split("{")[0], None) == "welcome":
                assert reply.status_code != 401
            else:
                assert reply.status_code == 401 or reply.headers["location"].startswith("/login?next="), (method, path)
    forged = {"cookie": f"{COOKIE}=x", "authorization": "Bearer x"}
    assert stranger.post("/api/lease", json={}, headers=forged).status_code == 401


def test_a_labeler_reaches_labeling_and_nothing_else(people: dict[str, TestClient]) -> None:
    labeler = people["labeler"]
    for path in ("/live", "/quality", "/gradio_api/info", "/config", "/api/people", "/report"):
        reply = labeler.get(path)
        assert (reply.status_code, list(reply.json())) == (403, ["error"]), path
    page = labeler.get("/quality", headers={"accept": "text/html,*/*;q=0.8"})  # who follows a link finds the way back
    assert (page.status_code, page.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "some-labeler is a labeler: this is not theirs to see or do." in page.text
    assert '<a href="/">' in page.text
    assert "secret" not in labeler.get("/").text
    assert labeler.get("/").status_code == labeler.get("/label").status_code == 200


def test_only_owners_look_after_people(people: dict[str, TestClient]) -> None:
    for role in ("reviewer", "labeler"):
        for method, path in (
            ("GET", "/api/people"),
            ("POST", "/api/people/some-owner"),
            ("POST", "/api/invites"),
            ("GET", "/api/invites"),
            ("DELETE", "/api/invites/x"),
            ("GET", "/api/tokens"),
            ("POST", "/api/tokens"),
            ("DELETE", "/api/tokens/x"),
        ):
            assert people[role].request(method, path, json={}).status_code == 403, (role, path)
    link = people["owner"].post("/api/invites", json={"role": "reviewer"}).json()["link"]
    assert link.startswith("http://127.0.0.1:7860/join#")  # behind #: never in a log


def test_a_number_that_no_database_keeps_is_refused_in_one_line(people: dict[str, TestClient]) -> None:
    for number in ("999999999999999999999999", str(2**63), "0", "-1", "x"):
        reply = people["owner"].delete(f"/api/webhooks/{number}")
        assert (reply.status_code, list(reply.json())) == (422, ["error"]), number
        assert "hook_id" in reply.json()["error"]
    assert people["owner"].delete(f"/api/webhooks/{2**63 - 1}").json() == {"ended": False}


def test_a_label_is_of_who_signed_in_and_a_forged_name_is_refused(store: Store, people: dict[str, TestClient]) -> None:
    add_slates(store)
    forged = people["labeler"].post("/api/lease", json={"annotator": "some-owner"})
    assert forged.status_code == 403
    assert "nobody labels for somebody else" in forged.json()["error"]
    assert forged.json()["signed_in"] == "some-labeler"  # tells the page to keep an answer until its person is back
    lease = people["labeler"].post("/api/lease", json={}).json()["lease"]
    answer = {"client_key": next(KEYS), "slate": lease["slate"], "outcome": "ranked", "ranks": [1, 2]}
    stolen = people["reviewer"].post("/api/submit", json=answer)
    assert stolen.status_code == 409  # somebody else's lease
    assert people["labeler"].post("/api/submit", json=answer).json()["added"] is True
    assert [label.annotator for label in store.labels()] == ["human:some-labeler"]
    assert people["labeler"].get("/api/progress").json()["annotators"] == {"human:some-labeler": 1}


def test_a_program_labels_with_a_token_under_its_own_kind(store: Store, people: dict[str, TestClient]) -> None:
    add_slates(store)
    made = people["owner"].post("/api/tokens", json={"note": "length bot", "script": "bot"})
    program = TestClient(api(store), base_url="http://127.0.0.1:7860")
    program.headers["authorization"] = f"Bearer {made.json()['token']}"
    lease = program.post("/api/lease", json={}).json()["lease"]
    answer = {"client_key": next(KEYS), "slate": lease["slate"], "outcome": "ranked", "ranks": [2, 1]}
    assert program.post("/api/submit", json=answer).json()["added"] is True
    assert [(label.annotator, store.annotators()[label.annotator].kind) for label in store.labels()] == [
        ("script:bot", "judge")
    ]
    assert program.get("/api/people").status_code == 403
    assert "GET /api/task" in program.get("/api/docs").text
    assert "/api/task" in program.get("/api/openapi.json").json()["paths"]
    assert program.post("/api/login", json={"name": "bot", "password": "!" * 10}).status_code == 403
    clash = people["owner"].post("/api/tokens", json={"note": "x", "script": "some-labeler"})
    assert clash.status_code == 409
    (token,) = (t for t in people["owner"].get("/api/tokens").json()["tokens"] if t["account"] == "bot")
    assert (token["kind"], token["note"]) == ("token", "length bot")
    assert people["owner"].delete(f"/api/tokens/{token['id']}").json() == {"ended": True}
    assert program.post("/api/lease", json={}).status_code == 401


def test_without_accounts_the_local_person_needs_no_login(store: Store) -> None:
    client = TestClient(api(store), base_url="http://127.0.0.1:7860")
    assert client.get("/api/me").json() == {"name": None, "role": None}
    assert client.post("/api/lease", json={"annotator": "ann"}).status_code == 200
    assert client.get("/api/people").status_code == 409


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b", "'; DROP TABLE account; --", "\u202eevil", "<b>"])
def test_hostile_names_are_no_accounts(store: Store, name: str) -> None:
    with pytest.raises(UserError, match="does not fit"):
        store.join(store.invite("labeler", "test"), name, PASSWORD)
    assert stored_accounts.NotAllowed is NotAllowed
    assert store.accounts() == []


def test_who_closes_an_account_is_told_what_goes_on(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("olga", "otto"):
        store.join(store.invite("owner", "test"), name, PASSWORD)
    close = ["accounts", "--project", str(store.project), "--close", "otto"]
    app.accounts(app._parser().parse_args(close))
    assert capsys.readouterr().err == ""
    store.add_script("bot")
    store.open_session("bot", "token", "", 1000)
    store.open_session("olga", "browser", "", 1000)
    store.add_webhook("https://elsewhere.example", "secret", ("label",))
    app.accounts(app._parser().parse_args(close))
    assert capsys.readouterr().err == "these go on, until /people ends them: tokens (1), webhooks (1)\n"
