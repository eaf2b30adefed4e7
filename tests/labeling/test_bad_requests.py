"""Requests that are refused: what is no request, what does not fit, what comes from another web site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from api_client import client_of, post
from fastapi.testclient import TestClient
from service_world import only_error, slate, submission

from labeling.records import UserError
from labeling.service import api, create_app
from labeling.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


@pytest.fixture
def client(store: Store) -> TestClient:
    return client_of(store)


# Bad input


GOOD = {"client_key": "good-key-1", "slate": f"slate_{'0' * 16}", "outcome": "ranked", "ranks": [1, 2]}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"client_key": "short"}, "client_key"),
        ({"client_key": "key with \ud800"}, "client_key"),
        ({"slate": "slate_x'; DROP TABLE label"}, "slate"),
        ({"annotator": "judge:j"}, "annotator"),
        ({"annotator": ""}, "annotator"),
        ({"annotator": "x" * 65}, "annotator"),
        ({"annotator": "a\nb"}, "annotator"),
        ({"mode": "triples"}, "mode"),
        ({"outcome": "undone"}, "outcome"),
        ({"outcome": "skip"}, "ranks are given exactly when"),
        ({"ranks": None}, "ranks are given exactly when"),
        ({"ranks": [1, 2.5]}, "ranks.1"),
        ({"ranks": [True, 2]}, "ranks.0"),
        ({"ranks": [0, 1]}, "ranks.0"),
        ({"ranks": list(range(1, 11))}, "ranks"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"order": [0, 1]}, "order"),
        ({"supersedes": "x"}, "supersedes"),
        ({"\ud800": 1}, "unicode"),
        ({"reason": "a\0b"}, "reason: the character U+0000 cannot be kept"),  # no import would read its export
    ],
)
def test_a_bad_answer_is_refused_with_the_name_of_the_field(client, store, change, complaint):
    store.add_slates([slate("a")])
    reply = client.post(
        "/api/submit", content=json.dumps({**GOOD, **change}), headers={"content-type": "application/json"}
    )
    assert reply.status_code == 422
    assert complaint in only_error(reply)
    assert store.labels(history=True) == []


@pytest.mark.parametrize("ranks", [[1, 2, 3], [2, 3]])
def test_ranks_that_do_not_fit_the_slate_are_refused(client, store, ranks):
    store.add_slates([slate("a")])
    lease = post(client, "lease")["lease"]
    assert "ranks" in post(client, "submit", 422, **submission(lease, ranks))["error"]
    assert post(client, "submit", **submission(lease, [1, 2]))["added"]  # the lease survived it


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"\xff\xfe", b'"' * 9, b"[" * 60_000, b"9" * 6000, b'{"client_key": 1}']
)
def test_what_is_no_request_is_refused(client, body):
    for route in ("lease", "submit", "undo"):
        reply = client.post(f"/api/{route}", content=body, headers={"content-type": "application/json"})
        assert reply.status_code in (400, 422)
        assert only_error(reply)


def test_a_huge_body_is_refused_whether_it_says_its_length_or_not(client):
    for content in (b"x" * 70_000, iter([b"x" * 1000] * 70)):
        reply = client.post("/api/submit", content=content, headers={"content-type": "application/json"})
        assert (reply.status_code, only_error(reply)) == (413, "the request is longer than 64 kB")


@pytest.mark.parametrize("make", [api, create_app])
def test_unknown_routes_and_methods_answer_in_json(make, store):
    client = TestClient(make(store), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)
    for path, status, says in (
        ("/api/nothing", 404, "there is no /api/nothing: /api/docs lists what there is"),
        ("/api/", 404, "there is no /api/: /api/docs lists what there is"),
        ("/api/lease", 405, "/api/lease takes POST, not GET"),
    ):
        reply = client.get(path)
        assert (reply.status_code, only_error(reply)) == (status, says)
    assert client.get("/api/openapi.json").status_code == 200


def test_a_store_in_trouble_is_a_retry_and_not_a_crash(client, store, monkeypatch):
    def full(*_: Any) -> None:
        raise UserError("the disk is full: free some space")

    monkeypatch.setattr(store, "answer_lease", full)
    assert post(client, "submit", 503, **GOOD)["error"] == "the disk is full: free some space"


# Other web sites


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://[bad"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example:7860"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "192.168.0.2:7860"},
        {"host": ""},
        {"host": "[::1"},
    ],
)
def test_another_site_cannot_write(client, store, headers):
    store.add_slates([slate("a")])
    answer = submission(post(client, "lease")["lease"], [1, 2])
    reply = client.post("/api/submit", json=answer, headers=headers)
    assert reply.status_code == 403
    assert only_error(reply)
    assert "access-control-allow-origin" not in reply.headers
    assert store.labels(history=True) == []


def test_a_form_of_another_site_needs_no_preflight_and_is_refused_all_the_same(client, store):
    reply = client.post("/api/lease", content="{}", headers={"content-type": "text/plain"})
    assert reply.status_code == 422
    assert store.annotators() == {}


def test_a_rebound_name_cannot_even_read(client):
    assert client.get("/api/progress", headers={"host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860", "localhost"])
def test_our_own_pages_can_write(client, host):
    headers = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    reply = client.post("/api/lease", json={}, headers=headers)
    assert reply.status_code == 200
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
