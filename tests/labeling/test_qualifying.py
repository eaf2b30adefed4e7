"""The qualifying round: known answers come first, who agrees goes on, who does not gets no more slates."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from api_client import client_of, post
from fastapi.testclient import TestClient

from labeling.qualifying import Qualifying, agreement
from labeling.records import Candidate, Message, Prompt, Slate
from labeling.service import api
from labeling.store import Store

KEYS = (f"round-key-{n}" for n in count())


def slate(name: str) -> Slate:
    return Slate(Prompt((Message("user", f"question {name}"),)), (Candidate(f"{name} good"), Candidate(f"{name} bad")))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three items with a known answer, and three without."""
    store = Store(tmp_path / "project", create=True)
    gold = [slate(f"gold {n}") for n in range(3)]
    store.add_slates([*gold, *(slate(f"new {n}") for n in range(3))])
    for item in gold:
        store.add_gold(item.id, (1, 2))
    store.set_settings({"qualifying": "2", "qualifying_share": "0.75"})
    return store


@pytest.fixture
def client(store: Store) -> TestClient:
    return client_of(store)


def answer(client: TestClient, lease: dict[str, Any], right: bool) -> dict[str, Any]:
    good_first = lease["candidates"][0]["text"].endswith("good")
    ranks = [1, 2] if good_first == right else [2, 1]
    body = {"client_key": next(KEYS), "slate": lease["slate"], "outcome": "ranked", "ranks": ranks}
    return post(client, "submit", **body)


def asked(reply: dict[str, Any]) -> list[str]:
    shown = [reply["lease"], *(reply["after"] or [None])]
    return [one["prompt"][0]["content"].split()[1] if one else "" for one in shown]


def test_agreement_counts_pairs_of_the_known_order():
    # Known 1 < 2 < 3; given 1 < 3 < 2 has two of the three pairs; a tie where there is none is not right.
    assert agreement([((1, 3, 2), (1, 2, 3))]) == pytest.approx(2 / 3)
    assert agreement([((1, 1), (1, 2)), ((1, 1), (1, 1)), (None, (1, 2)), ((2, 1), (2, 1))]) == 0.5
    assert agreement([]) == 0
    assert Qualifying(2, 2, 0.7, 0.7).failed is False
    assert Qualifying(2, 2, 0.69, 0.7).failed is True
    assert Qualifying(1, 2, 0.0, 0.7).failed is False


def test_who_agrees_goes_on(client, store):
    reply = post(client, "lease")
    assert asked(reply) == ["gold", "gold"]
    assert reply["qualifying"] == {"done": 0, "of": 2, "over": False, "failed": False}
    assert reply["waiting"] == {"pairs": 2, "rankings": 0}
    reply = answer(client, reply["lease"], right=True)
    assert asked(reply) == ["gold", ""]  # the third item would be one too many
    reply = answer(client, reply["lease"], right=True)
    assert asked(reply) == ["new", "new"]
    assert reply["qualifying"] == {"done": 2, "of": 2, "over": True, "failed": False}
    assert reply["waiting"]["pairs"] == 3


def test_who_does_not_is_told_and_gets_nothing_more(client, store):
    reply = answer(client, post(client, "lease")["lease"], right=True)
    assert "agreed" not in reply["qualifying"]  # or an item could be tried out
    last = reply["lease"]
    reply = answer(client, last, right=False)
    assert asked(reply) == ["", ""]
    assert reply["qualifying"] == {"done": 2, "of": 2, "over": True, "failed": True, "agreed": 0.5, "least": 0.75}
    assert reply["waiting"] == {"pairs": 0, "rankings": 0}
    assert asked(post(client, "lease")) == ["", ""]
    assert "its answers stand" in post(client, "undo", 403, client_key=next(KEYS))["error"]
    key = store.labels()[-1].client_key
    change = {"client_key": next(KEYS), "slate": last["slate"], "outcome": "ranked", "ranks": [1, 1], "replaces": key}
    assert "its answers stand" in post(client, "revise", 403, **change)["error"]
    assert asked(post(client, "lease", annotator="another")) == ["gold", "gold"]


def test_without_items_there_is_no_round(tmp_path):
    store = Store(tmp_path / "empty", create=True)
    store.add_slates([slate("new")])
    store.set_settings({"qualifying": "5"})
    reply = post(TestClient(api(store), base_url="http://127.0.0.1:7860"), "lease")
    assert (asked(reply), reply["qualifying"]) == (["new", ""], None)
