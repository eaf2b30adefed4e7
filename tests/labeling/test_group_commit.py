"""Writes that come at the same time share a commit; one that fails harms no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labeling.database import ProjectDatabase
from labeling.group_commit import MOST_AT_ONCE, GroupCommit
from labeling.records import UserError


@pytest.fixture
def database(tmp_path: Path) -> ProjectDatabase:
    made = ProjectDatabase(tmp_path / "project", create=True)
    made.db.execute("CREATE TABLE note (n INTEGER PRIMARY KEY)")
    return made


def note(database: ProjectDatabase, n: int) -> Callable[[], int]:
    def work() -> int:
        database.db.execute("INSERT INTO note VALUES (?)", [n])
        return n

    return work


def notes(database: ProjectDatabase) -> list[int]:
    return [row["n"] for row in ProjectDatabase(database.project).rows("SELECT n FROM note ORDER BY n")]


def at_once(database: ProjectDatabase, works: list[Callable[[], Any]]) -> tuple[list[Any], int]:
    """What each work came to, and in how many transactions; all come while another one is at work."""
    group, begun = GroupCommit(database), []
    go, writing = threading.Event(), database.writing
    database.writing = lambda: begun.append(1) or writing()  # type: ignore[method-assign,assignment,func-returns-value]

    async def come() -> list[Any]:
        holder = asyncio.create_task(group.run(lambda: go.wait(10)))
        while not begun:
            await asyncio.sleep(0.01)
        coming = [asyncio.create_task(group.run(work)) for work in works]
        await asyncio.sleep(0.05)
        go.set()
        assert await holder
        return await asyncio.gather(*coming, return_exceptions=True)

    outcomes = asyncio.run(come())
    database.writing = writing  # type: ignore[method-assign]
    return outcomes, len(begun) - 1


def test_those_who_wait_share_one_commit(database: ProjectDatabase) -> None:
    outcomes, commits = at_once(database, [note(database, n) for n in range(20)])
    assert (outcomes, commits) == (list(range(20)), 1)
    assert notes(database) == list(range(20))


def test_a_crowd_does_not_keep_the_database_from_others_for_long(database: ProjectDatabase) -> None:
    outcomes, commits = at_once(database, [note(database, n) for n in range(2 * MOST_AT_ONCE + 1)])
    assert (outcomes, commits) == (list(range(2 * MOST_AT_ONCE + 1)), 3)


def test_whoever_has_gone_is_passed_over(database: ProjectDatabase) -> None:
    group, go, begun = GroupCommit(database), threading.Event(), threading.Event()

    async def leave() -> int:
        holder = asyncio.create_task(group.run(lambda: begun.set() or go.wait(10)))
        await asyncio.to_thread(begun.wait, 10)
        gone = asyncio.create_task(group.run(note(database, 1)))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0.05)
        go.set()
        await holder
        return await group.run(note(database, 2))

    assert asyncio.run(leave()) == 2
    assert notes(database) == [2]


def test_what_fails_is_undone_alone(database: ProjectDatabase) -> None:
    def half() -> None:
        database.db.execute("INSERT INTO note VALUES (100)")
        raise UserError("not like that")

    outcomes, commits = at_once(database, [note(database, 1), half, note(database, 2), note(database, 2)])
    assert commits == 1
    assert sorted(map(str, outcomes)) == ["1", "2", "UNIQUE constraint failed: note.n", "not like that"]
    assert notes(database) == [1, 2]


def test_without_a_commit_nobody_is_told_of_success(database: ProjectDatabase) -> None:
    class Full:
        """A transaction that cannot be committed."""

        def __enter__(self) -> None:
            database.db.execute("BEGIN IMMEDIATE")

        def __exit__(self, *_: object) -> None:
            database.db.execute("ROLLBACK")
            raise UserError("the disk is full")

    group = GroupCommit(database)
    database.writing = Full  # type: ignore[method-assign,assignment]
    with pytest.raises(UserError, match="disk is full"):
        asyncio.run(group.run(note(database, 1)))
    assert notes(database) == []


def test_work_after_which_no_transaction_is_left_fails_for_all(database: ProjectDatabase) -> None:
    def broken() -> None:
        database.db.execute("ROLLBACK")  # as SQLite itself does when the disk is full
        raise UserError("the disk is full")

    outcomes, _ = at_once(database, [note(database, 1), broken, note(database, 2)])
    assert {str(outcome) for outcome in outcomes} == {"the disk is full"}
    assert notes(database) == []
