"""Every fault of an endpoint, and a judging process killed at random, again and again: the books are exact."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import HERE, slate
from fault_server import FAULTS, GOOD, FaultServer

from judges.batch import label_slates
from judges.config import load_judge
from judges.verdict import FINAL_CALLS
from labeling.records import Spending
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"
ROUNDS, SLATES = 50, 100


@pytest.fixture
def server() -> Iterator[FaultServer]:
    server = FaultServer(seed=4, faulty=0.45)
    server.start()
    yield server
    server.stop()


def test_the_books_are_exact_whatever_fails_and_whenever_it_is_killed(
    server: FaultServer, judge_file: Callable[..., Path], tmp_path: Path
) -> None:
    store = Store(tmp_path / "faults", create=True)
    asked = [slate(f"Question {n}?", f"A {GOOD} answer, {n}.", f"Another answer, {n}.") for n in range(SLATES)]
    store.add_slates(asked)
    path = judge_file(server.url, concurrency=4, timeout_seconds=0.3, max_retries=2, max_tokens=8)
    judge = load_judge(path, DATA)
    killed = kill_at_random(server, store, path)
    assert killed > ROUNDS * 0.8
    assert min(server.befallen[fault] for fault in FAULTS) > 0

    server.faulty = 0.0
    assert label_slates(judge, store.slates(), store).stopped == ""

    # Each slate has one label that stands, and it is right; what it supersedes were failures.
    who = judge.annotator.id
    standing = store.labels(annotator=who)
    assert Counter(label.slate_id for label in standing) == dict.fromkeys((s.id for s in asked), 1)
    assert {(label.outcome, label.ranks) for label in standing} == {("ranked", (1, 2))}
    history = store.labels(annotator=who, history=True)
    assert {label.outcome for label in history} <= {"ranked", "endpoint_failure"}
    assert len({label.client_key for label in history}) == len(history)

    # Each question was billed once, and once more for each reply of which only half came.
    billed = Counter(question for question, _, _ in server.bills.values())
    assert len(billed) == 2 * SLATES
    assert billed == Counter(dict.fromkeys(billed, 1)) + server.halves

    # Nothing that was billed is missing from the books, and settled calls have the endpoint's own figures.
    attempts = store.judge_attempts(who)
    answered = [call for call in attempts if call.outcome in FINAL_CALLS]
    assert len(answered) == len({call.key for call in answered}) == 2 * SLATES
    figures = Counter((prompt, reply) for _, prompt, reply in server.bills.values())
    assert Counter((call.prompt_tokens, call.completion_tokens) for call in answered) <= figures
    prompt = sum(call.prompt_tokens for call in attempts)
    reply = sum(call.completion_tokens for call in attempts)
    assert prompt >= sum(bill[1] for bill in server.bills.values())
    assert store.judge_spending(who) == Spending(len(attempts), prompt, reply, 0.0)
    unsettled = [call for call in attempts if call.outcome == "unsettled"]
    assert 0 < len(unsettled) <= 4 * killed  # what was under way at each kill, and no more


def kill_at_random(server: FaultServer, store: Store, path: Path) -> int:
    """Start and kill a judging process ROUNDS times, each after a few requests and a moment; how often it was alive."""
    chance, killed = random.Random(9), 0
    command = [sys.executable, str(HERE / "judging_nursery.py"), str(store.project), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for _ in range(ROUNDS):
            until = server.requests + chance.randrange(1, 12)
            nursery.stdin.write("go\n")
            child = int(nursery.stdout.readline())
            with server.heard:
                killed += server.heard.wait_for(lambda until=until: server.requests >= until, timeout=3)
            time.sleep(chance.uniform(0, 0.02))
            with suppress(ProcessLookupError):  # it may have come to its end
                os.kill(child, signal.SIGKILL)
            assert nursery.stdout.readline() == "gone\n"
        nursery.stdin.close()
    return killed
