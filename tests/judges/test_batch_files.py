"""Judging by files for an offline runner: written, run elsewhere, read back; torn, foreign, lost and moved files."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import HERE
from offline_runner import BatchRequestInput, BatchRequestOutput, lines_of, read_requests, refusal_of, reply_to

import app
from judges import batch_files, batch_run
from judges.batch import label_slates
from judges.batch_api import BatchApi
from judges.batch_files import BatchFiles
from judges.budget import Budget, Caps
from judges.canaries import FACTS, CanaryRules, canaries_by_slate, draw_canaries
from judges.canary_rides import ridden
from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from labeling.records import Spending, UserError
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"
NOWHERE = "http://127.0.0.1:9/v1"  # whoever asks it anything fails


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "to run"  # a name that a shell would split
    folder.mkdir()
    return folder


def file_judge(path: Path, folder: Path) -> EndpointJudge:
    judge = load_judge(path, DATA)
    assert isinstance(judge, EndpointJudge)
    return replace(judge, batch=BatchFiles(folder, judge.endpoint.model))


@pytest.fixture
def judge(judge_file: Callable[..., Path], folder: Path) -> EndpointJudge:
    path = judge_file(NOWHERE)
    path.write_text(path.read_text() + "[price]\nprompt = 1000\ncompletion = 2000\n")
    return file_judge(path, folder)


def questions_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("submission_*.jsonl") if not path.name.endswith(".replies.jsonl"))


def replies_to(questions: Path) -> Path:
    return questions.with_suffix(".replies.jsonl")


def written(judge: EndpointJudge, store: Store, folder: Path) -> tuple[Path, list[BatchRequestOutput]]:
    """The newest file of questions, once the judge wrote it, and the replies that a runner would give."""
    before = set(questions_in(folder))
    judged = label_slates(judge, store.slates(), store)
    [questions] = set(questions_in(folder)) - before
    assert f"{replies_to(questions)} is awaited" in judged.stopped
    return questions, [reply_to(request) for request in read_requests(questions)]


def test_there_and_back_by_the_command_that_is_told(
    judge_file: Callable[..., Path], folder: Path, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = judge_file(NOWHERE, model="some/model of mine")
    runner = tmp_path / "bin" / "vllm"
    runner.parent.mkdir()
    runner.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "offline_runner.py"}" "$@"\n')
    runner.chmod(0o755)
    command = ["judge", "--project", str(store.project), "--judge", str(path), "--batch-files", str(folder)]

    assert app.main([*command, "--dry-run"]) == 0
    assert "12 calls" in (said := capfd.readouterr().out)
    assert "about $0.0000, as long as the runner takes" in said
    assert questions_in(folder) == []
    for _ in range(2):  # asking again, before it was run, says the same
        assert app.main(command) == 0
        [told] = [line for line in capfd.readouterr().out.splitlines() if "is awaited" in line]
        assert "6 slates are left, and the same command goes on from here" in told
        assert len(questions_in(folder)) == 1
        assert store.labels() == []
    run = told.split("`")[1]
    assert run.startswith("vllm run-batch -i ")
    subprocess.run(run, shell=True, check=True, env={**os.environ, "PATH": f"{runner.parent}:{os.environ['PATH']}"})
    assert app.main(command) == 0
    assert "6 label" in capfd.readouterr().out
    assert {label.ranks for label in store.labels()} == {(1, 2)}
    assert app.main(command) == 0
    assert "nothing left to label" in capfd.readouterr().out
    assert len(questions_in(folder)) == 1


SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"schema": True, "samples": 3, "temperature": 0.7, "n": True, "token_limit": "max_completion_tokens"},
)


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_runner_takes_what_the_judges_file_asks_for(
    settings: dict[str, Any], judge_file: Callable[..., Path], folder: Path, store: Store
) -> None:
    judge = file_judge(judge_file(NOWHERE, **settings), folder)
    assert judge.checked(store) is judge  # nobody is asked what it can do
    questions, _ = written(judge, store, folder)
    requests = read_requests(questions)
    assert len({request.custom_id for request in requests}) == len(requests) == 12
    assert {request.body.n for request in requests} == {settings.get("samples", 1)}
    assert {request.body.response_format is not None for request in requests} == {"schema" in settings}


def test_nothing_is_billed_and_replies_in_any_order_and_twice_count_once(
    judge: EndpointJudge, store: Store, folder: Path
) -> None:
    questions, replies = written(judge, store, folder)
    replies_to(questions).write_text(lines_of([*reversed(replies), *replies]))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert store.judge_spending(judge.annotator.id) == Spending(12, 1200, 48, 0.0)
    replies_to(questions).write_text(lines_of(replies))
    assert label_slates(judge, store.slates(), store).outcomes == {}
    assert store.judge_spending(judge.annotator.id) == Spending(12, 1200, 48, 0.0)


def test_what_is_there_counts_and_the_next_run_asks_for_the_rest(
    judge: EndpointJudge, store: Store, folder: Path
) -> None:
    questions, replies = written(judge, store, folder)
    text = lines_of(replies[:5])
    replies_to(questions).write_text(text[:-40])  # the runner was killed in its fifth line
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 2, "endpoint_failure": 4}
    assert questions_in(folder) == [questions]
    assert {label.reason for label in store.labels() if label.reason} == {
        f"{replies_to(questions)} holds no reply to it"
    }
    again, replies = written(judge, store, folder)
    assert len(replies) == 8
    replies_to(again).write_text(lines_of(replies))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 4}
    assert store.judge_spending(judge.annotator.id) == Spending(20, 1200, 48, 0.0)


def test_lines_that_are_no_replies_are_passed_over(judge: EndpointJudge, store: Store, folder: Path) -> None:
    questions, replies = written(judge, store, folder)
    foreign = [reply.model_copy(update={"custom_id": f"call_{n:016x}"}) for n, reply in enumerate(replies)]
    empty = replies[0].model_copy(update={"response": None, "custom_id": "../../x"})
    noise = [b"\xff\xfe", b"", b"[" * 100_000, b'{"custom_id": 7}', b"null", b'"' + b"x" * 2_000_000 + b'"', b""]
    data = b"\n".join(noise) + lines_of([*foreign, empty, *replies]).encode() + b'{"custom_id": "call_'
    replies_to(questions).write_bytes(data)
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}


def test_why_a_request_failed_is_kept(judge: EndpointJudge, store: Store, folder: Path) -> None:
    questions, replies = written(judge, store, folder)
    inner = {"error": {"message": "the prompt is too long", "type": "BadRequestError", "param": None, "code": 400}}
    errors = ("Request must not be sent in stream mode", inner)
    refused = [refusal_of(r, error) for r, error in zip(read_requests(questions), errors, strict=False)]
    bodiless = replies[2].model_copy(update={"response": replies[2].response.model_copy(update={"body": None})})  # type: ignore[union-attr]
    replies_to(questions).write_text(lines_of([*refused, bodiless, *replies[3:]]))
    assert label_slates(judge, store.slates(), store).outcomes.total() == 6
    calls = store.judge_calls(judge.annotator.id).values()
    said = Counter(call.reply for call in calls if call.outcome == "endpoint_failure")
    assert said["in the batch: “Request must not be sent in stream mode”"] == 1
    assert said["in the batch: “the prompt is too long”"] == 1
    assert said.total() == 3
    assert any("the reply is no chat completion" in reply for reply in said)


def test_a_line_without_end_is_named_and_nothing_is_lost(
    judge: EndpointJudge, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_files, "LONGEST_LINE", 4 << 20)
    questions, replies = written(judge, store, folder)
    replies_to(questions).write_text(lines_of(replies) + "x" * (5 << 20))
    with pytest.raises(UserError, match=r"replies\.jsonl:13: longer than 4 MiB"):
        label_slates(judge, store.slates(), store)
    replies_to(questions).write_text(lines_of(replies))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert store.judge_spending(judge.annotator.id).calls == 12


def test_a_killed_process_leaves_what_the_next_one_needs(
    judge: EndpointJudge, judge_file: Callable[..., Path], store: Store, folder: Path
) -> None:
    arguments = [str(HERE / "judging_process.py"), str(store.project), judge.file, str(folder)]
    with subprocess.Popen([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": str(HERE.parents[1])}) as run:
        deadline = time.monotonic() + 30
        while not list(folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
    label_slates(judge, store.slates(), store)
    [questions] = questions_in(folder)
    replies_to(questions).write_text(lines_of([reply_to(request) for request in read_requests(questions)]))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}
    assert len(store.judge_attempts(judge.annotator.id)) == 12


@pytest.mark.parametrize("at", ["prepare", "submit", "ended"])
def test_a_death_at_each_step_loses_and_doubles_nothing(
    at: str, judge: EndpointJudge, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object) -> None:
        raise SystemExit(9)

    monkeypatch.setattr(BatchFiles, at, dies)
    with pytest.raises(SystemExit):
        label_slates(judge, store.slates(), store)
    monkeypatch.undo()
    assert "is awaited" in label_slates(judge, store.slates(), store).stopped
    [questions] = questions_in(folder)
    assert len(read_requests(questions)) == len(store.judge_attempts(judge.annotator.id)) == 12


def test_files_that_were_moved_are_named_and_found_where_they_are(
    judge: EndpointJudge, store: Store, folder: Path
) -> None:
    questions, replies = written(judge, store, folder)
    other = folder.with_name("elsewhere")
    folder.rename(other)
    with pytest.raises(UserError, match="to run: there is no such folder: make it"):
        file_judge(Path(judge.file), folder)
    folder.mkdir()
    with pytest.raises(UserError) as gone:
        label_slates(judge, store.slates(), store)
    assert f"{questions}: this file of questions is not here" in str(gone.value)
    assert f"make an empty {replies_to(questions)}" in str(gone.value)
    assert len(store.unsettled_calls(judge.annotator.id)) == len(store.judge_attempts(judge.annotator.id)) == 12
    (other / replies_to(questions).name).write_text(lines_of(replies))
    (other / questions.name).unlink()  # the replies alone came back
    moved = file_judge(Path(judge.file), other)
    assert label_slates(moved, store.slates(), store).outcomes == {"label": 6}


def test_what_is_lost_is_asked_again_once_an_empty_file_says_so(
    judge: EndpointJudge, store: Store, folder: Path
) -> None:
    questions, _ = written(judge, store, folder)
    questions.unlink()
    replies_to(questions).touch()
    assert label_slates(judge, store.slates(), store).outcomes == {"endpoint_failure": 6}
    questions, replies = written(judge, store, folder)
    replies_to(questions).write_text(lines_of(replies))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}


def test_a_folder_that_takes_no_file_reserves_nothing(judge: EndpointJudge, store: Store, folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")  # a file stands where the folder stood
    with pytest.raises(UserError, match="cannot be written"):
        label_slates(judge, store.slates(), store)
    assert store.judge_attempts(judge.annotator.id) == []
    assert store.judge_spending(judge.annotator.id) == Spending(0, 0, 0, 0.0)


def test_the_other_ways_are_told_where_the_calls_stand(judge: EndpointJudge, store: Store, folder: Path) -> None:
    questions, replies = written(judge, store, folder)
    for way in (None, BatchApi(judge.endpoint, judge.file)):
        with pytest.raises(UserError, match=r"12 calls stand in a file of questions: collect .* with --batch-files"):
            label_slates(replace(judge, batch=way), store.slates(), store)
    replies_to(questions).write_text(lines_of(replies))
    assert label_slates(judge, store.slates(), store).outcomes == {"label": 6}


def test_a_budget_makes_a_smaller_file(judge: EndpointJudge, store: Store, folder: Path) -> None:
    judge = judge.within(Caps(Budget(calls=5)))
    questions, replies = written(judge, store, folder)
    assert len(replies) == 5
    replies_to(questions).write_text(lines_of(replies))
    judged = label_slates(judge, store.slates(), store)
    assert judged.outcomes == {"label": 2}
    assert "5 of 5 calls" in judged.stopped
    rest = judge.within(Caps(together=Budget(calls=8)))  # what stood in files counts with what will
    label_slates(rest, store.slates(), store)
    assert [len(read_requests(path)) for path in questions_in(folder) if path != questions] == [3]
    for questions in questions_in(folder):
        replies_to(questions).write_text(lines_of([reply_to(request) for request in read_requests(questions)]))
    assert "8 of 8 calls by all judges together" in label_slates(rest, store.slates(), store).stopped


def test_more_slates_than_were_asked_are_answered_as_far_as_known(
    judge: EndpointJudge, store: Store, folder: Path
) -> None:
    judged = label_slates(judge, list(store.slates())[:2], store)
    assert "is awaited" in judged.stopped
    [questions] = questions_in(folder)
    replies_to(questions).write_text(lines_of([reply_to(request) for request in read_requests(questions)]))
    judged = label_slates(judge, store.slates(), store)
    assert judged.outcomes == {"label": 2}
    assert "is awaited" in judged.stopped
    assert [len(read_requests(path)) for path in questions_in(folder)].count(8) == 1


def test_it_excludes_the_batch_api_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["judge", "--judge", "openai", "--batch-api", "--batch-files", "x"])
    assert ended.value.code == 2
    assert "argument --batch-files: not allowed with argument --batch-api" in capsys.readouterr().err


@pytest.fixture
def watched(judge_file: Callable[..., Path], folder: Path) -> EndpointJudge:
    """A judge with which four canaries ride, one of each attack."""
    return file_judge(judge_file(NOWHERE, canaries=1), folder)


def knows_facts(shown: str) -> str:
    second = shown.partition("<answer_B>")[2]
    return "[[B]]" if "door" in second or any(right in second for _, right, _ in FACTS) else "[[A]]"


def falls_for_lies(shown: str) -> str:
    second = shown.partition("<answer_B>")[2]
    return "[[A]]" if any(right in second for _, right, _ in FACTS) else "[[B]]"


def with_canaries(judge: EndpointJudge, store: Store, folder: Path) -> tuple[Path, list[BatchRequestInput]]:
    questions, _ = written(judge, store, folder)
    return questions, read_requests(questions)


def test_canaries_travel_in_the_file_and_never_become_labels(
    watched: EndpointJudge, store: Store, folder: Path
) -> None:
    questions, requests = with_canaries(watched, store, folder)
    assert len({request.custom_id for request in requests}) == len(requests) == 4 * 2 + 6 * 2
    replies_to(questions).write_text(lines_of([reply_to(request, knows_facts) for request in requests]))
    for outcomes in ({"label": 6}, {}):
        assert label_slates(watched, store.slates(), store).outcomes == outcomes
        success = ridden(watched, store)
        assert (success.rate, success.verdicts.total()) == (0.0, 8)
    assert {label.slate_id for label in store.labels()} == {slate.id for slate in store.slates()}
    assert questions_in(folder) == [questions]


def test_a_judge_that_is_fooled_in_the_file_labels_nothing(watched: EndpointJudge, store: Store, folder: Path) -> None:
    questions, requests = with_canaries(watched, store, folder)
    replies_to(questions).write_text(lines_of([reply_to(request, falls_for_lies) for request in requests]))
    for _ in range(2):  # collecting again says the same, and asks nothing
        with pytest.raises(
            UserError, match=r"attacks succeeded in 8 of 8 verdicts .*more than the 25% of \[canaries\]"
        ):
            label_slates(watched, store.slates(), store)
        assert store.labels() == []
    assert questions_in(folder) == [questions]
    believed = replace(watched, canary_rules=CanaryRules(each=1, max_success=1.0))
    assert label_slates(believed, store.slates(), store).outcomes == {"tie": 6}  # by the replies that are here


def test_no_label_is_made_before_all_canaries_are_back(watched: EndpointJudge, store: Store, folder: Path) -> None:
    questions, requests = with_canaries(watched, store, folder)
    calls = {call.key: call for call in store.unsettled_calls(watched.annotator.id)}
    lost = next(request for request in requests if calls[request.custom_id].slate_id in canaries_by_slate())
    there = [reply_to(request, knows_facts) for request in requests if request is not lost]
    replies_to(questions).write_text(lines_of(there))
    judged = label_slates(watched, store.slates(), store)
    assert (judged.outcomes, "1 of 4 canaries got no reply" in judged.stopped) == ({}, True)
    assert store.labels() == []
    again, requests = with_canaries(watched, store, folder)
    assert [request.custom_id for request in requests] == [lost.custom_id]
    replies_to(again).write_text(lines_of([reply_to(lost, knows_facts)]))
    assert label_slates(watched, store.slates(), store).outcomes == {"label": 6}
    assert ridden(watched, store).verdicts.total() == 8


def test_canaries_are_collected_under_other_rules_than_they_were_asked_under(
    watched: EndpointJudge, store: Store, folder: Path
) -> None:
    questions, requests = with_canaries(watched, store, folder)
    replies_to(questions).write_text(lines_of([reply_to(request, knows_facts) for request in requests]))
    without = replace(watched, canary_rules=CanaryRules(each=0))
    assert label_slates(without, store.slates(), store).outcomes == {"label": 6}
    outcomes = Counter(call.outcome for call in store.judge_calls(watched.annotator.id).values())
    assert outcomes == {"label": 20}


def test_more_canaries_travel_with_a_long_run(
    watched: EndpointJudge, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "EVERY", 3)
    _, requests = with_canaries(watched, store, folder)
    sets = {canary.slate.id for seed in (0, 3) for canary in draw_canaries(seed, 1)}
    assert len(requests) == 2 * len(sets) + 12
