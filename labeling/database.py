"""The connection to a project's database: transactions that are durable, and what can go wrong in one line.

SQLite in WAL mode with synchronous=FULL: what a transaction returns from is on disk. Each thread gets its own
connection, each write its own immediate transaction, so any number of processes share one project.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labeling.migrations import migrate
from labeling.records import UserError
from labeling.sqlite import Database

DATABASE = "prefloop.sqlite"
BUSY_SECONDS = 30


class ProjectDatabase:
    """The database of the project in folder `project`.

    Raises UserError when the folder holds no project and `create` is false, when the file is no database of
    ours or of a newer version, and from any write when the disk is full.
    """

    def __init__(self, project: str | Path, create: bool = False) -> None:
        self.project = Path(project)
        self.path = self.project / DATABASE
        self._threads = threading.local()
        if not self.path.exists():
            if not create:
                raise UserError(
                    f"{self.project} holds no Prefloop project: make one with `prefloop import` or `prefloop demo`"
                )
            try:
                self.project.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"cannot create the project folder {self.project}: {error.strerror}") from error
        with self._explained():
            migrate(self.db, str(self.path))

    @property
    def db(self) -> Database:
        """This thread's connection."""
        if not hasattr(self._threads, "db"):
            with self._explained():
                connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
                for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                    connection.execute(f"PRAGMA {pragma}")
                self._threads.db = Database(connection)
        return self._threads.db

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what can go wrong with a database file into one line for the user."""
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise
            text = str(error)
            if "full" in text or "disk I/O" in text:
                raise UserError(
                    f"{self.path}: cannot write ({text}): free some space and try again; nothing was half-written"
                ) from error
            if "not a database" in text or "malformed" in text:
                raise UserError(f"{self.path} is not a Prefloop database ({text}): name another --project") from error
            if "locked" in text:
                raise UserError(
                    f"{self.path} stayed locked for {BUSY_SECONDS} s: stop the other program that holds it"
                ) from error
            if "unable to open" in text or "readonly" in text:
                raise UserError(f"{self.path} cannot be opened for writing: check the folder's permissions") from error
            raise

    @contextmanager
    def writing(self) -> Iterator[Database]:
        """One immediate transaction: all of it is on disk afterwards, or none of it.

        Inside another `writing()` of this thread it joins that one, so that several writes can stand or fall together.
        """
        if self.db.conn.in_transaction:
            yield self.db
            return
        with self._explained():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.conn.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def rows(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows that a SELECT gives."""
        with self._explained():
            found = self.db.conn.execute(sql, parameters)  # sqlite-utils would put a savepoint around each read
            names = [column[0] for column in found.description]
            return [dict(zip(names, row, strict=True)) for row in found]
