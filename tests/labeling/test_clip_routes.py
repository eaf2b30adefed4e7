"""Clips over HTTP: only clips, whole or in part, blind; and the slate after the current one is really held."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from labeling.clips import UnknownClip
from labeling.records import Candidate, Lineage, Message, Prompt, Slate, UserError
from labeling.service import api
from labeling.store import Store

KEYS = (f"test-key-{n}" for n in count())
MOVIE = bytes(range(256)) * 4


class Shelf:
    """Files in a folder as clips; it notes what was asked, and one clip cannot be made."""

    broken = f"clip_{'b' * 16}"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.prepared: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def video(self, clip_id: str) -> Path:
        self.asked.append(clip_id)
        self.free.wait(10)
        if clip_id == self.broken:
            raise UserError(f"{clip_id} was not made: the process that draws clips\ncrashed")
        path = self.folder / f"{clip_id}.mp4"
        if not path.exists():
            raise UnknownClip(f"there is no clip {clip_id!r} in this project")
        return path

    def prepare(self, clip_ids: Sequence[str]) -> None:
        self.prepared.append(list(clip_ids))


def clip(n: int) -> str:
    return f"clip_{n:016x}"


def clip_slate(n: int, k: int = 2) -> Slate:
    """The clips 10 n, 10 n + 1, …"""
    shown = [Candidate(f"secret-description {m}", f"secret-policy-{m}", clip=clip(10 * n + m)) for m in range(k)]
    prompt = Prompt((Message("system", '{"environment": "secret-world"}'), Message("user", f"Which hops? {n}")))
    return Slate(prompt, tuple(shown), Lineage("secret-run", 1, "secret-selector", 0.5, "secret-rm", (0.5,) * k))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    (tmp_path / "secret.mp4").write_bytes(b"not a clip")
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / f"{clip(1)}.mp4").write_bytes(MOVIE)
    return Shelf(folder)


def client_of(store: Store, clips: Shelf | None) -> TestClient:
    return TestClient(api(store, clips), base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


@pytest.fixture
def client(store: Store, shelf: Shelf) -> TestClient:
    return client_of(store, shelf)


def post(client: TestClient, route: str, **body: Any) -> dict[str, Any]:
    reply = client.post(f"/api/{route}", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def answer(client: TestClient, held: dict[str, Any], **more: Any) -> dict[str, Any]:
    ranks = list(range(1, len(held["candidates"]) + 1))
    return post(client, "submit", client_key=next(KEYS), slate=held["slate"], outcome="ranked", ranks=ranks, **more)


def error_of(reply: Any) -> str:
    assert list(reply.json()) == ["error"]
    assert "\n" not in reply.json()["error"]
    return reply.json()["error"]


def ids(reply: dict[str, Any]) -> tuple[str | None, str | None]:
    """The slates of a reply: the current one and the next one."""
    return tuple(held and held["slate"] for held in (reply["lease"], after(reply)))  # type: ignore[return-value]


def after(reply: dict[str, Any]) -> dict[str, Any] | None:
    """The slate after the current one."""
    return next(iter(reply["after"]), None)


# The files


def test_a_clip_is_served_whole_and_may_be_kept_for_ever(client):
    reply = client.get(f"/clips/{clip(1)}.mp4")
    assert (reply.status_code, reply.content, reply.headers["content-type"]) == (200, MOVIE, "video/mp4")
    assert reply.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert reply.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(("asked", "first", "last"), [("0-99", 0, 99), ("1000-", 1000, 1023), ("-24", 1000, 1023)])
def test_a_part_of_a_clip_is_served_as_that_part(client, asked, first, last):
    reply = client.get(f"/clips/{clip(1)}.mp4", headers={"range": f"bytes={asked}"})
    assert (reply.status_code, reply.content) == (206, MOVIE[first : last + 1])
    assert reply.headers["content-range"] == f"bytes {first}-{last}/1024"


def test_a_part_beyond_the_end_is_refused(client):
    assert client.get(f"/clips/{clip(1)}.mp4", headers={"range": "bytes=5000-"}).status_code == 416


@pytest.mark.parametrize(
    "name",
    [
        "%2e%2e/secret.mp4",
        "..%2fsecret.mp4",
        "%2e%2e%2fsecret.mp4",
        "....//secret.mp4",
        f"{clip(1)}%2f..%2f..%2fsecret.mp4",
        f"{clip(1)}",
        f"{clip(1)}.mp4.mp4",
        f"{clip(1)}%00.mp4",
        f"{clip(1)}%0a.mp4",
        f"{clip(1).upper()}.mp4",
        "clip_１１１１１１１１１１１１１１１１.mp4",
        "%ff.mp4",
        ".mp4",
        "x" * 5000 + ".mp4",
    ],
)
def test_what_is_no_clip_id_never_becomes_a_path(client, shelf, name):
    reply = client.get(f"/clips/{name}")
    assert reply.status_code == 404
    assert error_of(reply)
    assert shelf.asked == []


def test_an_unknown_clip_and_a_project_without_clips_are_404(client, store):
    for where in (client, client_of(store, None)):
        reply = where.get(f"/clips/{clip(2)}.mp4")
        assert reply.status_code == 404
        assert clip(2) in error_of(reply)
        assert "cache-control" not in reply.headers


def test_a_clip_that_cannot_be_made_says_why_in_one_line(client, shelf):
    reply = client.get(f"/clips/{shelf.broken}.mp4")
    assert reply.status_code == 503
    assert error_of(reply) == f"{shelf.broken} was not made: the process that draws clips crashed"


def test_labels_go_on_while_more_people_wait_for_clips_than_there_are_threads(client, store, shelf):
    store.add_slates([clip_slate(n) for n in range(3)])
    shelf.free.clear()
    with client:  # one event loop for all requests
        got: list[int] = []
        waiters = [
            threading.Thread(target=lambda: got.append(client.get(f"/clips/{clip(1)}.mp4").status_code))
            for _ in range(50)  # more than the 40 threads of Starlette, in which labels are written
        ]
        for waiter in waiters:
            waiter.start()
        while len(shelf.asked) < 16:
            time.sleep(0.01)
        start = time.monotonic()
        answer(client, post(client, "lease")["lease"])
        assert time.monotonic() - start < 3
        assert got == []
        shelf.free.set()
        for waiter in waiters:
            waiter.join()
    assert got == [200] * 50


# What a person may see


@pytest.mark.parametrize("k", [2, 4])
def test_a_clip_slate_is_blind(client, store, k):
    store.add_slates([clip_slate(0, k), clip_slate(1, k)])
    mode = "pairs" if k == 2 else "rankings"
    undone = {"client_key": next(KEYS), "mode": mode}
    first = post(client, "lease", mode=mode)
    replies = [first, answer(client, first["lease"], mode=mode), post(client, "undo", **undone)]
    assert "secret" not in json.dumps(replies)
    for held in (first["lease"], after(first)):
        assert set(held) == {"slate", "prompt", "candidates"}
        assert [message["role"] for message in held["prompt"]] == ["user"]
        assert [set(candidate) for candidate in held["candidates"]] == [{"clip"}] * k
    assert sorted(c["clip"] for c in first["lease"]["candidates"]) == [f"/clips/{clip(10 + n)}.mp4" for n in range(k)]


def test_clips_are_made_ahead_in_the_order_in_which_they_are_seen(client, store, shelf):
    store.add_slates([clip_slate(n) for n in range(3)])
    first = post(client, "lease")
    second = answer(client, first["lease"])
    last = answer(client, answer(client, second["lease"])["lease"])
    shown = [c["clip"] for reply in (first, second) for held in ids_in(reply) for c in held["candidates"]]
    asked = [f"/clips/{clip_id}.mp4" for prepared in shelf.prepared for clip_id in prepared]
    assert [len(prepared) for prepared in shelf.prepared] == [4, 4, 2]  # nothing is prepared when all is done
    assert asked[:8] == shown
    assert ids(last) == (None, None)


def ids_in(reply: dict[str, Any]) -> list[dict[str, Any]]:
    return [held for held in (reply["lease"], after(reply)) if held]


def test_texts_need_no_clips(client, store, shelf):
    store.add_slates([Slate(Prompt((Message("user", "why"),)), (Candidate("a"), Candidate("b")))])
    assert post(client, "lease")["lease"]["candidates"][0].keys() == {"text", "finished"}
    assert shelf.prepared == []


# The slate after the current one


def test_the_next_slate_comes_as_it_was_announced(client, store):
    store.add_slates([clip_slate(n) for n in range(5)])
    reply, seen = post(client, "lease"), 0
    while reply["lease"]:
        announced = after(reply)
        store.add_slates([clip_slate(100 + seen)] if seen < 2 else [])  # newer ones come after what was announced
        assert after(post(client, "lease")) == announced
        reply = answer(client, reply["lease"])
        assert reply["lease"] == announced
        seen += 1
    assert seen == 7


def test_two_people_who_race_are_never_promised_the_same_slate(client, store):
    store.add_slates([clip_slate(n) for n in range(12)])
    answered: dict[str, list[str]] = {"ann": [], "bob": []}

    def work(name: str) -> None:
        reply = post(client, "lease", annotator=name)
        while reply["lease"]:
            assert reply["lease"] != after(reply)
            answered[name].append(reply["lease"]["slate"])
            promised = after(reply)
            reply = answer(client, reply["lease"], annotator=name)
            assert reply["lease"] == promised or promised is None

    people = [threading.Thread(target=work, args=(name,)) for name in answered]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert sorted(answered["ann"] + answered["bob"]) == sorted(s.id for s in store.slates())
    assert len(store.labels(history=True)) == 12


def test_what_is_announced_to_one_person_is_held_for_them(client, store):
    store.add_slates([clip_slate(n) for n in range(3)])
    ann, bob = post(client, "lease", annotator="ann"), post(client, "lease", annotator="bob")
    assert ids(ann) == (clip_slate(2).id, clip_slate(1).id)
    assert ids(bob) == (clip_slate(0).id, None)
    assert (ann["waiting"]["pairs"], bob["waiting"]["pairs"]) == (3, 1)
    assert ids(post(client, "lease", annotator="eve")) == (None, None)


def test_undo_puts_the_slate_taken_back_before_all_others(client, store):
    store.add_slates([clip_slate(n) for n in range(5)])
    replies = [post(client, "lease")]
    for _ in range(2):
        replies.append(answer(client, replies[-1]["lease"]))
    order = [reply["lease"] for reply in replies] + [after(replies[-1])]
    for back in (1, 0):
        undone = post(client, "undo", client_key=next(KEYS))
        assert (undone["lease"], after(undone)) == (order[back], order[back + 1])
    reply = undone
    for held in order:
        assert reply["lease"] == held
        reply = answer(client, reply["lease"])


def test_what_was_announced_and_ran_out_goes_to_others(client, store, monkeypatch):
    store.add_slates([clip_slate(n) for n in range(2)])
    monkeypatch.setattr("labeling.service.LEASE_SECONDS", 0.2)
    ann = post(client, "lease", annotator="ann")
    assert ids(post(client, "lease", annotator="bob")) == (None, None)
    time.sleep(0.25)
    bob = post(client, "lease", annotator="bob")
    assert ids(bob) == ids(ann)
    assert answer(client, after(ann), annotator="ann")["added"]  # a late answer counts all the same


def test_pairs_and_rankings_have_their_own_next(client, store):
    store.add_slates([clip_slate(0), clip_slate(1, 3), clip_slate(2), clip_slate(3, 3)])
    pairs, rankings = post(client, "lease"), post(client, "lease", mode="rankings")
    assert ids(pairs) == (clip_slate(2).id, clip_slate(0).id)
    assert ids(rankings) == (clip_slate(3, 3).id, clip_slate(1, 3).id)
    assert post(client, "lease") == pairs
