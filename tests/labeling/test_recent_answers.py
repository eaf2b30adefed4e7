"""One's own last answers can be seen and changed; a change supersedes, and blindness stays."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from api_client import client_of, post
from fastapi.testclient import TestClient

from labeling.assignment import REPEAT_AFTER
from labeling.records import Candidate, Message, Prompt, Slate
from labeling.store import Store

KEYS = (f"recent-key-{n}" for n in count())


def slate(name: str, k: int = 2) -> Slate:
    texts = tuple(Candidate(f"{name} {n}", f"secret-{n}") for n in range(k))
    return Slate(Prompt((Message("user", f"question {name}"),)), texts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


@pytest.fixture
def client(store: Store) -> TestClient:
    return client_of(store)


def answered(client: TestClient, **said: Any) -> dict[str, Any]:
    """Answer what is leased; returns what was sent."""
    mode = said.get("mode", "pairs")
    lease = post(client, "lease", mode=mode)["lease"]
    body = {"client_key": next(KEYS), "slate": lease["slate"], "outcome": "ranked", "ranks": [1, 2], **said}
    post(client, "submit", **body)
    return body


def recent(client: TestClient, who: str = "local") -> list[dict[str, Any]]:
    return client.get(f"/api/recent?annotator={who}").json()["answers"]


def test_an_answer_comes_back_as_it_was_given(client, store):
    store.add_slates(slate(f"s{n}") for n in range(8))
    store.set_settings({"criteria": "tone,facts"})
    said = {"strength": 1.0, "reason": "why", "flags": ["unsafe"], "criteria": {"tone": "left", "facts": "tie"}}
    for ranks in ([1, 2], [2, 1]) * 4:
        body = answered(client, ranks=ranks, **said)
        newest = recent(client)[0]
        assert newest["client_key"] == body["client_key"]
        assert newest["answer"] == {"outcome": "ranked", "ranks": ranks, "unranked": [], **said}
    assert len({label.order for label in store.labels()}) == 2  # both orders were seen, so one that is ignored fails
    assert "secret" not in json.dumps(recent(client))


def test_places_of_a_ranking_come_back_as_places(client, store):
    store.add_slates(slate(f"s{n}", 4) for n in range(8))
    for _ in range(8):
        answered(client, mode="rankings", ranks=[3, 1, 3, 2], unranked=[0, 2])
        assert recent(client)[0]["answer"]["ranks"] == [3, 1, 3, 2]
        assert recent(client)[0]["answer"]["unranked"] == [0, 2]
    assert len({label.order for label in store.labels()}) > 1


def test_a_change_supersedes_and_a_retry_of_it_is_the_same(client, store):
    store.add_slates([slate("a"), slate("b")])
    first = answered(client)
    change = {**first, "client_key": next(KEYS), "replaces": first["client_key"], "ranks": [2, 1]}
    assert [post(client, "revise", **change)["added"] for _ in range(2)] == [True, False]
    (old, new) = store.labels(history=True)
    assert (new.supersedes, new.order, new.ranks) == (old.client_key, old.order, old.ranks[::-1])
    assert [label.client_key for label in store.labels()] == [change["client_key"]]
    again = {**change, "client_key": next(KEYS)}
    assert "cannot be changed any more" in post(client, "revise", 409, **again)["error"]
    assert post(client, "lease")["lease"]["slate"] != first["slate"]


def test_only_ones_own_last_answers_about_that_slate_can_be_changed(client, store):
    store.add_slates(slate(f"s{n}") for n in range(REPEAT_AFTER + 2))
    bodies = [answered(client) for _ in range(REPEAT_AFTER + 1)]
    assert [a["client_key"] for a in recent(client)] == [b["client_key"] for b in reversed(bodies[1:])]
    assert recent(client, "eve") == []
    for of, more in ((bodies[0], {}), (bodies[-1], {"annotator": "eve"}), (bodies[-1], {"slate": bodies[1]["slate"]})):
        change = {**of, "client_key": next(KEYS), "replaces": of["client_key"], "ranks": [2, 1], **more}
        assert post(client, "revise", 409, **change)["error"]
    assert len(store.labels(history=True)) == REPEAT_AFTER + 1


def test_a_slate_and_its_repeat_are_never_both_there(client, store):
    store.add_slates(slate(f"s{n}") for n in range(60))
    store.set_settings({"repeat_rate": "0.5"})
    repeats = 0
    for _ in range(60):
        answered(client)
        slates = [answer["slate"] for answer in recent(client)]
        assert len(slates) == len(set(slates))
        repeats = len(store.labels(history=True)) - len(store.labels())
    assert repeats > 5


def test_a_change_of_a_repeat_stays_a_repeat(client, store):
    store.add_slates(slate(f"s{n}") for n in range(40))
    store.set_settings({"repeat_rate": "0.5"})
    while len(store.labels(history=True)) == len(store.labels()):
        body = answered(client)
    post(client, "revise", **{**body, "client_key": next(KEYS), "replaces": body["client_key"], "ranks": [2, 1]})
    assert store.labels(history=True)[-1].purpose == "repeat"


def test_the_task_says_what_is_asked(client, store):
    assert client.get("/api/task").json() == {"strength": False, "criteria": [], "guidelines": None}
    guide = "# Be kind\n\n<script>1</script>"
    store.set_settings({"strength": "yes", "criteria": "tone, facts", "guidelines": guide})
    task = client.get("/api/task").json()
    assert (task["strength"], task["criteria"]) == (True, ["tone", "facts"])
    assert "<h1>Be kind</h1>" in task["guidelines"]["html"]
    assert "<script>" not in task["guidelines"]["html"]


def test_whoever_is_revoked_does_not_learn_which_answers_were_repeats(client, store):
    store.add_slates(slate(f"s{n}") for n in range(30))
    store.set_settings({"repeat_rate": "0.5"})
    for _ in range(30):
        answered(client)
    before, counted = recent(client), store.counts()
    assert len(store.labels(history=True)) - len(store.labels()) > 2
    store.revoke("human:local", "at random", "owner")
    assert recent(client) == []
    assert store.counts() == {}
    assert store.quality().annotators[0].first_place.whole == 0  # as of all that stands, and not of repeats alone
    store.restore("human:local")
    assert (recent(client), store.counts()) == (before, counted)
