"""Requests that mean harm: other sites, strangers, guessed passwords, paths, SQL; to Gradio's own routes too."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from api_client import client_of, post
from fastapi import FastAPI
from fastapi.testclient import TestClient

from labeling import accounts, stored_accounts
from labeling.accounts import hash_password, wait_after
from labeling.records import Annotator, Candidate, Message, Prompt, Slate
from labeling.service import api as create_api
from labeling.service import create_app
from labeling.sign_in import COOKIE
from labeling.store import Store

PASSWORD = "correct horse battery"
ADDRESS = "http://127.0.0.1:7860"
KEYS = (f"hostile-key-{n}" for n in count())


@pytest.fixture(autouse=True, scope="module")
def quick_hashes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "LOG_N", 4)
        patch.setattr(stored_accounts, "NOBODY", hash_password(PASSWORD))
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastAPI, Store]:
    """The app with Gradio's pages, in a project without accounts."""
    store = Store(tmp_path_factory.mktemp("whole") / "project", create=True)
    return create_app(store), store


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> tuple[FastAPI, Store]:
    """The same in a project with accounts."""
    store = Store(tmp_path_factory.mktemp("guarded") / "project", create=True)
    for name, role in (("own", "owner"), ("lab", "labeler")):
        store.join(store.invite(role, "test"), name, PASSWORD)
    return create_app(store), store


def browser(app: FastAPI, secret: str | None = None) -> TestClient:
    client = TestClient(app, base_url=ADDRESS, raise_server_exceptions=False, follow_redirects=False)
    if secret:
        client.cookies.set(COOKIE, secret)
    return client


def slate(n: int) -> Slate:
    return Slate(Prompt((Message("user", f"question {n}"),)), (Candidate(f"a {n}"), Candidate(f"b {n}")))


def ranked(lease: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"client_key": next(KEYS), "slate": lease["slate"], "outcome": "ranked", "ranks": [1, 2], **more}


# Other sites

GRADIO = (
    "queue/join",
    "component_server",
    "upload",
    "run/predict",
    "api/predict",
    "call/refresh",
    "reset",
    "cancel",
)


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
@pytest.mark.parametrize("route", GRADIO)
def test_no_other_site_reaches_an_event_of_gradio(
    whole: tuple[FastAPI, Store], route: str, headers: dict[str, str]
) -> None:
    # text/plain needs no preflight, so the browser sends it without asking; the server has to refuse it.
    body = {"content": '{"data": [], "fn_index": 0, "session_hash": "x"}', "headers": {"content-type": "text/plain"}}
    body["headers"] |= headers  # type: ignore[operator]
    reply = browser(whole[0]).post(f"/gradio_api/{route}", **body)  # type: ignore[arg-type]
    assert (reply.status_code, reply.json()) == (403, {"error": "another web site may not write here"})
    assert "access-control-allow-origin" not in reply.headers


def test_gradio_still_answers_our_own_pages(whole: tuple[FastAPI, Store]) -> None:
    event = {"data": [["", "", ""]], "fn_index": 1, "session_hash": "ours", "trigger_id": 1}
    own = {"origin": ADDRESS, "sec-fetch-site": "same-origin"}
    assert "event_id" in browser(whole[0]).post("/gradio_api/queue/join", json=event, headers=own).json()


@pytest.mark.parametrize("path", ["/", "/live", "/label", "/config", "/api/task", "/prefloop/label.js", "/clips/x.mp4"])
def test_no_other_site_may_embed_or_read_anything(whole: tuple[FastAPI, Store], path: str) -> None:
    reply = browser(whole[0]).get(path, headers={"origin": "http://evil.example"})
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert "access-control-allow-origin" not in reply.headers
    assert reply.headers["x-content-type-options"] == "nosniff"


# Paths


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={project}/prefloop.sqlite",
        "/gradio_api/file=../prefloop.sqlite",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/file=http://127.0.0.1:1/x",
        "/gradio_api/proxy=http://127.0.0.1:1/x",
        "/static/%2e%2e/%2e%2e/routes.py",
        "/assets/%2e%2e/%2e%2e/%2e%2e/package.json",
        "/prefloop/..%2fstatic.py",
        "/prefloop/%2e%2e%2fstatic.py",
        "/prefloop/label.html",
        "/clips/%2e%2e%2f%2e%2e%2fprefloop.sqlite",
        "/clips//etc/passwd",
    ],
)
def test_no_path_leads_to_a_file_that_is_not_ours_to_give(whole: tuple[FastAPI, Store], path: str) -> None:
    app, store = whole
    reply = browser(app).get(path.format(project=store.project))
    assert reply.status_code in (400, 403, 404), reply.text[:200]


@pytest.mark.parametrize("who", ["stranger", "labeler"])
@pytest.mark.parametrize("before", ["/prefloop/%2e%2e", "/prefloop/..%2f", "/clips/%2e%2e", "/", "/login/.."])
def test_a_detour_does_not_lead_around_the_sign_in(guarded: tuple[FastAPI, Store], who: str, before: str) -> None:
    app, store = guarded
    secret = store.sign_in("lab", PASSWORD, "test") if who == "labeler" else None
    for path in ("/config", "/live", "/quality", "/api/people", "/gradio_api/info", "/gradio_api/queue/join"):
        reply = browser(app, secret).get(f"{ADDRESS}{before}{path}")
        assert reply.status_code in (303, 401, 403, 404), (path, reply.text[:200])


def test_the_id_of_a_session_is_no_session(guarded: tuple[FastAPI, Store]) -> None:
    app, store = guarded
    owner = browser(app, store.sign_in("own", PASSWORD, "test"))
    for token in owner.get("/api/tokens").json()["tokens"]:
        shown = token["id"]
        assert browser(app, shown).get("/api/me").status_code == 401
        assert browser(app).get("/api/me", headers={"authorization": f"Bearer {shown}"}).status_code == 401


# Other people's work


def test_nobody_answers_changes_or_takes_back_for_somebody_else(store: Store) -> None:
    client = client_of(store)
    store.add_slates([slate(n) for n in range(2)])
    given = ranked(post(client, "lease", annotator="ann")["lease"])
    post(client, "submit", **given, annotator="ann")
    post(client, "lease", annotator="eve")
    key = given["client_key"]
    assert "already used" in post(client, "submit", 409, **given, annotator="eve")["error"]
    assert "cannot be changed" in post(client, "revise", 409, **ranked(given, replaces=key), annotator="eve")["error"]
    assert "nothing to take back" in post(client, "undo", 409, client_key=next(KEYS), annotator="eve")["error"]
    assert post(client, "undo", 409, client_key=key, annotator="eve")["error"]
    assert client.get("/api/recent?annotator=eve").json() == {"answers": []}
    assert [(label.annotator, label.ranks is not None) for label in store.labels(history=True)] == [("human:ann", True)]


# Guidelines


def test_guidelines_are_a_page_for_everybody_who_labels_and_nothing_in_them_runs(store: Store) -> None:
    assert "none yet" in client_of(store).get("/guidelines").text
    store.set_settings({"guidelines": "# How\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1))"})
    store.join(store.invite("labeler", "test"), "lab", PASSWORD)
    client = client_of(store)
    assert client.get("/guidelines", follow_redirects=False).status_code == 303
    client.cookies.set(COOKIE, store.sign_in("lab", PASSWORD, "test"))
    reply = client.get("/guidelines")
    assert "<h1>How</h1>" in reply.text
    assert "<script>alert" not in reply.text
    assert '<a href="javascript' not in reply.text
    assert "script-src" not in reply.headers["content-security-policy"]  # only what default-src allows, our own files
    assert "unsafe-eval" not in reply.headers["content-security-policy"]
    store.set_settings({"guidelines": "words <b>alone</b>\nand a line"})
    assert "words &lt;b&gt;alone&lt;/b&gt;\nand a line" in client.get("/guidelines").text


# SQL

SQL = ("'; DROP TABLE label; --", '" OR 1=1 --', "x' UNION SELECT password FROM account --", "%", "{}", "?1")


@pytest.mark.parametrize("sql", SQL)
def test_sql_in_a_text_field_is_text(store: Store, sql: str) -> None:
    for name, role in (("own", "owner"), ("lab", "labeler")):
        store.join(store.invite(role, "test"), name, PASSWORD)
    store.add_annotator(Annotator("human:lab", "human"))
    store.add_slates([slate(0)])
    client = client_of(store)
    client.cookies.set(COOKIE, store.sign_in("lab", PASSWORD, "test"))
    shape = store.rows("SELECT name, sql FROM sqlite_master ORDER BY name")
    lease = post(client, "lease")["lease"]
    post(client, "submit", **ranked(lease, reason=sql))
    assert [label.reason for label in store.labels()] == [sql]

    in_path = quote(sql, "")
    refused = [
        ("lease", {"annotator": sql}),
        ("lease", {"mode": sql}),
        ("submit", ranked(lease, client_key=sql)),
        ("submit", ranked({"slate": sql})),
        ("submit", ranked(lease, flags=[sql])),
        ("submit", ranked(lease, criteria={sql: "tie"})),
        ("revise", ranked(lease, replaces=sql)),
        ("undo", {"client_key": sql}),
    ]
    for route, body in refused:
        assert client.post(f"/api/{route}", json=body).status_code == 422, (route, body)
    client.cookies.set(COOKIE, store.sign_in("own", PASSWORD, "test"))
    for route, body in [
        ("login", {"name": sql, "password": sql}),
        ("join", {"name": sql, "password": PASSWORD, "invitation": sql}),
        ("join", {"name": "new", "password": PASSWORD, "invitation": sql}),
        ("password", {"old": sql, "new": PASSWORD}),
        ("tokens", {"note": "x", "script": sql}),
        ("invites", {"role": sql}),
        ("webhooks", {"url": sql}),
        (f"people/{in_path}", {"role": "owner"}),
        (f"annotators/{in_path}/revoke", {"reason": sql}),
    ]:
        assert client.post(f"/api/{route}", json=body).status_code in (403, 404, 409, 422), (route, body)
    for path in (f"quality/{in_path}", f"progress?annotator={in_path}", f"recent?annotator={in_path}"):
        assert client.get(f"/api/{path}").status_code in (403, 404, 422), path
    assert client.delete(f"/api/tokens/{in_path}").json() == {"ended": False}
    assert post(client, "tokens", note=sql)["token"]  # a note is any text
    assert sql in [token["note"] for token in client.get("/api/tokens").json()["tokens"]]

    assert store.rows("SELECT name, sql FROM sqlite_master ORDER BY name") == shape
    assert [account.role for account in store.accounts()] == ["owner", "labeler"]
    assert len(store.labels(history=True)) == 1


# Passwords


@pytest.fixture
def guessing(guarded: tuple[FastAPI, Store], monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    """The first wait is a minute: a busy machine may need the second for a guess. All is forgotten after."""
    app, store = guarded
    monkeypatch.setattr(stored_accounts, "wait_after", lambda n, patience: min(60 * wait_after(n, patience), 60))
    yield app
    with store.writing() as db:
        db.execute("DELETE FROM failed_login")


def at(app: FastAPI, address: str) -> TestClient:
    """A browser at this address, which has not been here before."""
    return TestClient(app, base_url=ADDRESS, client=(address, 50000), raise_server_exceptions=False)


def signs_in(client: TestClient, name: str, password: str = "wrong password") -> int:
    return client.post("/api/login", json={"name": name, "password": password}).status_code


def test_guesses_over_many_names_from_one_address_wait_too(guessing: FastAPI) -> None:
    codes = [
        browser(guessing)
        .post(
            "/api/login",
            json={"name": f"name{n}", "password": "wrong password"},
            headers={"x-forwarded-for": f"10.0.0.{n}"},  # whoever asks may claim any address
        )
        .status_code
        for n in range(23)
    ]
    assert codes == [403] * 20 + [429] * 3


def test_guesses_for_one_name_from_many_addresses_wait_too(guessing: FastAPI) -> None:
    assert [signs_in(at(guessing, f"10.0.1.{n}"), "own") for n in range(23)] == [403] * 20 + [429] * 3


def test_an_office_is_not_locked_out_by_one_who_forgot_their_password(guessing: FastAPI) -> None:
    office = at(guessing, "10.1.0.1")
    assert [signs_in(office, "lab") for _ in range(7)] == [403] * 5 + [429] * 2
    assert signs_in(office, "lab", PASSWORD) == 429  # what is tried meanwhile is not looked at
    assert signs_in(at(guessing, "10.1.0.1"), "own", PASSWORD) == 200
    assert signs_in(at(guessing, "10.1.0.2"), "lab", PASSWORD) == 200  # from elsewhere the same person gets in


def test_whoever_signed_in_with_this_browser_waits_for_no_guesser(guessing: FastAPI) -> None:
    mine, guesser = at(guessing, "10.2.0.1"), at(guessing, "10.2.0.1")
    assert signs_in(mine, "lab", PASSWORD) == 200
    assert mine.post("/api/logout", json={}).status_code == 200
    while signs_in(guesser, "lab") == 403:
        pass
    for n in range(25):
        signs_in(guesser, f"name{n}")
    assert signs_in(at(guessing, "10.2.0.1"), "own", PASSWORD) == 429  # a browser that nobody knows waits along
    assert signs_in(mine, "lab", PASSWORD) == 200
    known = mine.cookies["prefloop_browser"]
    assert [signs_in(mine, "lab") for _ in range(6)] == [403] * 5 + [429]  # but it is no way to guess more
    guesser.cookies.set("prefloop_browser", known)  # and none into other accounts
    assert signs_in(guesser, "own", PASSWORD) == 429
    assert "prefloop_browser" not in browser(guessing).get("/login").request.headers.get("cookie", "")
    assert browser(guessing).get("/api/me", headers={"cookie": f"{COOKIE}={known}"}).status_code == 401


def test_a_stolen_session_is_no_way_to_guess_its_password(guessing: FastAPI) -> None:
    client = at(guessing, "10.3.0.1")
    assert signs_in(client, "lab", PASSWORD) == 200
    guess = {"old": "wrong password", "new": "another password"}
    replies = [client.post("/api/password", json=guess) for _ in range(6)]
    assert [reply.status_code for reply in replies] == [403] * 5 + [429]
    assert 0 < int(replies[-1].headers["retry-after"]) <= 60
    assert signs_in(at(guessing, "10.3.0.1"), "lab", PASSWORD) == 200


def test_waits_outlast_a_restart_and_fade(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def tries(n: int) -> list[int]:
        client = at(create_api(Store(store.project)), "10.4.0.1")  # each time as after a restart
        return [signs_in(client, "own") for _ in range(n)]

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    store.join(store.invite("owner", "test"), "own", PASSWORD)
    assert tries(6) == [403] * 5 + [429]
    assert tries(1) == [429]
    now += 2  # the second is over, and the next wait is of two
    assert tries(2) == [403, 429]
    now += 3700  # an hour, in which all six are forgotten
    assert tries(6) == [403] * 5 + [429]
    with store.writing() as db:
        db.execute("UPDATE failed_login SET count = 99")
    now += 2
    assert tries(1) == [403]
    left = {row["who"].split(":")[0]: row["until"] - now for row in store.rows("SELECT * FROM failed_login")}
    assert left == {"pair": 900, "address": 60, "name": 60}
    now -= 86400  # a clock that was wrong keeps nobody out for a day
    assert signs_in(at(create_api(store), "10.4.0.1"), "own", PASSWORD) == 200


def test_guesses_at_once_are_not_looked_at_more_often(guessing: FastAPI) -> None:
    codes: list[int] = []

    def guess() -> None:
        body = {"name": "own", "password": "wrong password"}
        codes.append(client.post("/api/login", json=body).status_code)

    with browser(guessing) as client:
        guesses = [threading.Thread(target=guess) for _ in range(30)]
        for one in guesses:
            one.start()
        for one in guesses:
            one.join()
    # Two are hashed at once, so one may be under way while the fifth fails.
    assert 5 <= codes.count(403) <= 6
    assert codes.count(403) + codes.count(429) == 30


def test_a_flood_of_guesses_leaves_room_for_answers(
    guarded: tuple[FastAPI, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, store = guarded
    secret = store.sign_in("lab", PASSWORD, "test")
    busy = threading.Event()

    def slow(*_: Any) -> bool:
        busy.wait(20)
        return False

    monkeypatch.setattr("labeling.stored_accounts.password_fits", slow)
    with browser(app) as client:  # one event loop for all requests
        body = {"name": "own", "password": "wrong password"}
        guesses = [threading.Thread(target=client.post, args=["/api/login"], kwargs={"json": body}) for _ in range(50)]
        for one in guesses:  # more than the 40 threads in which labels are written
            one.start()
        time.sleep(0.5)
        began = time.monotonic()
        reply = client.post("/api/lease", json={}, headers={"authorization": f"Bearer {secret}"})
        took = time.monotonic() - began
        busy.set()
        for one in guesses:
            one.join()
    assert reply.status_code == 200
    assert took < 5
    with store.writing() as db:
        db.execute("DELETE FROM failed_login")
