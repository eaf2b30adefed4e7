"""A run's figures as a file: numbers alone, one a row, each iteration once; for owners and reviewers."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from api_client import client_of

from labeling.store import RunEvent, Store


def test_every_number_of_a_run_is_in_its_file(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    for iteration, kind, data in [
        (0, "evaluation", {"gold": 0.25, "samples": [{"text": "=1+1"}], "gold_low": None}),
        (1, "fit", {"heldout_accuracy": 0.5, "model": "a name", "frozen": True, "loss": float("inf")}),
        (1, "update", {"kl": 0.1}),
        (1, "update", {"kl": 0.2}),  # done again after a resume
    ]:
        store.add_event(RunEvent("one", iteration, kind, data))
    store.add_event(RunEvent("other", 1, "update", {"kl": 9.0}))
    reply = client_of(store).get("/api/runs/one/csv")
    assert reply.headers["content-type"].startswith("text/csv")
    assert list(csv.reader(reply.text.splitlines())) == [
        ["iteration", "phase", "figure", "value"],
        ["0", "evaluation", "gold", "0.25"],
        ["1", "fit", "heldout_accuracy", "0.5"],
        ["1", "update", "kl", "0.2"],
    ]


@pytest.mark.parametrize("path", ["/api/runs/two/csv", "/api/runs/%2e%2e%2fone/csv"])
def test_an_unknown_run_is_named_with_those_that_there_are(path: str, tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.add_event(RunEvent("one", 1, "update", {"kl": 0.2}))
    assert client_of(store).get(path).status_code == 404


def test_a_labeler_does_not_get_it(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.add_event(RunEvent("one", 1, "update", {"kl": 0.2}))
    client = client_of(store)
    for role, status in (("owner", 200), ("reviewer", 200), ("labeler", 403)):
        store.join(store.invite(role, "local"), role, "not a secret at all")  # type: ignore[arg-type]
        token = store.open_session(role, "token", "test", 60)
        assert client.get("/api/runs/one/csv", headers={"Authorization": f"Bearer {token}"}).status_code == status
