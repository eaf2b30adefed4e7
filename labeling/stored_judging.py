"""The ledger of judges, as the store keeps it: what waits for a judge, each attempt of each call, and what was spent.

A call is reserved at the most that it can cost before it is sent, and settled when its reply is there. Both are
transactions that read and write what judges have spent, so caps hold over all processes and all runs: those of one
judge, and those of all together.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, Protocol

from labeling.records import JudgeCall, Slate, Spending, UsualCall, content_id
from labeling.stored_slates import StoredSlates

CALL = "key, attempt, annotator, slate_id, outcome, reply, prompt_tokens, completion_tokens, cost, seconds, sent_as"
HOLDER_LENGTH = 300  # characters that are told of who holds a lock
SPENT = ("calls", "prompt_tokens", "completion_tokens", "cost")


class Caps(Protocol):
    """The most that may be spent, None = no cap."""

    @property
    def money(self) -> float | None:
        """In dollars."""

    @property
    def tokens(self) -> int | None:
        """Of questions and replies."""

    @property
    def calls(self) -> int | None:
        """Attempts, also those that fail."""


class StoredJudging(StoredSlates):
    """The part of `labeling.store.Store` that keeps the ledger of judges."""

    def judge_calls(self, annotator: str, slate_ids: Sequence[str] | None = None) -> dict[str, JudgeCall]:
        """The last attempt of each of a judge's calls (about these slates), by key."""
        where = "" if slate_ids is None else "AND slate_id IN (SELECT value FROM json_each(?)) "
        given = [] if slate_ids is None else [json.dumps(list(slate_ids))]
        rows = self.rows(
            f"SELECT {CALL} FROM judge_call WHERE annotator = ? {where}ORDER BY attempt", [annotator, *given]
        )
        return {row["key"]: JudgeCall(**row) for row in rows}

    def calls_by_key(self, keys: Sequence[str]) -> dict[str, JudgeCall]:
        """The last attempt of each of these calls, by key, whatever slate it was made for."""
        sql = f"SELECT {CALL} FROM judge_call WHERE key IN (SELECT value FROM json_each(?)) ORDER BY attempt"
        return {row["key"]: JudgeCall(**row) for row in self.rows(sql, [json.dumps(list(keys))])}

    def judge_attempts(self, annotator: str) -> list[JudgeCall]:
        """Every attempt of every call of a judge."""
        rows = self.rows(f"SELECT {CALL} FROM judge_call WHERE annotator = ? ORDER BY key, attempt", [annotator])
        return [JudgeCall(**row) for row in rows]

    def unsettled_calls(self, annotator: str) -> list[JudgeCall]:
        """The calls of a judge of which no reply is known."""
        sql = f"SELECT {CALL} FROM judge_call WHERE annotator = ? AND outcome = 'unsettled' ORDER BY key, attempt"
        return [JudgeCall(**row) for row in self.rows(sql, [annotator])]

    def count_unsettled_of_others(self, annotator: str) -> int:
        """How many calls of other judges than this one no reply is known of."""
        sql = "SELECT COUNT(*) AS n FROM judge_call WHERE annotator != ? AND outcome = 'unsettled'"
        return int(self.rows(sql, [annotator])[0]["n"])

    def reserve_call(self, call: JudgeCall, own: Caps | None = None, together: Caps | None = None) -> bool:
        """Note an unsettled attempt at the most that it can cost, unless a total would exceed a cap.

        own: caps on what its judge has spent; together: on what all judges have. Returns whether it was noted. Such a
        call may be sent, and must then be settled.
        """
        with self.writing():
            if own and not _has_room(own, self.judge_spending(call.annotator), call):
                return False
            if together and not _has_room(together, self.total_spending(), call):
                return False
            self.note_call(call)
            self._spend(call.annotator, 1, call.prompt_tokens, call.completion_tokens, call.cost)
            return True

    def note_call(self, call: JudgeCall) -> None:
        """Put a call in the books. By itself it is no spending: so are kept those that a model here answered."""
        made = [call.key, call.attempt, call.annotator, call.slate_id, call.outcome, call.reply]
        cost = [call.prompt_tokens, call.completion_tokens, call.cost, call.seconds, call.sent_as, time.time()]
        with self.writing():
            self.db.execute("INSERT INTO judge_call VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [*made, *cost])

    def settle_call(self, call: JudgeCall) -> None:
        """Put what came of a reserved attempt in its place; settling it again changes nothing."""
        with self.writing():
            which = "key = ? AND attempt = ? AND outcome = 'unsettled'"
            rows = self.rows(f"SELECT * FROM judge_call WHERE {which}", [call.key, call.attempt])
            for row in rows:
                self._spend(
                    call.annotator,
                    0,
                    call.prompt_tokens - row["prompt_tokens"],
                    call.completion_tokens - row["completion_tokens"],
                    call.cost - row["cost"],
                )
            came = [call.outcome, call.reply, call.prompt_tokens, call.completion_tokens, call.cost, call.seconds]
            came += [call.sent_as]
            self.db.execute(
                "UPDATE judge_call SET outcome = ?, reply = ?, prompt_tokens = ?, completion_tokens = ?, cost = ?, "
                f"seconds = ?, sent_as = ? WHERE {which}",
                [*came, call.key, call.attempt],
            )

    def _spend(self, annotator: str, *amounts: float) -> None:
        self.db.execute(
            "INSERT INTO judge_spending VALUES (?, ?, ?, ?, ?) ON CONFLICT (annotator) DO UPDATE SET "
            "calls = calls + excluded.calls, prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
            "completion_tokens = completion_tokens + excluded.completion_tokens, cost = cost + excluded.cost",
            [annotator, *amounts],
        )

    def judge_spending(self, annotator: str) -> Spending:
        """What a judge has spent in this project."""
        rows = self.rows(f"SELECT {', '.join(SPENT)} FROM judge_spending WHERE annotator = ?", [annotator])
        return Spending(**rows[0]) if rows else Spending()

    def total_spending(self) -> Spending:
        """What all judges have spent in this project."""
        sums = ", ".join(f"coalesce(sum({name}), 0) AS {name}" for name in SPENT)
        return Spending(**self.rows(f"SELECT {sums} FROM judge_spending")[0])

    def usual_call(self, annotator: str) -> UsualCall:
        """What a judge's answered calls came to so far, in the mean."""
        rows = self.rows(
            "SELECT count(*) AS calls, coalesce(avg(prompt_tokens), 0) AS prompt_tokens, "
            "coalesce(avg(completion_tokens), 0) AS completion_tokens, coalesce(avg(seconds), 0) AS seconds "
            "FROM judge_call WHERE annotator = ? AND outcome NOT IN ('unsettled', 'endpoint_failure')",
            [annotator],
        )
        return UsualCall(**rows[0])

    @contextmanager
    def judging_alone(self, annotator: str, on_wait: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
        """Wait until no other process labels as this annotator, and keep others waiting until the end.

        on_wait: hears at once who has to be waited for, in words.
        """
        with open(self.project / f"{content_id('judging', annotator)}.lock", "a+", encoding="utf-8") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait(_holder(lock))
                fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(f"process {os.getpid()} ({shlex.join(sys.argv)}) since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            lock.flush()
            yield

    # What waits for a judge

    def waiting_slates(self, annotator: str, final: Iterable[str]) -> Iterator[Slate]:
        """Slates on which no label of these `final` outcomes of this annotator stands, oldest first, page by page."""
        return self._page_by_page(*_waiting(annotator, final))

    def judged_slates(self, annotator: str) -> Iterator[Slate]:
        """Slates that a judge was asked about, oldest first, page by page."""
        sql = "FROM slate WHERE EXISTS (SELECT 1 FROM judge_call WHERE annotator = ? AND slate_id = slate.id)"
        return self._page_by_page(sql, [annotator])

    def count_waiting(self, annotator: str, final: Iterable[str]) -> int:
        """How many slates `waiting_slates` gives."""
        sql, values = _waiting(annotator, final)
        return int(self.rows(f"SELECT count(*) AS n {sql}", values)[0]["n"])


def _holder(lock: IO[str]) -> str:
    """Who holds a lock, as it wrote there."""
    lock.seek(0)
    said = "".join(c if c.isprintable() else " " for c in lock.read(HOLDER_LENGTH))
    return said or "another process"


def _has_room(caps: Caps, spent: Spending, call: JudgeCall) -> bool:
    """Whether a call at its most fits under caps beside what is spent."""
    tokens = spent.tokens + call.prompt_tokens + call.completion_tokens
    totals = ((spent.cost + call.cost, caps.money), (tokens, caps.tokens), (spent.calls + 1, caps.calls))
    return all(cap is None or total <= cap for total, cap in totals)


def _waiting(annotator: str, final: Iterable[str]) -> tuple[str, list[Any]]:
    sql = (
        "FROM slate WHERE NOT EXISTS (SELECT 1 FROM standing WHERE slate_id = slate.id AND annotator = ? "
        "AND outcome IN (SELECT value FROM json_each(?)))"
    )
    return sql, [annotator, json.dumps(sorted(final))]
