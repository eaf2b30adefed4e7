"""Webhooks as the store keeps them, and what is new for each."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

from labeling.database import ProjectDatabase
from labeling.stored_runs import RunEvent


@dataclass(frozen=True)
class Webhook:
    """An address that is told of events. told_labels, told_iterations: up to which place. last_error: empty if none."""

    id: int
    url: str
    secret: str
    events: tuple[str, ...]
    told_labels: int
    told_iterations: int
    last_error: str


class StoredWebhooks(ProjectDatabase):
    """The part of `labeling.store.Store` that knows who is told what."""

    def add_webhook(self, url: str, secret: str, events: tuple[str, ...]) -> int:
        """Add a hook, which is told of what happens from now on. Returns its id."""
        with self.writing() as db:
            sql = "INSERT INTO webhook (url, secret, events, created, told_labels, told_iterations) "
            sql += "SELECT ?, ?, ?, ?, (SELECT coalesce(max(seq), 0) FROM label), "
            sql += "(SELECT coalesce(max(seq), 0) FROM run_event)"
            added = db.execute(sql, [url, secret, json.dumps(events), time.time()])
        return int(added.lastrowid or 0)

    def webhooks(self) -> list[Webhook]:
        """All hooks."""
        rows = self.rows("SELECT id, url, secret, events, told_labels, told_iterations, last_error FROM webhook")
        return [Webhook(**{**row, "events": tuple(json.loads(row["events"]))}) for row in rows]

    def remove_webhook(self, hook_id: int) -> bool:
        """Remove a hook. Returns whether there was one."""
        with self.writing() as db:
            return db.execute("DELETE FROM webhook WHERE id = ?", [hook_id]).rowcount > 0

    def told(self, hook_id: int, kind: str, place: int | None, error: str = "") -> None:
        """Note up to which place a hook has been told, or why it could not be."""
        with self.writing() as db:
            if place is not None:
                column = {"label": "told_labels", "iteration": "told_iterations"}[kind]
                db.execute(f"UPDATE webhook SET {column} = ? WHERE id = ?", [place, hook_id])
            db.execute("UPDATE webhook SET last_error = ? WHERE id = ?", [error, hook_id])

    def labels_after(self, seq: int, limit: int) -> list[dict[str, Any]]:
        """Labels that came after a place, oldest first, as plain data with their `seq`."""
        rows = self.rows("SELECT * FROM label WHERE seq > ? ORDER BY seq LIMIT ?", [seq, limit])
        return [
            {
                key: json.loads(value) if key in JSON_COLUMNS and value is not None else value
                for key, value in row.items()
            }
            for row in rows
        ]

    def iterations_after(self, seq: int, limit: int) -> list[tuple[int, RunEvent]]:
        """Finished iterations of all runs that came after a place, oldest first, each with its place."""
        rows = self.rows(
            "SELECT * FROM run_event WHERE seq > ? AND kind = 'iteration' ORDER BY seq LIMIT ?", [seq, limit]
        )
        return [(row["seq"], RunEvent(**{**row, "data": json.loads(row["data"])})) for row in rows]


JSON_COLUMNS = {"ranks", "display_order", "unranked", "flags", "criteria"}
