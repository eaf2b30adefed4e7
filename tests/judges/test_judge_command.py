"""What `prefloop judge` says of a run: what failed, why and what helps, what it cost, and what is not known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Reply, Scripted, completion

import app
from judge_command import Asking, EndpointOptions, judge, open_judge, with_options
from judges.batch import label_slates, waiting
from judges.endpoint_judge import EndpointJudge
from judges.estimate import estimate
from labeling.records import JudgeCall, UserError
from labeling.store import Store


@pytest.fixture
def judge_files(scripted: Scripted, judge_file: Callable[..., Path], tmp_path: Path) -> list[str]:
    """Two judges that each may make seven calls by their own files, of which two go to the check."""
    paths = []
    for name in ("one", "two"):
        path = judge_file(scripted.url, name=name, logprobs=False)
        text = path.read_text().replace("[canaries]", "[budget]\ncalls = 7\n[canaries]")
        paths.append(tmp_path / f"{name}.toml")
        paths[-1].write_text(text)
    return [argument for path in paths for argument in ("--judge", str(path))]


def test_a_cap_of_a_run_holds_for_all_its_judges_and_one_of_a_file_for_its_own(
    scripted: Scripted, judge_files: list[str], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["judge", *judge_files, "--project", str(store.project)]
    assert app.main([*command, "--dry-run", "--calls", "9"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == (
        "all judges of the project together: used so far: 0 of 9 calls, and the caps end it before it is done"
    )
    app.main([*command, "--calls", "9"])
    assert len(scripted.requests) == store.total_spending().calls == 9
    assert "no room for another call (9 of 9 calls by all judges together)" in capsys.readouterr().out
    app.main([*command, "--calls", "9"])
    assert len(scripted.requests) == 9
    app.main(command)  # by their own files: one has used up its seven, the other has not
    spent = [store.judge_spending(who).calls for who in sorted(store.annotators())]
    assert (spent, len(scripted.requests)) == ([9, 7], 16)
    app.main([*command, "--calls", "100"])  # in place of those of the files
    assert len(store.labels()) == 12
    assert app.main([*command, "--dry-run", "--calls", "100"]) == 0
    assert "the caps end it" not in capsys.readouterr().out.splitlines()[-1]


def test_a_cap_holds_for_judges_that_run_at_the_same_time(
    scripted: Scripted, judge_files: list[str], store: Store
) -> None:
    """Each with a connection of its own, as processes have."""
    scripted.reply = lambda request, n: Reply(completion("[[A]]").body, delay=0.1)

    def run(path: str) -> str:
        own = Store(store.project)
        found = with_options(open_judge(path, own), EndpointOptions(calls=9))
        return label_slates(found, own.slates(), own).stopped

    with ThreadPoolExecutor() as pool:
        told = list(pool.map(run, judge_files[1::2]))
    assert len(scripted.requests) == store.total_spending().calls == 9
    assert all("of 9 calls by all judges together" in stopped for stopped in told)


def test_what_another_judge_holds_of_a_cap_is_said_where_it_ends_a_run(
    judge_files: list[str], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    reserved = [
        JudgeCall(f"call_{n}", "judge:other", store.slates()[0].id, outcome, sent_as=f"call_{n}")
        for n, outcome in enumerate(("unsettled", "unsettled", "label"))
    ]
    assert all(store.reserve_call(call) for call in reserved)
    command = ["judge", *judge_files[:2], "--project", str(store.project)]
    app.main([*command, "--calls", "7"])
    told = capsys.readouterr().out
    used = "7 of 7 calls by all judges together; 2 calls of other judges hold their most of it until they end"
    assert f"the budget has no room for another call ({used}): 5 slates are left, and the same command goes on" in told
    for call in reserved[:2]:
        store.settle_call(replace(call, outcome="label"))
    app.main([*command, "--calls", "7"])
    assert "of other judges hold" not in capsys.readouterr().out


@pytest.fixture
def told(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs the command on the six pairs with a judge of these settings; returns what it prints."""

    def run(**settings: Any) -> str:
        path = judge_file(scripted.url, **settings)
        with suppress(UserError):  # where every slate failed
            judge(store.project, [str(path)], None, False, EndpointOptions(), Asking())
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("reply", "kind", "cure"),
    [
        (completion("I think that", "length"), "truncated", "raise max_tokens in the judge's file"),
        (completion("Both are fine."), "parse_failure", "name a model that keeps to the rubric's form"),
        (Reply(b'{"error": {"message": "out of memory"}}', 500), "endpoint_failure", "run the same command again"),
    ],
)
def test_a_failure_is_told_with_its_reason_and_what_helps(
    reply: Reply, kind: str, cure: str, scripted: Scripted, told: Callable[..., str]
) -> None:
    scripted.reply = lambda request, n: reply if asks(request) else completion("[[A]]")
    lines = told(max_retries=0).splitlines()
    assert any(f"6 {kind}" in line for line in lines), lines
    [line] = [line for line in lines if cure in line]
    assert f": {kind} (" in line
    if kind == "endpoint_failure":
        assert "out of memory" in line


def asks(request: dict[str, Any]) -> bool:
    """Whether it is a question about a pair, and not one of the check before."""
    return "Name something" in str(request["messages"])


def test_an_unknown_price_is_not_told_as_nothing(told: Callable[..., str]) -> None:
    assert "tokens, at an unknown price" in told()
    assert "$" not in told()


def test_canaries_without_a_verdict_are_told(scripted: Scripted, told: Callable[..., str]) -> None:
    scripted.reply = lambda request, n: completion("[[A]]" if asks(request) else "Hmm, both.")
    text = told(canaries=1)
    assert "6 " in text
    assert "none of 4 canaries got a verdict, so whether attacks on it succeed is not known" in text


def test_few_verdicts_are_told_without_figures_that_are_none(scripted: Scripted, told: Callable[..., str]) -> None:
    scripted.reply = lambda request, n: completion("[[A]]" if "red" in str(request) else "no")
    assert "nan" not in told()


def test_an_estimate_counts_every_sample_and_knows_the_date_of_its_price(
    judge_file: Callable[..., Path], store: Store
) -> None:
    path = judge_file("https://api.openai.com/v1", samples=5, temperature=1.0)
    path.write_text(path.read_text().replace('"scripted"', '"gpt-4.1-mini"'))
    one = open_judge(str(path), store)
    assert isinstance(one, EndpointJudge)
    assert one.price_date is not None
    who = one.annotator.id

    def reply_tokens(how: EndpointJudge) -> float:
        return estimate(how, waiting(store.slates(), who, store), store.usual_call(who), store).completion_tokens

    several = replace(one, endpoint=replace(one.endpoint, n=True))
    assert several.endpoint.replies_per_call == 5
    assert reply_tokens(several) == reply_tokens(one) == 6 * 2 * 5 * 12


def test_who_has_to_wait_says_for_whom_at_once_and_asks_nothing_meanwhile(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    path = judge_file(scripted.url)
    who = open_judge(str(path), store).annotator.id
    command = [sys.executable, app.__file__, "judge", "--judge", str(path), "--project", str(store.project)]
    with store.judging_alone(who), subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line.startswith(f"{who}: waits, as process {os.getpid()} (")
        assert "Ctrl-C stops the waiting and loses nothing" in line
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert scripted.requests == []  # the check is paid for too


def test_who_waited_goes_on(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store, told: Callable[..., str]
) -> None:
    who = open_judge(str(judge_file(scripted.url)), store).annotator.id
    with ThreadPoolExecutor() as pool:
        with store.judging_alone(who):
            out = pool.submit(told)
            time.sleep(0.5)
            assert scripted.requests == []
        assert out.result(30).startswith(f"{who}: waits, as process ")
    assert len(store.labels()) == 6


def test_a_lock_that_says_nothing_or_nonsense_is_waited_for(store: Store) -> None:
    for said in ("", "process 1 (\x1b[2J) since"):
        with store.judging_alone("judge:a"):
            (lock,) = store.project.glob("*.lock")
            lock.write_text(said)
            heard: list[str] = []

            def on_wait(holder: str, heard: list[str] = heard) -> None:
                heard.append(holder)
                raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt), Store(store.project).judging_alone("judge:a", on_wait):
                pass
            assert heard == [said.replace("\x1b", " ") or "another process"]


def test_a_run_in_which_every_slate_failed_is_no_success_and_one_in_which_some_did_is(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The most frequent reason is named; the other judge has its turn all the same; and a partial success is one."""
    path = judge_file(scripted.url, max_retries=0)
    brief = str(Path(app.__file__).parent / "data" / "judges" / "brief.toml")
    command = ["judge", "--judge", str(path), "--judge", brief, "--project", str(store.project)]
    cut, odd = completion("I think that", "length"), completion("Both.")
    scripted.reply = lambda request, n: odd if "something red" in str(request) else cut if asks(request) else odd
    assert app.main(command) == 2
    out, line = capsys.readouterr()
    assert "5 truncated, 1 parse_failure" in out
    assert line.startswith(f"prefloop: {open_judge(str(path), store).annotator.id}: all 6 slates failed: truncated (")
    assert line.endswith("): raise max_tokens in the judge's file\n")
    assert line.count("\n") == 1
    assert len([label for label in store.labels() if label.outcome == "ranked"]) == 6  # of the judge brief
    scripted.reply = lambda request, n: completion("[[A]]" if "something red" in str(request) else "Both.")
    assert app.main(command) == 0
    assert "5 parse_failure, 1 tie" in capsys.readouterr().out
    assert app.main(command) == 2  # of what was left nothing succeeded
    scripted.reply = lambda request, n: completion("[[ABSTAIN]]")
    assert app.main(command) == 0  # an abstention is an answer
