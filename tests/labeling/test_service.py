"""The labeling routes: one answer is one label, of exactly what was shown, whatever the client sends."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from api_client import client_of, post
from fastapi.testclient import TestClient
from service_world import KEYS, only_error, slate, submission

from labeling.assignment import display_order, ranks_of_candidates
from labeling.records import Annotator
from labeling.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


@pytest.fixture
def client(store: Store) -> TestClient:
    return client_of(store)


# The rules of assignment


def test_ranks_of_places_become_ranks_of_candidates():
    # Shown from left to right: candidates 2, 0, 1. The middle one is best, the outer ones tie.
    assert ranks_of_candidates([2, 1, 2], (2, 0, 1)) == (1, 2, 2)
    with pytest.raises(ValueError, match="zip"):
        ranks_of_candidates([1, 2], (2, 0, 1))


def test_every_order_is_shown_equally_often():
    # 6,000 draws of 6 orders: each 1,000 times, standard deviation sqrt(6000 * 1/6 * 5/6) = 29; 5 of them allowed.
    random = Random(0)
    drawn = [display_order(3, random) for _ in range(6000)]
    assert len(set(drawn)) == 6
    assert all(abs(drawn.count(order) - 1000) < 150 for order in set(drawn))


# Lease, submit, undo


@pytest.mark.parametrize("k", [2, 3, 9])
def test_an_answer_names_the_texts_that_were_on_the_screen(client, store, k):
    store.add_slates(slate(f"s{n}", k) for n in range(12))
    mode = "pairs" if k == 2 else "rankings"
    lease, orders = post(client, "lease", mode=mode)["lease"], set()
    while lease:
        best_first = sorted(range(k), key=lambda place: lease["candidates"][place]["text"], reverse=True)
        ranks = [best_first.index(place) + 1 for place in range(k)]
        lease = post(client, "submit", **submission(lease, ranks, mode=mode))["lease"]
    for labeled in store.labeled_slates():
        (label,) = labeled.labels
        # The texts of slate() sort by their candidate's number, and the highest number was preferred.
        assert label.ranks == tuple(range(k, 0, -1))
        orders.add(label.order)
    assert len(store.labels()) == 12
    assert len(orders) > 1  # the chance of one order in 12 draws of a pair is 1/2048


def test_a_lease_is_blind(client, store):
    store.add_slates([slate("a")])
    reply = post(client, "lease")
    assert "secret" not in json.dumps(reply)
    assert set(reply["lease"]) == {"slate", "prompt", "candidates"}
    assert reply["lease"]["prompt"] == [{"role": "user", "content": "question a"}]
    assert sorted((c["text"], c["finished"]) for c in reply["lease"]["candidates"]) == [("a 0", False), ("a 1", True)]


def test_the_retry_of_a_lost_reply_is_the_same_label(client, store):
    store.add_slates([slate("a"), slate("b")])
    answer = submission(post(client, "lease")["lease"], [1, 2], seconds=2.5)
    first, retry = (post(client, "submit", **answer) for _ in range(2))
    assert (first.pop("added"), retry.pop("added")) == (True, False)
    assert first == retry
    assert len(store.labels(history=True)) == 1


def test_five_answers_at_once_with_one_key_are_one_label(client, store):
    store.add_slates([slate("a"), slate("b")])
    answer = submission(post(client, "lease")["lease"], [2, 1])
    replies: list[dict[str, Any]] = []
    senders = [threading.Thread(target=lambda: replies.append(post(client, "submit", **answer))) for _ in range(5)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert sorted(reply["added"] for reply in replies) == [False] * 4 + [True]
    assert len(store.labels(history=True)) == 1


def test_what_else_an_answer_says_is_of_candidates_and_not_of_places(client, store):
    store.add_slates(slate(f"s{n}") for n in range(12))
    store.set_settings({"criteria": "tone,facts"})
    lease, orders = post(client, "lease")["lease"], set()
    while lease:
        said = {
            "strength": 0.5,
            "flags": ["unsafe", "unsafe"],
            "reason": "because",
            "criteria": {"tone": "left", "facts": "tie"},
        }
        lease = post(client, "submit", **submission(lease, [1, 2], **said))["lease"]
    for label in store.labels():
        # The left one is candidate order[0]: the first of the slate, or the second.
        assert label.criteria == (("tone", "first" if label.order == (0, 1) else "second"), ("facts", "tie"))
        assert (label.strength, label.flags, label.reason) == (0.5, ("unsafe",), "because")
        orders.add(label.order)
    assert len(orders) == 2  # both were seen, so a mapping that ignores the order fails


def test_places_left_out_of_a_ranking_are_candidates_left_out(client, store):
    store.add_slates(slate(f"s{n}", 4) for n in range(8))
    lease = post(client, "lease", mode="rankings")["lease"]
    while lease:
        # "name 3" is best, "name 2" next, and the other two were left alone.
        texts = [c["text"][-1] for c in lease["candidates"]]
        ranks = [{"3": 1, "2": 2}.get(text, 3) for text in texts]
        unranked = [place for place, text in enumerate(texts) if text in "01"]
        answer = submission(lease, ranks, mode="rankings", unranked=unranked)
        lease = post(client, "submit", **answer)["lease"]
    for labeled in store.labeled_slates():
        (label,) = labeled.labels
        assert (label.ranks, label.unranked) == ((3, 3, 2, 1), (0, 1))
        assert [(p.i, p.j, p.p) for p in labeled.preferences] == [
            (0, 2, 0),
            (0, 3, 0),
            (1, 2, 0),
            (1, 3, 0),
            (2, 3, 0),
        ]  # nothing about 0 against 1


@pytest.mark.parametrize(
    ("said", "culprit"),
    [
        ({"strength": 1.5}, "strength: Input should be less than or equal to 1 (/api/docs says"),
        ({"flags": ["whatever"]}, "flags.0: 'whatever' is none of 'unsafe' or 'broken' (/api/docs says"),
        ({"criteria": {"tone": "first"}}, "criteria.tone: 'first' is none of 'left', 'right' or 'tie' (/api/docs says"),
        ({"criteria": {"bogus": "left"}}, "criteria: there is no 'bogus': choose among tone, facts"),
        ({"reason": "x" * 10_001}, "reason: String should have at most 10000 characters (/api/docs says"),
        ({"outcome": "better"}, "outcome: 'better' is none of 'ranked', 'both_bad' or 'skip' (/api/docs says"),
        ({"outcome": "skip"}, "ranks are given exactly when the outcome is 'ranked' (/api/docs says"),
        ({"opinion": "good"}, "opinion: there is no such field here (/api/docs says"),
        ({"unranked": [7]}, "unranked names a place"),
        ({"unranked": [0]}, "unranked"),  # the best cannot be left out
    ],
)
def test_what_else_an_answer_says_is_checked(client, store, said, culprit):
    store.add_slates([slate("a")])
    store.set_settings({"criteria": "tone,facts"})
    lease = post(client, "lease")["lease"]
    error = only_error(client.post("/api/submit", json=submission(lease, [1, 2]) | said))
    assert error.startswith(culprit)
    assert store.labels() == []


def test_what_a_request_lacks_is_said_and_no_password_repeated(client, store):
    kind = {"content-type": "application/json"}
    for body, culprit in [
        (b'{"name": "ann"}', "password is missing (/api/docs says"),
        (b'{"name": "ann", "password": "' + b"x" * 1025 + b'"}', "password: String should have at most 1024"),
        (b"{", "the body is no JSON: send an object"),
        (b"", "the body is missing (/api/docs says"),
    ]:
        reply = client.post("/api/login", content=body, headers=kind)
        assert reply.status_code == 422
        assert only_error(reply).startswith(culprit)
        assert "xxx" not in reply.text


def test_two_open_pages_cannot_answer_one_lease_twice(client, store):
    store.add_slates([slate("a")])
    lease = post(client, "lease")["lease"]
    post(client, "submit", **submission(lease, [1, 2]))
    assert "answered already" in post(client, "submit", 409, **submission(lease, [2, 1]))["error"]
    assert len(store.labels(history=True)) == 1


def test_a_key_used_for_another_answer_is_a_conflict(client, store):
    store.add_slates([slate("a")])
    answer = submission(post(client, "lease")["lease"], [1, 2])
    post(client, "submit", **answer)
    assert "already used for another answer" in post(client, "submit", 409, **{**answer, "ranks": [2, 1]})["error"]


def test_what_was_never_leased_cannot_be_answered(client, store):
    store.add_slates([slate("a")])
    lease = post(client, "lease", annotator="ann")["lease"]
    for body in (submission(lease, [1, 2], annotator="eve"), submission({"slate": f"slate_{'0' * 16}"}, [1, 2])):
        assert "not open for you" in post(client, "submit", 409, **body)["error"]
    assert store.labels(history=True) == []


def test_a_late_answer_counts_although_its_lease_ran_out(client, store, monkeypatch):
    store.add_slates([slate("a")])
    monkeypatch.setattr("labeling.service.LEASE_SECONDS", -1.0)
    lease = post(client, "lease")["lease"]
    assert post(client, "submit", **submission(lease, [1, 1]))["added"]


def test_undo_gives_the_same_slate_back_in_the_same_order(client, store):
    store.add_slates([slate("a"), slate("b")])
    shown = post(client, "lease")["lease"]
    post(client, "submit", **submission(shown, [1, 2]))
    undo = {"client_key": next(KEYS)}
    replies = [post(client, "undo", **undo) for _ in range(2)]
    assert [(reply["taken_back"], reply["lease"], reply["yours"]) for reply in replies] == [
        (True, shown, 0),
        (False, shown, 0),
    ]
    assert [label.outcome for label in store.labels(history=True)] == ["ranked", "undone"]
    post(client, "submit", **submission(shown, [2, 1]))
    assert [label.ranks is not None for label in store.labels()] == [True]
    assert "nothing to take back" in post(client, "undo", 409, client_key=next(KEYS), mode="rankings")["error"]


@pytest.mark.parametrize("outcome", ["both_bad", "skip"])
def test_what_is_no_ranking_is_kept_as_what_it_is(client, store, outcome):
    store.add_slates([slate("a")])
    post(client, "submit", **{**submission(post(client, "lease")["lease"]), "outcome": outcome})
    assert [(label.outcome, label.ranks) for label in store.labels()] == [(outcome, None)]
    assert store.labeled_slates()[0].preferences == ()


def test_a_person_cannot_label_as_a_judge_nor_change_a_weight(client, store):
    store.add_slates([slate("a")])
    store.add_annotator(Annotator("criteria", "judge"))
    store.add_annotator(Annotator("human:criteria", "human", weight=0.25))
    post(
        client,
        "submit",
        **submission(post(client, "lease", annotator="criteria")["lease"], [1, 2], annotator="criteria"),
    )
    assert store.counts() == {"human:criteria": 1}
    assert store.annotators()["human:criteria"].weight == 0.25


def test_progress_counts_by_annotator(client, store):
    store.add_slates([slate("a"), slate("b"), slate("c", 4)])
    post(client, "submit", **submission(post(client, "lease", annotator="ann")["lease"], [1, 2], annotator="ann"))
    assert client.get("/api/progress?annotator=ann").json() == {
        "labels": 1,
        "annotators": {"human:ann": 1},
        "yours": 1,
        "waiting": {"pairs": 1, "rankings": 1},
    }


def test_a_heartbeat_keeps_what_a_person_holds_and_nobody_elses(client: TestClient, store: Store) -> None:
    store.add_slates([slate("a"), slate("b"), slate("c")])
    post(client, "lease", annotator="ann")
    post(client, "lease", annotator="bob")
    # Of the two that each holds, the one to answer now runs longest.
    before = {row["annotator"]: row["expires"] for row in store.rows("SELECT * FROM lease ORDER BY expires")}
    assert post(client, "heartbeat", annotator="ann") == {"held": 2}
    after = {row["annotator"]: row["expires"] for row in store.rows("SELECT * FROM lease ORDER BY expires")}
    assert after["human:ann"] > before["human:ann"]
    assert after["human:bob"] == before["human:bob"]


def test_the_api_can_be_read_by_people(store: Store) -> None:
    reply = client_of(store).get("/api/docs")
    assert "script-src" not in reply.headers["content-security-policy"]
    for words in (
        "<code>POST /api/submit</code>",
        "Answer a slate that was leased.",
        "strength: of a pair, from 0 (about",
        "<td><code>outcome</code></td><td>&quot;ranked&quot; or &quot;both_bad&quot; or &quot;skip&quot;</td>",
        "<td><code>mode</code></td><td>&quot;pairs&quot; or &quot;rankings&quot;</td><td>else pairs</td>",
        "<td><code>ranks</code></td><td>list of integer, ≥ 1, ≤ 9 or null</td><td></td>",
        "<code>POST /api/people/{name}</code>",
    ):
        assert words in reply.text, words
