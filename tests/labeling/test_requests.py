"""What people are to answer because a judge did comes first in the ordinary queue, and looks like the rest of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from api_client import client_of, post

from labeling.records import Annotator, Candidate, HumanRequest, Label, Message, Prompt, Slate
from labeling.store import Store
from labeling.stored_requests import RequestCount

JUDGE = "judge:j"


def slate(n: int) -> Slate:
    return Slate(Prompt((Message("user", f"Question {n}?"),)), (Candidate(f"One {n}."), Candidate(f"Other {n}.")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "project", create=True)
    store.add_annotator(Annotator(JUDGE, "judge"))
    store.add_slates(slate(n) for n in range(8))
    store.add_labels(Label(slate(n).id, JUDGE, "ranked", f"j{n}", (1, 2), 0.9, reason="judged so") for n in range(7))
    return store


def work(store: Store, answers: int) -> tuple[list[str], list[dict[str, object]]]:
    """What a person is given, one after the other, and the replies as the page sees them."""
    client, given, replies = client_of(store), [], []
    reply = post(client, "lease", annotator="ann", mode="pairs")
    for n in range(answers):
        replies.append({key: value for key, value in reply.items() if key != "added"})
        given.append(reply["lease"]["slate"])
        answer = {"client_key": f"answer-{n}", "slate": given[-1], "outcome": "ranked", "ranks": [1, 2]}
        reply = post(client, "submit", annotator="ann", mode="pairs", **answer)
    return given, replies


def test_requests_come_first_in_their_places_and_nobody_sees_which_they_are(store: Store) -> None:
    audit = [HumanRequest(slate(n).id, JUDGE, "audit", place, 0.5) for n, place in ((2, 0.3), (5, 0.1), (0, 0.2))]
    doubtful = HumanRequest(slate(1).id, JUDGE, "margin", 1.5)
    again = HumanRequest(slate(5).id, JUDGE, "orders", 1.1)  # its better place counts
    assert store.request_people([doubtful, *audit, again]) == 5
    given, replies = work(store, 6)
    assert given == [slate(n).id for n in (5, 0, 2, 1, 7, 6)]  # then the newest of the rest
    assert len({(*reply, *reply["lease"], *reply["lease"]["candidates"][0]) for reply in replies}) == 1
    assert not any(word in str(replies) for word in ("judge", "audit", "margin"))
    assert {label.purpose for label in store.labels(annotator="human:ann")} == {"teach"}
    assert store.request_counts() == [
        RequestCount(JUDGE, "audit", 3, 3, 7),
        RequestCount(JUDGE, "margin", 1, 1, 7),
        RequestCount(JUDGE, "orders", 1, 1, 7),
    ]


def test_what_comes_ahead_are_requests_first_too_and_each_once(store: Store) -> None:
    store.add_annotator(Annotator("human:ann", "human"))
    store.add_slates(slate(n) for n in range(8, 60))
    store.request_people([HumanRequest(slate(n).id, JUDGE, "audit", 0.1 * n, 0.5) for n in (3, 59, 1)])
    given = [lease.slate_id for lease in store.leases("human:ann", range, (2, 2), 60.0, ahead=5)]
    assert given == [slate(n).id for n in (1, 3, 59, 58, 57, 56)]


def test_what_somebody_answered_is_not_asked_again(store: Store) -> None:
    store.add_annotator(Annotator("human:bob", "human"))
    store.add_labels([Label(slate(3).id, "human:bob", "ranked", "bob", (1, 2))])
    store.request_people([HumanRequest(slate(n).id, JUDGE, "audit", 0.1 * n, 0.5) for n in (3, 4)])
    assert work(store, 2)[0] == [slate(4).id, slate(7).id]
    assert store.request_counts() == [RequestCount(JUDGE, "audit", 2, 2, 7)]
    assert store.answered_by_people([slate(n).id for n in range(5)]) == {slate(3).id, slate(4).id}
