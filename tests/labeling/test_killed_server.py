"""The server is killed again and again under load: what was acknowledged is there once, and no slate went to too many.

The servers are real processes with the real routes, killed by SIGKILL; they are forked from a process that has the
modules loaded, so that each of them takes a second. The clients do what the page does: repeat a request, with its key,
until an answer comes.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from labeling.records import Candidate, Message, Prompt, Slate
from labeling.store import Store

PEOPLE = 8
SLATES = 3000


def serve_routes(project: str, port: int) -> None:
    """One server: the labeling routes on a port that the next one may take over at once."""
    import uvicorn

    from labeling.service import api

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    config = uvicorn.Config(api(Store(project)), log_level="error")
    uvicorn.Server(config).run(sockets=[listener])


def ask(port: int, route: str, body: dict[str, Any], stopped: threading.Event) -> dict[str, Any] | None:
    """POST until an answer comes; None once the test is over."""
    while not stopped.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("POST", f"/api/{route}", json.dumps(body), {"content-type": "application/json"})
            reply = connection.getresponse()
            data = json.loads(reply.read())
            assert reply.status < 500, data
            return {**data, "status": reply.status}
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(0.01)
        finally:
            connection.close()
    return None


def label_on(port: int, name: str, stopped: threading.Event, acknowledged: list[str], faults: list[str]) -> None:
    """One person: lease, answer, and sometimes answer twice, until the test is over."""
    chance, keys = random.Random(name), count()
    reply = ask(port, "lease", {"annotator": name}, stopped)
    while reply is not None and not stopped.is_set():
        lease = reply.get("lease")
        if reply["status"] != 200 or lease is None:
            faults.append(f"{name}: {reply}")
            return
        key = f"{name}-key-{next(keys):06d}"
        answer = {"annotator": name, "client_key": key, "slate": lease["slate"], "outcome": "ranked", "ranks": [1, 2]}
        reply = ask(port, "submit", answer, stopped)
        if reply is not None:
            acknowledged.append(key)
            if chance.random() < 0.2:
                ask(port, "submit", answer, stopped)  # a second click


@pytest.mark.parametrize("kills", [12, pytest.param(60, marks=pytest.mark.long)])
def test_what_was_acknowledged_survives_each_kill(tmp_path: Path, kills: int) -> None:
    store = Store(tmp_path, create=True)
    store.add_slates(
        Slate(Prompt((Message("user", f"question {n}"),)), (Candidate("a"), Candidate("b"))) for n in range(SLATES)
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["labeling.service"])
    stopped, faults = threading.Event(), []
    acknowledged: list[list[str]] = [[] for _ in range(PEOPLE)]
    people = [
        threading.Thread(target=label_on, args=(port, f"person{n}", stopped, acknowledged[n], faults))
        for n in range(PEOPLE)
    ]
    for person in people:
        person.start()
    chance, survived = random.Random(0), []
    for _ in range(kills):
        before = sum(map(len, acknowledged))
        server = context.Process(target=serve_routes, args=(str(tmp_path), port), daemon=True)
        server.start()
        deadline = time.monotonic() + 30
        while sum(map(len, acknowledged)) == before and time.monotonic() < deadline:
            time.sleep(0.005)  # it serves
        time.sleep(chance.uniform(0, 0.1))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        server.join()
        survived.append(sum(map(len, acknowledged)) - before)
    last = context.Process(target=serve_routes, args=(str(tmp_path), port), daemon=True)
    last.start()
    time.sleep(1)
    stopped.set()
    for person in people:
        person.join(30)
    last.kill()
    last.join()

    assert faults == []
    assert min(survived) > 0  # each server was killed in the middle of its work
    keys = [key for mine in acknowledged for key in mine]
    labels = store.labels(history=True)
    stored = Counter(label.client_key for label in labels)
    assert [key for key in keys if stored[key] != 1] == []
    # What nobody was told of may be there too, but no more than one answer of each person was under way.
    assert len(labels) <= len(keys) + PEOPLE
    assert max(Counter(label.slate_id for label in labels).values()) == 1  # one person for each slate
    held = store.rows("SELECT slate_id, count(*) AS n FROM lease WHERE expires > ? GROUP BY slate_id", [time.time()])
    answered = {label.slate_id for label in labels}
    assert [row for row in held if row["n"] > 1 or row["slate_id"] in answered] == []
