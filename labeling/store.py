"""The one store of a project: records go in and come out, and nobody else knows SQL.

Here are annotators, their labels and who is shown what next; `labeling.stored_slates` keeps what is compared,
`labeling.stored_runs` what runs report, `labeling.stored_accounts` who may sign in, and `labeling.stored_webhooks` who
is told of it. What a method returns from is on disk (see `labeling.database`). Everything that is added has a key;
adding it again changes nothing.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.preferences import expand_all
from labeling.records import Annotator, Label, LabeledSlate, Slate, Split, UserError
from labeling.stored_accounts import StoredAccounts
from labeling.stored_runs import HumanLabel, RunEvent, StoredRuns
from labeling.stored_slates import StoredSlates
from labeling.stored_webhooks import StoredWebhooks

__all__ = ["Conflict", "HumanLabel", "Lease", "RunEvent", "Store"]

# What a slate must meet to be given to a person; values: k from, k to, annotator, now, annotator, overlap.
WANTED = """k BETWEEN ? AND ? AND id NOT IN (SELECT slate_id FROM standing WHERE annotator = ?)
    AND (SELECT count(*) FROM standing JOIN annotator ON annotator.id = standing.annotator
         WHERE slate_id = slate.id AND kind = 'human')
      + (SELECT count(*) FROM lease WHERE slate_id = slate.id AND expires > ? AND annotator != ?) < ?"""


# The labels that stand, answers to planned repeats among them.
ANSWERS = "(SELECT * FROM standing UNION ALL SELECT * FROM repeated)"


class Conflict(UserError):
    """The label contradicts one that stands (its key was used for another answer, or its slate is unknown)."""


@dataclass(frozen=True)
class Lease:
    """A slate given to one annotator until `expires` (Unix seconds), in the order in which it is to be shown."""

    slate: Slate
    order: tuple[int, ...]
    expires: float


class Store(StoredSlates, StoredRuns, StoredAccounts, StoredWebhooks):
    """The labels, slates and runs of a project."""

    # Annotators and labels

    def add_annotator(self, annotator: Annotator) -> None:
        """Add an annotator, or bring its weight and flip rate up to date."""
        with self.writing():
            self._add_annotator(annotator)

    def _add_annotator(self, a: Annotator) -> None:
        sql = "INSERT INTO annotator (id, kind, weight, flip_rate) VALUES (?, ?, ?, ?) "
        sql += "ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, weight = excluded.weight, "
        sql += "flip_rate = excluded.flip_rate"
        self.db.execute(sql, [a.id, a.kind, a.weight, a.flip_rate])

    def annotators(self) -> dict[str, Annotator]:
        """All annotators, by id."""
        rows = self.rows("SELECT * FROM annotator")
        return {r["id"]: Annotator(r["id"], r["kind"], r["weight"], r["flip_rate"]) for r in rows}

    def add_labels(self, labels: Iterable[Label]) -> int:
        """Add labels, all or none. One whose client_key is known with the same answer changes nothing.

        Returns how many were new. Raises Conflict for a known key with another answer, an unknown slate or
        annotator, ranks of the wrong length, or a second label that supersedes the same one.
        """
        with self.writing():
            return sum(map(self._add_label, labels))

    def _add_label(self, label: Label) -> int:
        known = self.rows("SELECT * FROM label WHERE client_key = ?", [label.client_key])
        if known:
            if _label(known[0]) != label:
                raise Conflict(
                    f"the client_key {label.client_key!r} was already used for another answer: choose a new one"
                )
            return 0
        k = self.rows("SELECT k FROM slate WHERE id = ?", [label.slate_id])
        if not k:
            raise Conflict(f"there is no slate {label.slate_id!r} in this project: import its candidates first")
        for name, values in (("ranks", label.ranks), ("order", label.order)):
            if values and len(values) != k[0]["k"]:
                raise Conflict(f"{name} has {len(values)} entries for a slate of {k[0]['k']} candidates")
        if not self.rows("SELECT 1 FROM annotator WHERE id = ?", [label.annotator]):
            raise Conflict(f"the annotator {label.annotator!r} is not known to this project")
        if label.supersedes is not None:
            old = self.rows(f"SELECT slate_id, annotator FROM {ANSWERS} WHERE client_key = ?", [label.supersedes])
            if old != [{"slate_id": label.slate_id, "annotator": label.annotator}]:
                raise Conflict(f"{label.supersedes!r} is not a standing label of {label.annotator} on this slate")
        given = [label.client_key, label.slate_id, label.annotator, label.outcome, _json(label.ranks)]
        said = [json.dumps(x, ensure_ascii=False) for x in (label.unranked, label.flags, label.criteria)]
        judged = [label.probability, label.strength, _json(label.order), label.seconds, label.reason]
        self.db.execute(
            "INSERT INTO label (client_key, slate_id, annotator, outcome, ranks, probability, strength, "
            "display_order, seconds, reason, supersedes, created, unranked, flags, criteria, purpose) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [*given, *judged, label.supersedes, time.time(), *said, label.purpose],
        )
        self.db.execute("DELETE FROM lease WHERE slate_id = ? AND annotator = ?", [label.slate_id, label.annotator])
        return 1

    def labels(
        self, *, annotator: str | None = None, slate_id: str | None = None, history: bool = False
    ) -> list[Label]:
        """Labels that stand (with `history`, also the superseded and undone), in the order in which they came."""
        rows = self.rows(
            f"SELECT * FROM {'label' if history else 'standing'} "
            "WHERE (? IS NULL OR annotator = ?) AND (? IS NULL OR slate_id = ?) ORDER BY seq",
            [annotator, annotator, slate_id, slate_id],
        )
        return [_label(row) for row in rows]

    def labeled_slates(self, run: str | None = None, split: Split | None = None) -> list[LabeledSlate]:
        """Slates that have a standing label, with all of these and the preferences that they expand to."""
        labels: dict[str, list[Label]] = defaultdict(list)
        for label in self.labels():
            labels[label.slate_id].append(label)
        annotators = self.annotators()
        return [
            LabeledSlate(slate, tuple(labels[slate.id]), expand_all(labels[slate.id], annotators))
            for slate in self.slates(run=run, split=split, answered=True)
        ]

    # Leases: which slate an annotator sees next

    def lease(
        self,
        annotator: str,
        order_of: Callable[[Slate], Sequence[int]],
        k: tuple[int, int],
        seconds: float,
        overlap: int = 1,
        ahead: int = 0,
    ) -> Lease | None:
        """Give `annotator` the newest slate of k[0]..k[1] candidates that still wants an answer from a person.

        A slate wants answers while fewer than `overlap` people have answered it or hold it. The annotator's own
        live leases come first, in their turn, so a reload shows the same slate in the same order. ahead: how many
        of these to pass over; 1 gives the slate that comes after the current one, and it cannot change any more.
        `order_of(slate)` draws the order for a new lease.
        """
        now = time.time()
        with self.writing():
            wanted = self.rows(
                "SELECT slate_id AS id, turn FROM lease JOIN slate ON slate.id = slate_id "
                "WHERE annotator = ? AND expires > ? AND k BETWEEN ? AND ? ORDER BY turn LIMIT 1 OFFSET ?",
                [annotator, now, *k, ahead],
            ) or self.rows(
                "SELECT id, (SELECT coalesce(max(turn), 0) + 1 FROM lease WHERE annotator = ?) AS turn FROM slate "
                f"WHERE {WANTED} AND id NOT IN (SELECT slate_id FROM lease WHERE annotator = ? AND expires > ?) "
                "ORDER BY seq DESC LIMIT 1",
                [annotator, *k, annotator, now, annotator, overlap, annotator, now],
            )
            if not wanted:
                return None
            slate = self.slate(wanted[0]["id"])
            assert slate is not None
            order = self._shown_order(slate.id, annotator) or tuple(order_of(slate))
            self._add_lease(slate.id, annotator, order, now + seconds, wanted[0]["turn"])
        return Lease(slate, order, now + seconds)

    def _shown_order(self, slate_id: str, annotator: str) -> tuple[int, ...]:
        """The order of this person's lease, also of one that ran out: two open pages must never differ."""
        rows = self.rows("SELECT display_order FROM lease WHERE slate_id = ? AND annotator = ?", [slate_id, annotator])
        return tuple(json.loads(rows[0]["display_order"])) if rows else ()

    def _add_lease(self, slate_id: str, annotator: str, order: Sequence[int], expires: float, turn: int) -> None:
        self.db.execute(
            "INSERT INTO lease (slate_id, annotator, display_order, expires, turn) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE "
            "SET display_order = excluded.display_order, expires = excluded.expires, turn = excluded.turn",
            [slate_id, annotator, json.dumps(order), expires, turn],
        )

    def waiting(self, annotator: str, k: tuple[int, int], overlap: int = 1) -> int:
        """How many slates of k[0]..k[1] candidates this annotator holds or could still be given."""
        values = [*k, annotator, time.time(), annotator, overlap]
        return self.rows(f"SELECT count(*) AS n FROM slate WHERE {WANTED}", values)[0]["n"]

    def counts(self) -> dict[str, int]:
        """How many standing labels each annotator has given."""
        rows = self.rows("SELECT annotator, count(*) AS n FROM standing GROUP BY annotator ORDER BY annotator")
        return {row["annotator"]: row["n"] for row in rows}

    def answer_lease(
        self, client_key: str, slate_id: str, annotator: str, label_in: Callable[[tuple[int, ...]], Label]
    ) -> bool:
        """Add the label that `label_in(order)` makes of the order in which the slate was shown.

        The same key with the same answer again changes nothing. Returns whether the label is new. Raises Conflict
        when this annotator holds no lease on the slate (also one that ran out is good), and as `add_labels` does.
        """
        with self.writing():
            known = self.rows("SELECT * FROM label WHERE client_key = ?", [client_key])
            order = _label(known[0]).order if known else self._shown_order(slate_id, annotator)
            if not order:
                raise Conflict("this comparison is not open for you: it was answered already, or never given to you")
            return bool(self._add_label(label_in(order)))

    def take_back(self, client_key: str, annotator: str, k: tuple[int, int], seconds: float) -> bool:
        """Undo the annotator's last standing label on a slate of k[0]..k[1] candidates, and make it their current one.

        The same key again changes nothing. Returns whether something was taken back now. Raises Conflict when
        there is nothing to take back, or the key belongs to something else.
        """
        with self.writing():
            known = self.rows("SELECT annotator, outcome FROM label WHERE client_key = ?", [client_key])
            if known == [{"annotator": annotator, "outcome": "undone"}]:
                return False
            last = self.rows(
                f"SELECT answer.* FROM {ANSWERS} AS answer JOIN slate ON slate.id = slate_id "
                "WHERE annotator = ? AND k BETWEEN ? AND ? ORDER BY answer.seq DESC LIMIT 1",
                [annotator, *k],
            )
            if not last:
                raise Conflict("there is nothing to take back")
            old = _label(last[0])
            undone = Label(old.slate_id, annotator, "undone", client_key, order=old.order, supersedes=old.client_key)
            self._add_label(undone)
            first = self.rows("SELECT coalesce(min(turn), 0) - 1 AS turn FROM lease WHERE annotator = ?", [annotator])
            self._add_lease(old.slate_id, annotator, old.order, time.time() + seconds, first[0]["turn"])
            return True


def _json(values: Sequence[int] | None) -> str | None:
    return None if values is None else json.dumps(values)


def _label(row: Mapping[str, Any]) -> Label:
    return Label(
        slate_id=row["slate_id"],
        annotator=row["annotator"],
        outcome=row["outcome"],
        client_key=row["client_key"],
        ranks=None if row["ranks"] is None else tuple(json.loads(row["ranks"])),
        probability=row["probability"],
        strength=row["strength"],
        order=tuple(json.loads(row["display_order"])),
        seconds=row["seconds"],
        reason=row["reason"],
        supersedes=row["supersedes"],
        unranked=tuple(json.loads(row["unranked"])),
        flags=tuple(json.loads(row["flags"])),
        criteria=tuple((name, choice) for name, choice in json.loads(row["criteria"])),
        purpose=row["purpose"],
    )
