"""The books of a judge: every attempt stays in them, each is counted once, and what failed is asked again."""

import asyncio
import json
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Reply, Scripted, completion

from judges.batch import label_slates
from judges.budget import UNLIMITED, Budget
from judges.config import load_judge
from judges.ledger import LedgerWriter
from labeling.preferences import expand_all
from labeling.records import InvalidRecord, JudgeCall, Spending
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"
RESERVED = JudgeCall("k", "judge:a", "slate_1", "unsettled", "", 0, "k-0", 100, 20, 0.5)


def test_a_call_is_reserved_at_its_most_and_settled_once(store: Store) -> None:
    assert store.reserve_call(RESERVED)
    assert store.judge_spending("judge:a") == Spending(1, 100, 20, 0.5)
    settled = replace(RESERVED, outcome="label", reply="{}", prompt_tokens=60, completion_tokens=5, cost=0.25)
    for again in (settled, replace(settled, reply="other", prompt_tokens=7)):  # the second time changes nothing
        store.settle_call(again)
        assert store.judge_spending("judge:a") == Spending(1, 60, 5, 0.25)
    assert store.judge_calls("judge:a") == {"k": settled}


def test_a_retry_leaves_the_failed_attempt_in_the_books(store: Store) -> None:
    failed = replace(RESERVED, outcome="parse_failure", reply="{}")
    again = replace(RESERVED, attempt=1, sent_as="k-1")
    store.reserve_call(RESERVED)
    store.settle_call(failed)
    store.reserve_call(again)
    assert store.judge_attempts("judge:a") == [failed, again]
    assert store.judge_calls("judge:a", ["slate_1"]) == {"k": again}
    assert store.judge_calls("judge:a", ["slate_2"]) == {}
    assert store.judge_spending("judge:a").calls == 2


@pytest.mark.parametrize(("cap", "value"), [("money", 0.99), ("tokens", 239), ("calls", 1)])
def test_a_cap_refuses_what_would_exceed_it(store: Store, cap: str, value: float) -> None:
    caps, room = Budget(**{cap: value}), Budget(money=1.0, tokens=240, calls=2)  # type: ignore[arg-type]
    assert store.reserve_call(RESERVED, caps, caps)
    second = replace(RESERVED, key="l")
    assert not store.reserve_call(second, caps)
    assert store.judge_spending("judge:a").calls == 1
    other = replace(second, annotator="judge:b")
    assert not store.reserve_call(other, UNLIMITED, caps)  # what all judges have spent, in whatever process
    assert store.reserve_call(other, caps, room)
    assert not store.reserve_call(replace(RESERVED, key="m"), room, room)
    assert store.total_spending() == store.judge_spending("judge:a") + store.judge_spending("judge:b")


def test_an_outcome_is_one_of_those_that_are_known() -> None:
    with pytest.raises(InvalidRecord, match="outcome 'ranked' is not one of label, tie, abstain"):
        JudgeCall("k", "judge:a", "slate_1", "ranked")  # type: ignore[arg-type]


def test_writes_at_the_same_time_share_a_commit_and_one_that_fails_spoils_no_other(store: Store) -> None:
    commits: list[int] = []
    plain = store.writing

    def counted():  # type: ignore[no-untyped-def]
        if not store.db.conn.in_transaction:
            commits.append(1)
        return plain()

    store.writing = counted  # type: ignore[method-assign]

    async def main() -> list[object]:
        async with LedgerWriter(store) as writer:
            calls = [replace(RESERVED, key=f"k{n}") for n in range(20)]
            return await asyncio.gather(*(writer.write(lambda call=call: store.reserve_call(call)) for call in calls))

    assert asyncio.run(main()) == [True] * 20
    assert len(commits) < 5

    async def again() -> list[object]:
        async with LedgerWriter(store) as writer:
            calls = [RESERVED, replace(RESERVED, key="k7"), replace(RESERVED, key="new")]
            writes = (writer.write(lambda call=call: store.reserve_call(call)) for call in calls)
            return await asyncio.gather(*writes, return_exceptions=True)

    first, clash, third = asyncio.run(again())
    assert (first, third) == (True, True)
    assert isinstance(clash, sqlite3.IntegrityError)
    assert store.judge_spending("judge:a").calls == 22


def test_every_attempt_is_counted_beside_the_label(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    storm = Reply(b'{"error": {"message": "slow down"}}', 429, {"retry-after-ms": "50"})
    scripted.reply = lambda request, n: storm if n == 1 else completion("[[TIE]]")
    judge = load_judge(judge_file(scripted.url), DATA)
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"tie": 1}
    attempts = [(call.attempt, call.outcome) for call in store.judge_attempts(judge.annotator.id)]
    assert attempts == [(0, "endpoint_failure"), (1, "tie")] * 2
    assert store.judge_spending(judge.annotator.id) == Spending(4, 180, 10, 0.0)  # a refusal costs no tokens
    (label,) = store.labels(annotator=judge.annotator.id)
    assert len(expand_all([label], store.annotators())) == 1


def test_a_reply_that_never_came_is_counted_at_its_most(
    scripted: Scripted, judge_file: Callable[..., Path], store: Store
) -> None:
    """Nobody can know whether it was billed; and it is asked again under the same idempotency key."""
    scripted.reply = lambda request, n: Reply(b"", delay=30) if n == 1 else completion("[[TIE]]")
    judge = load_judge(judge_file(scripted.url, timeout_seconds=0.5), DATA)
    assert label_slates(judge, store.slates()[:1], store).outcomes == {"tie": 1}
    lost, tie = store.judge_attempts(judge.annotator.id)[:2]
    assert (lost.outcome, tie.outcome) == ("endpoint_failure", "tie")
    assert lost.prompt_tokens > len(scripted.requests[0]["messages"][1]["content"])
    assert lost.completion_tokens == 12
    assert (tie.prompt_tokens, tie.completion_tokens) == (90, 5)
    keys = scripted.idempotency_keys
    assert len(keys) == 4
    assert len(set(keys)) == 2


def test_the_raw_reply_is_kept(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    said = "Well … [[A]]\n\n\u2028 as I said: [[TIE]]"
    scripted.reply = lambda request, n: completion(said)
    judge = load_judge(judge_file(scripted.url), DATA)
    label_slates(judge, store.slates()[:1], store)
    for call in store.judge_calls(judge.annotator.id).values():
        kept = json.loads(call.reply)
        assert (kept["text"], kept["id"], kept["model"]) == (said, "chatcmpl-1", "scripted")
        assert 0 < call.seconds < 20


def test_an_older_project_keeps_its_calls(tmp_path: Path, store: Store) -> None:
    from labeling import migrations

    path = tmp_path / "old" / "prefloop.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        for script in (migrations.FIRST, migrations.SECOND, migrations.THIRD):
            db.executescript(script)
        db.execute("PRAGMA user_version = 3")
        for key, outcome in (("a", "ranked"), ("b", "truncated")):
            row = (key, "judge:a", "slate_1", "{}", outcome, 90, 5, 0.5, time.time())
            db.execute("INSERT INTO judge_call VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.commit()
    old = Store(path.parent)
    calls = old.judge_calls("judge:a")
    assert {key: call.outcome for key, call in calls.items()} == {"a": "label", "b": "truncated"}
    assert old.judge_spending("judge:a") == Spending(2, 180, 10, 0.0)


def test_two_processes_do_not_ask_the_same(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    """The second waits for the first, and then finds everything answered."""
    import threading

    scripted.reply = lambda request, n: Reply(completion("[[TIE]]").body, delay=0.1)
    path = judge_file(scripted.url)
    outcomes: list[int] = []

    def run() -> None:
        outcomes.append(label_slates(load_judge(path, DATA), store.slates(), Store(store.project)).outcomes.total())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [0, 6]
    assert len(scripted.requests) == 12


def test_a_revoked_judge_asks_nothing(scripted: Scripted, judge_file: Callable[..., Path], store: Store) -> None:
    judge = load_judge(judge_file(scripted.url), DATA)
    label_slates(judge, store.slates()[:2], store)
    store.revoke(judge.annotator.id, "it likes the first place", "an owner")
    judged = label_slates(judge, store.slates(), store)
    assert judged.stopped.endswith("is revoked (it likes the first place), so its labels would count for nothing")
    assert len(scripted.requests) == 4


def test_what_waits_is_found_without_reading_all_labels(store: Store) -> None:
    """Each query of a page must be a search by annotator and slate: a scan made 100,000 slates take hours."""
    plans: list[str] = []
    plain = store.rows

    def explained(sql: str, parameters: Any = ()) -> list[dict[str, Any]]:
        plans.extend(row["detail"] for row in plain(f"EXPLAIN QUERY PLAN {sql}", parameters))
        return plain(sql, parameters)

    store.rows = explained  # type: ignore[method-assign]
    list(store.waiting_slates("judge:a", ["ranked"]))
    store.labels_on("judge:a", ["slate_1"])
    store.judge_calls("judge:a", ["slate_1"])
    about = [plan for plan in plans if re.search(r"\b(label|judge_call|candidate)\b", plan)]
    assert len(about) >= 4
    for plan in about:
        assert re.search(r"slate_id=\?", plan), plan
