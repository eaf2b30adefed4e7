"""Judging by the Batch API: files there and back, half the price, and a process that dies with a batch on its way."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from batch_server import BatchServer
from conftest import HERE

from judges import batch_api, batch_run
from judges.batch import label_slates
from judges.batch_api import BatchApi
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from labeling.records import Spending, UserError
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"


def prefers_doors(body: dict[str, Any]) -> str:
    return "[[B]]" if "door" in body["messages"][-1]["content"].partition("<answer_B>")[2] else "[[A]]"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BatchServer]:
    monkeypatch.setattr(batch_api, "FIRST_POLL", 0.01)
    server = BatchServer(prefers_doors)
    server.start()
    yield server
    server.stop()


def batch_judge(path: Path) -> EndpointJudge:
    judge = load_judge(path, DATA)
    assert isinstance(judge, EndpointJudge)
    return replace(judge, batch=BatchApi(judge.endpoint, judge.file))


def priced(path: Path, more: str = "") -> Path:
    path.write_text(path.read_text() + f"[price]\nprompt = 1000\ncompletion = 2000\n{more}")
    return path


def test_a_batch_there_and_back(server: BatchServer, judge_file: Callable[..., Path], store: Store) -> None:
    server.garble = True
    judge = batch_judge(priced(judge_file(server.url)))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert {label.ranks for label in store.labels()} == {(1, 2)}
    assert server.chats == 0
    assert len(server.batches) == 1
    assert len(server.billed) == 12
    # 100 and 4 tokens at $1000 and $2000 a million, at half the price: $0.054 a call
    assert store.judge_spending(judge.annotator.id) == Spending(12, 1200, 48, pytest.approx(12 * 0.054))
    assert label_slates(judge, store.slates(), store).outcomes == {}
    assert len(server.batches) == 1


@pytest.mark.parametrize("fault", ["broken", "lost"])
def test_what_fails_in_a_batch_is_asked_again_by_the_next_run(
    fault: str, server: BatchServer, judge_file: Callable[..., Path], store: Store
) -> None:
    setattr(server, fault, 0.4)
    judge = batch_judge(judge_file(server.url))
    first = label_slates(judge, store.slates(), store).outcomes
    assert first["endpoint_failure"] > 0
    assert first.total() == 6
    answered = len(server.billed)
    assert 0 < answered < 12
    assert store.judge_spending(judge.annotator.id) == Spending(12, 100 * answered, 4 * answered, 0.0)
    reasons = {label.reason for label in store.labels() if label.reason}
    assert reasons <= {
        "in the batch: “could not be executed before the window closed”",
        'in the batch: “{"error": {"message": "the model is overloaded"}}”',
    }
    setattr(server, fault, 0.0)
    assert label_slates(judge, store.slates(), store).outcomes == {"label": first["endpoint_failure"]}
    assert Counter(server.billed) == dict.fromkeys(server.billed, 1)
    assert len(server.billed) == 12


def test_a_budget_makes_a_smaller_batch(server: BatchServer, judge_file: Callable[..., Path], store: Store) -> None:
    judge = batch_judge(priced(judge_file(server.url), "[budget]\ncalls = 5\n"))
    judged = label_slates(judge, store.slates(), store)
    assert judged.outcomes == {"label": 2}
    assert "5 of 5 calls" in judged.stopped
    assert len(server.billed) == 5


def test_large_submissions_are_split(
    server: BatchServer, judge_file: Callable[..., Path], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "MOST_REQUESTS", 5)
    judge = batch_judge(judge_file(server.url))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert [server.files[b["input_file_id"]].count(b"\n") for b in server.batches.values()] == [5, 5, 2]


def test_a_killed_process_leaves_a_batch_that_the_next_one_collects(
    server: BatchServer, judge_file: Callable[..., Path], store: Store
) -> None:
    server.polls = 10_000  # it does not end while the first process lives
    path = judge_file(server.url)
    judge = batch_judge(path)
    command = [sys.executable, str(HERE / "judging_process.py"), str(store.project), str(path), "batch"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(HERE.parents[1])}) as process:
        assert server.created.wait(30)
        process.send_signal(signal.SIGKILL)
    for _ in range(3):  # others' batches, on earlier pages of the list
        server.create(
            {"completion_window": "24h", "input_file_id": "file-0", "endpoint": "/v1/other", "metadata": None}
        )
    with pytest.raises(UserError, match="12 calls stand in a batch that was submitted: collect it with --batch-api"):
        label_slates(replace(judge, batch=None), store.slates(), store)
    server.polls = 1
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert Counter(server.billed) == dict.fromkeys(server.billed, 1)
    assert len(server.billed) == len(store.judge_attempts(judge.annotator.id)) == 12


def test_a_submission_of_which_no_batch_was_made_is_released_and_asked_again(
    server: BatchServer, judge_file: Callable[..., Path], store: Store
) -> None:
    judge = batch_judge(judge_file(server.url))
    server.refuse_batches = True
    with pytest.raises(
        UserError, match=r"failed at its Batch API .*batches are not offered here.*leave out --batch-api"
    ):
        label_slates(judge, store.slates(), store)
    assert len(store.unsettled_calls(judge.annotator.id)) == 12
    assert server.creations == 1  # a refusal is final
    server.refuse_batches = False
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert store.judge_spending(judge.annotator.id) == Spending(24, 1200, 48, 0.0)


def test_a_batch_whose_making_was_not_heard_of_is_found_and_not_made_twice(
    server: BatchServer, judge_file: Callable[..., Path], store: Store
) -> None:
    server.creations_lost = 1
    judge = batch_judge(judge_file(server.url))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert len(server.batches) == server.creations == 1
    assert len(server.billed) == 12


def test_a_batch_that_was_not_made_is_asked_for_again_a_few_times(
    server: BatchServer, judge_file: Callable[..., Path], store: Store
) -> None:
    server.creations_failed = 2
    judge = batch_judge(judge_file(server.url))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert (len(server.batches), server.creations) == (1, 3)
    server.creations_failed = 100
    with pytest.raises(UserError, match=r"failed at its Batch API .*not now"):
        label_slates(replace(judge, annotator=replace(judge.annotator, id="judge:other")), store.slates(), store)
    assert server.creations == 3 + batch_api.CREATIONS


def test_a_request_that_got_fewer_replies_than_it_asked_for_failed(
    server: BatchServer, judge_file: Callable[..., Path], store: Store
) -> None:
    judge = batch_judge(judge_file(server.url, samples=2, temperature=0.7, n=True))
    assert label_slates(judge, store.slates(), store).outcomes == {"endpoint_failure": 6}
    assert all("1 of 2 replies came" in label.reason for label in store.labels())
