"""Writes that come at the same time share a commit; one that fails harms no other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labeling.database import ProjectDatabase
from labeling.group_commit import GroupCommit
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
    group, outcomes, begun = GroupCommit(database), [None] * len(works), []
    started, go = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        assert go.wait(10)

    def run(place: int) -> None:
        try:
            outcomes[place] = group.run(works[place])
        except Exception as error:
            outcomes[place] = error

    writing = database.writing
    database.writing = lambda: begun.append(1) or writing()  # type: ignore[method-assign,assignment,func-returns-value]
    holder = threading.Thread(target=group.run, args=[hold])
    holder.start()
    started.wait(10)
    threads = [threading.Thread(target=run, args=[place]) for place in range(len(works))]
    for thread in threads:
        thread.start()
    while len(group._waiting) < len(works):
        threading.Event().wait(0.01)
    go.set()
    for thread in [holder, *threads]:
        thread.join()
    database.writing = writing  # type: ignore[method-assign]
    return outcomes, len(begun) - 1


def test_those_who_wait_share_one_commit(database: ProjectDatabase) -> None:
    outcomes, commits = at_once(database, [note(database, n) for n in range(20)])
    assert (outcomes, commits) == (list(range(20)), 1)
    assert notes(database) == list(range(20))


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
        group.run(note(database, 1))
    assert notes(database) == []


def test_work_after_which_no_transaction_is_left_fails_for_all(database: ProjectDatabase) -> None:
    def broken() -> None:
        database.db.execute("ROLLBACK")  # as SQLite itself does when the disk is full
        raise UserError("the disk is full")

    outcomes, _ = at_once(database, [note(database, 1), broken, note(database, 2)])
    assert {str(outcome) for outcome in outcomes} == {"the disk is full"}
    assert notes(database) == []
