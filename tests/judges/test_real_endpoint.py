"""The whole way against a real server with a real model, which may die at any time, as may the judging process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from conftest import HERE, LlamaServer, Reply, Scripted, completion

from judges.batch import label_slates
from judges.calibration import calibrate
from judges.config import load_judge
from judges.probe import PROBED
from judges.verdict import FINAL_CALLS, VERDICTS
from labeling.records import JudgeCall
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"


def judging(store: Store, judge_file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / "judging_process.py"), str(store.project), str(judge_file)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(HERE.parents[1])})


def slate_calls(store: Store, annotator: str) -> dict[str, JudgeCall]:
    """The calls about slates, without those of the check."""
    return {key: call for key, call in store.judge_calls(annotator).items() if call.slate_id != PROBED}


def answered(store: Store, annotator: str) -> int:
    return sum(call.outcome in FINAL_CALLS for call in store.judge_calls(annotator).values())


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_batch_through_a_real_model(llama: LlamaServer, judge_file: Callable[..., Path], store: Store) -> None:
    judge = load_judge(judge_file(llama.base_url, schema=True, max_tokens=24), DATA)
    judge.checked(store)
    outcomes = label_slates(judge, store.slates(), store).outcomes
    assert outcomes.total() == 6
    assert outcomes["label"] + outcomes["tie"] > 0
    calls = slate_calls(store, judge.annotator.id)
    assert Counter(call.slate_id for call in calls.values()) == {slate.id: 2 for slate in store.slates()}
    for call in calls.values():
        reply = json.loads(call.reply)
        assert reply["text"]
        assert 0 < call.completion_tokens <= 24
        assert call.prompt_tokens > 100
    for label in store.labels(annotator=judge.annotator.id):
        verdicts = {call.outcome for call in calls.values() if call.slate_id == label.slate_id}
        assert (label.outcome == "ranked") == (verdicts <= VERDICTS)
        assert (label.ranks is None) == (label.outcome != "ranked")
        assert label.reason or label.outcome == "ranked"
        if label.outcome == "ranked":
            assert label.probability is not None
            assert 0 < label.probability < 1  # from token probabilities, not votes


def test_a_real_model_that_follows_the_place_makes_ties_and_is_reported(
    llama: LlamaServer, judge_file: Callable[..., Path], store: Store
) -> None:
    """SmolLM2 names the place and not the answer: its orders contradict each other, and that is what is said of it."""
    judge = load_judge(judge_file(llama.base_url, schema=True, max_tokens=24), DATA)
    outcomes = label_slates(judge, store.slates()[:3], store).outcomes
    contradicted = [label for label in store.labels() if label.reason == "the two orders contradict each other"]
    assert outcomes["tie"] >= len(contradicted) > 0
    assert {label.ranks for label in contradicted} == {(1, 1)}
    measured = calibrate(judge.annotator.id, store, {})
    assert measured.outcomes == outcomes
    assert measured.orders.whole == outcomes["tie"] + outcomes["label"]
    assert measured.orders.part <= measured.orders.whole - len(contradicted)
    assert abs(measured.bias.place.mean) > 0.5
    assert any(line.startswith("both orders name the same answer: 0%") for line in measured.lines())


def test_a_server_that_dies_leaves_failures_which_the_next_run_mends(
    llama: LlamaServer, judge_file: Callable[..., Path], store: Store
) -> None:
    judge = load_judge(judge_file(llama.base_url, concurrency=1, max_retries=0, schema=True, max_tokens=24), DATA)
    heard: list[str] = []

    def kill_after_two(label: object) -> None:
        heard.append(str(label))
        if len(heard) == 2:
            llama.kill()

    outcomes = label_slates(judge, store.slates(), store, kill_after_two).outcomes
    assert outcomes["endpoint_failure"] == 4
    assert outcomes.total() == 6
    kept = {key: call for key, call in store.judge_calls(judge.annotator.id).items() if call.outcome in FINAL_CALLS}
    assert kept

    llama.start()
    again = label_slates(judge, store.slates(), store).outcomes
    assert again["endpoint_failure"] == 0
    assert again.total() >= 4
    standing = store.labels(annotator=judge.annotator.id)
    assert sorted(label.slate_id for label in standing) == sorted(slate.id for slate in store.slates())
    calls = store.judge_calls(judge.annotator.id)
    assert kept.items() <= calls.items()  # what was answered was not asked again
    assert "endpoint_failure" not in {call.outcome for call in calls.values()}


def test_a_killed_judge_goes_on_where_it_was(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    """Killed twice; each question whose reply was on disk is asked once in all."""
    scripted.reply = lambda request, n: Reply(completion("[[TIE]]").body, delay=0.15)
    path = judge_file(scripted.url)
    annotator = load_judge(path, DATA).annotator.id
    for enough in (3, 7):
        process = judging(store, path)
        until(lambda enough=enough: answered(store, annotator) >= enough)
        process.send_signal(signal.SIGKILL)
        process.wait()
    on_disk = answered(store, annotator)
    assert on_disk < 12
    before = len(scripted.requests)
    assert before - on_disk <= 2 * 2  # at most what was under way at each kill

    assert judging(store, path).wait(timeout=60) == 0
    assert len(scripted.requests) - before == 12 - on_disk
    labels = store.labels(annotator=annotator, history=True)
    assert sorted(label.slate_id for label in labels) == sorted(slate.id for slate in store.slates())


def test_ctrl_c_finishes_what_is_under_way_and_begins_nothing(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    scripted.reply = lambda request, n: Reply(completion("[[TIE]]").body, delay=0.3)
    path = judge_file(scripted.url)
    process = judging(store, path)
    until(lambda: len(scripted.requests) >= 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    labels, calls = store.labels(), store.judge_calls(load_judge(path, DATA).annotator.id)
    assert 2 <= len(labels) <= 4
    assert len(calls) == 2 * len(labels) == len(scripted.requests)  # every paid reply was kept and used
