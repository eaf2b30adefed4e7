"""What runs report, as the store keeps it: events, and which labels each fit was given."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from labeling.database import ProjectDatabase


@dataclass(frozen=True)
class RunEvent:
    """Something that a run reports: `kind` names it, `data` is JSON. `seq` orders all events of a project."""

    run: str
    iteration: int
    kind: str
    data: Mapping[str, Any]
    seq: int = 0
    created: float = 0.0


@dataclass(frozen=True)
class HumanLabel:
    """A person's standing label seen from a run: `first_fit` is the iteration whose fit it entered first.

    ours: the slate belongs to that run.
    """

    slate_id: str
    annotator: str
    outcome: str
    split: str
    ours: bool
    first_fit: int | None


class StoredRuns(ProjectDatabase):
    """The part of `labeling.store.Store` that knows what runs report."""

    # What runs report

    def add_event(self, event: RunEvent) -> None:
        """Append what a run reports."""
        with self.writing():
            values = [event.run, event.iteration, event.kind, json.dumps(event.data), time.time()]
            self.db.execute(
                "INSERT INTO run_event (run, iteration, kind, data, created) VALUES (?, ?, ?, ?, ?)", values
            )

    def events(self, run: str | None = None, kind: str | None = None, after: int = 0) -> list[RunEvent]:
        """Events with seq > `after`, oldest first."""
        rows = self.rows(
            "SELECT * FROM run_event WHERE seq > ? AND (? IS NULL OR run = ?) AND (? IS NULL OR kind = ?) ORDER BY seq",
            [after, run, run, kind, kind],
        )
        return [RunEvent(**{**row, "data": json.loads(row["data"])}) for row in rows]

    def add_fit(self, run: str, iteration: int, client_keys: Iterable[str]) -> None:
        """Record which labels a reward-model fit was given."""
        with self.writing():
            rows = [[run, iteration, key] for key in client_keys]
            self.db.conn.executemany("INSERT OR IGNORE INTO fit_label VALUES (?, ?, ?)", rows)

    def fit_labels(self, run: str, iteration: int) -> list[str]:
        """The client_keys of the labels that a fit was given."""
        rows = self.rows("SELECT client_key FROM fit_label WHERE run = ? AND iteration = ?", [run, iteration])
        return [row["client_key"] for row in rows]

    # What the live page and the report ask

    def runs(self) -> list[str]:
        """Names of all runs, the one that reported last first."""
        return [row["run"] for row in self.rows("SELECT run FROM run_event GROUP BY run ORDER BY max(seq) DESC")]

    def human_labels(self, run: str) -> list[HumanLabel]:
        """Standing labels of people, oldest first, each with the fit of `run` that it entered first."""
        rows = self.rows(
            "SELECT slate_id, annotator, outcome, split, slate.run = ? AS ours, first_fit FROM standing "
            "JOIN annotator ON annotator.id = standing.annotator AND kind = 'human' "
            "JOIN slate ON slate.id = slate_id JOIN prompt ON prompt.id = prompt_id "
            "LEFT JOIN (SELECT client_key, min(iteration) AS first_fit FROM fit_label WHERE run = ? "
            "           GROUP BY client_key) USING (client_key) ORDER BY standing.seq",
            [run, run],
        )
        return [HumanLabel(**{**row, "ours": bool(row["ours"])}) for row in rows]

    def label_marks(self) -> tuple[int, ...]:
        """Counters that move when a label is added, a fit is recorded, an annotator revoked or restored, people asked.

        They are cheap to ask, to see what is new.
        """
        row = self.rows(
            "SELECT coalesce((SELECT max(seq) FROM label), 0) AS labels, "
            "coalesce((SELECT max(rowid) FROM fit_label), 0) AS fits, "
            "(SELECT count(*) + count(lifted) FROM revocation) AS revocations, "
            "coalesce((SELECT max(rowid) FROM human_request), 0) AS requests"
        )[0]
        return tuple(row.values())
