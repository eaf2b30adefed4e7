"""The one store of a project: records go in and come out, and nobody else knows SQL.

Here are annotators and their labels; `labeling.stored_slates` keeps what is compared, `labeling.stored_leases` who is
shown what next, `labeling.stored_requests` what people are to answer because a judge did, `labeling.stored_quality` how
people's work is checked, `labeling.stored_judging` what judges asked and spent, `labeling.stored_runs` what runs
report, `labeling.stored_accounts` who may sign in, and `labeling.stored_webhooks` who is told of it. What a method
returns from is on disk (see `labeling.database`). Everything that is added has a key; adding it again changes nothing.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from labeling import quality_tables
from labeling.assignment import REPEAT_AFTER
from labeling.judge_quality import JudgeQuality, compare, measure_judge, soft_labels
from labeling.leaderboard import Standing, leaderboard
from labeling.prediction_powered import WinRate, win_rates
from labeling.preferences import Calibrated, expand_all, with_doubt, with_probability
from labeling.quality import Quality, fitted, measure, reliabilities
from labeling.quality_tables import Table
from labeling.records import Annotator, Label, LabeledSlate, Split, UserError
from labeling.reliability import Reliability
from labeling.soft_labels import SoftLabels
from labeling.stored_accounts import StoredAccounts
from labeling.stored_judging import StoredJudging
from labeling.stored_leases import SKIPS_BEYOND, Lease, StoredLeases
from labeling.stored_runs import HumanLabel, RunEvent, StoredRuns
from labeling.stored_slates import label_of
from labeling.stored_webhooks import StoredWebhooks
from labeling.trust import Trust, trust_in

__all__ = ["Conflict", "HumanLabel", "Lease", "RunEvent", "Store"]

# The labels that stand, answers to planned repeats among them.
ANSWERS = "(SELECT * FROM standing UNION ALL SELECT * FROM repeated)"

TOO_LATE = "what you skipped went to others, and no more people are asked about it: your skip stays"


class Conflict(UserError):
    """The label contradicts one that stands (its key was used for another answer, or its slate is unknown)."""


class Store(StoredLeases, StoredJudging, StoredRuns, StoredAccounts, StoredWebhooks):
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

    def introduce(self, a: Annotator) -> None:
        """Add an annotator unless it is there: one that is keeps the weight that somebody gave it."""
        with self.writing() as db:
            sql = "INSERT OR IGNORE INTO annotator (id, kind, weight, flip_rate) VALUES (?, ?, ?, ?)"
            db.execute(sql, [a.id, a.kind, a.weight, a.flip_rate])

    def annotators(self) -> dict[str, Annotator]:
        """All annotators, by id."""
        rows = self.rows("SELECT * FROM annotator")
        return {r["id"]: Annotator(r["id"], r["kind"], r["weight"], r["flip_rate"]) for r in rows}

    def add_labels(self, labels: Iterable[Label], created: Mapping[str, float] | None = None) -> int:
        """Add labels, all or none. One whose client_key is known with the same answer changes nothing.

        created: when labels were given, in Unix seconds by client_key, where that was not now.
        Returns how many were new. Raises Conflict for a known key with another answer, an unknown slate or
        annotator, ranks of the wrong length, or a second label that supersedes the same one.
        """
        with self.writing():
            return sum(self._add_label(label, (created or {}).get(label.client_key)) for label in labels)

    def _add_label(self, label: Label, created: float | None = None) -> int:
        known = self.rows("SELECT * FROM label WHERE client_key = ?", [label.client_key])
        if known:
            if label_of(known[0]) != label:
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
            [*given, *judged, label.supersedes, time.time() if created is None else created, *said, label.purpose],
        )
        self.db.execute("DELETE FROM lease WHERE slate_id = ? AND annotator = ?", [label.slate_id, label.annotator])
        self._close(label.slate_id)
        return 1

    def _close(self, slate_id: str) -> None:
        """Note whether a slate has its answers from people; whatever could change that for others opens them again.

        Who skips gives no answer. One that several people skip is closed all the same: nobody can answer it.
        """
        overlap = self.settings().overlap
        self.db.execute(
            "UPDATE slate SET taken_until = 0, closed = "
            "(SELECT count(*) FILTER (WHERE outcome != 'skip') >= ? OR count(*) >= ? FROM standing "
            "JOIN annotator ON annotator.id = standing.annotator WHERE slate_id = slate.id AND kind = 'human') "
            "WHERE id = ?",
            [overlap, overlap + SKIPS_BEYOND, slate_id],
        )

    def labels(
        self, *, annotator: str | None = None, slate_id: str | None = None, history: bool = False
    ) -> list[Label]:
        """Labels that stand (with `history`, also the superseded and undone), in the order in which they came."""
        rows = self.rows(
            f"SELECT * FROM {'label' if history else 'standing'} "
            "WHERE (? IS NULL OR annotator = ?) AND (? IS NULL OR slate_id = ?) ORDER BY seq",
            [annotator, annotator, slate_id, slate_id],
        )
        return [label_of(row) for row in rows]

    def labels_on(self, annotator: str, slate_ids: Sequence[str]) -> dict[str, Label]:
        """The standing label of an annotator on each of these slates, by slate."""
        rows = self.rows(
            "SELECT * FROM standing WHERE slate_id IN (SELECT value FROM json_each(?)) AND annotator = ? ORDER BY seq",
            [json.dumps(list(slate_ids)), annotator],
        )
        return {row["slate_id"]: label_of(row) for row in rows}

    def label_times(self) -> dict[str, float]:
        """When each label was given, in Unix seconds, by client_key."""
        return {row["client_key"]: row["created"] for row in self.rows("SELECT client_key, created FROM label")}

    def labeled_slates(self, run: str | None = None, split: Split | None = None) -> list[LabeledSlate]:
        """Slates that have a standing label, with those that count and the preferences that they expand to.

        Not among them are items with a known answer: what is said about them is a measurement. Where somebody decided
        between people, that decision counts alone. Flip rates are what answers show (see `labeling.reliability`), or of
        judges, pair by pair, what the setting `calibration` makes of them; their labels stay as they were given.
        """
        return self._expanded(run, split, with_doubt)[0]

    def labeled_with_trust(self, run: str | None = None) -> tuple[list[LabeledSlate], dict[str, Trust]]:
        """The `labeled_slates`, and what each annotator's labels counted for in them."""
        slates, declared, found, soft = self._expanded(run, None, with_doubt)
        return slates, trust_in([label for s in slates for label in s.labels], declared, found, soft)

    def _expanded(
        self, run: str | None, split: Split | None, calibrated: Calibrated
    ) -> tuple[list[LabeledSlate], dict[str, Annotator], dict[str, Reliability], dict[str, SoftLabels]]:
        labels: dict[str, list[Label]] = defaultdict(list)
        standing, gold, declared = self.labels(), self.gold(), self.annotators()
        for label in standing:
            labels[label.slate_id].append(label)
        audits = self.audits()
        unknown = [label for label in standing if label.slate_id not in gold]
        soft = soft_labels(self.settings().calibration, unknown, declared, audits)
        found = reliabilities(standing, declared, gold, audits)
        annotators = fitted(declared, found)
        slates = [
            LabeledSlate(slate, counting, expand_all(counting, annotators, soft, calibrated))
            for slate in self.slates(run=run, split=split, answered=True)
            if slate.id not in gold
            for counting in [_counting(labels[slate.id])]
        ]
        return slates, declared, found, soft

    def quality(self) -> Quality:
        """How well everybody does, and how far people agree."""
        repeats = [label_of(row) for row in self.rows("SELECT * FROM repeated ORDER BY seq")]
        return measure(self.labels(), repeats, self.annotators(), self.gold(), self.revoked(), self.audits())

    def judge_quality(self) -> list[JudgeQuality]:
        """How well each judge fits people, of those who answered a slate that people answered too."""
        annotators, gold, audits = self.annotators(), self.gold(), self.audits()
        rows = self.rows(
            "SELECT * FROM standing WHERE slate_id IN (SELECT slate_id FROM standing JOIN annotator "
            "ON annotator.id = annotator WHERE kind = 'human') ORDER BY seq"
        )
        labels = [label_of(row) for row in rows if row["slate_id"] not in gold]
        in_use = soft_labels(self.settings().calibration, labels, annotators, audits)
        people = [a.id for a in annotators.values() if a.kind == "human"]
        found = []
        for judge in (a.id for a in annotators.values() if a.kind == "judge"):
            compared, audit = compare(judge, labels, people, audits.get(judge, {}))
            if compared:
                method = in_use[judge].method if judge in in_use else "raw"
                found.append(measure_judge(judge, compared, audit, method))
        return found

    def win_rates(self) -> list[WinRate]:
        """How often policies beat each other, by each judge, by people, and by both together."""
        gold, annotators = self.gold(), self.annotators().values()
        labels = [label for label in self.labels() if label.slate_id not in gold]
        people, judges = ([a.id for a in annotators if a.kind == kind] for kind in ("human", "judge"))
        return win_rates(self.slates(answered=True), labels, people, judges, self.audits())

    def leaderboard(self) -> list[Standing]:
        """The policies that were compared, best first: by the probabilities of judges, calibrated where they are."""
        return leaderboard(self._expanded(None, None, with_probability)[0])

    def figure(self, name: str) -> Table:
        """One of the figures of the Quality page (see `labeling.quality_tables`)."""
        figures: dict[str, Callable[[], Table]] = {
            "annotators": lambda: quality_tables.annotators(self.quality()),
            "agreement": lambda: quality_tables.agreement(self.quality()),
            "judges": lambda: quality_tables.judges(self.judge_quality()),
            "reliability": lambda: quality_tables.reliability(self.judge_quality()),
            "requests": lambda: quality_tables.requests(self.request_counts()),
            "winrates": lambda: quality_tables.winrates(self.win_rates()),
            "leaderboard": lambda: quality_tables.leaderboard(self.leaderboard()),
            "progress": lambda: quality_tables.progress(self.labels(), self.label_times(), self._kinds()),
        }
        return figures[name]()

    def _kinds(self) -> dict[str, str]:
        return {a.id: a.kind for a in self.annotators().values()}

    # What people are given, and what they answer

    def counts(self) -> dict[str, int]:
        """How many answers of each annotator stand; planned repeats count, or a person could tell them apart."""
        rows = self.rows(f"SELECT annotator, count(*) AS n FROM {ANSWERS} GROUP BY annotator ORDER BY annotator")
        return {row["annotator"]: row["n"] for row in rows}

    def given(self, annotator: str) -> int:
        """How many answers of one annotator stand, planned repeats among them."""
        return int(self.rows(f"SELECT count(*) AS n FROM {ANSWERS} WHERE annotator = ?", [annotator])[0]["n"])

    def answer_lease(
        self, client_key: str, slate_id: str, annotator: str, label_in: Callable[[tuple[int, ...]], Label]
    ) -> bool:
        """Add the label that `label_in(order)` makes of the order in which the slate was shown.

        Its purpose is the lease's. The same key with the same answer again changes nothing. Returns whether the label
        is new. Raises Conflict when this annotator holds no lease on the slate (also one that ran out is good), and as
        `add_labels` does.
        """
        with self.writing():
            known = self.rows("SELECT * FROM label WHERE client_key = ?", [client_key])
            shown = (label_of(known[0]).order, known[0]["purpose"]) if known else self._shown(slate_id, annotator)
            if shown is None or not shown[0]:
                raise Conflict("this comparison is not open for you: it was answered already, or never given to you")
            order, purpose = shown
            return bool(self._add_label(replace(label_in(order), purpose=purpose)))

    def recent(self, annotator: str) -> list[Label]:
        """The annotator's last answers that stand and were shown in a recorded order, newest first.

        They are so few that a slate and its planned repeat are never both among them: who sees both could make them
        agree.
        """
        rows = self.rows(
            f"SELECT * FROM {ANSWERS} WHERE annotator = ? AND display_order != '[]' AND seq > coalesce((SELECT seq "
            "FROM label WHERE annotator = ? AND outcome != 'undone' ORDER BY seq DESC LIMIT 1 OFFSET ?), 0) "
            "ORDER BY seq DESC",
            [annotator, annotator, REPEAT_AFTER],
        )
        return [label_of(row) for row in rows]

    def revise(self, client_key: str, replaces: str, annotator: str, label_in: Callable[[Label], Label]) -> bool:
        """Put the label that `label_in(old)` makes in the place of a recent one; its purpose stays what it was.

        The same key with the same answer again changes nothing. Returns whether the label is new. Raises Conflict when
        `replaces` is not among the annotator's recent ones, as `take_back` for a skip, and as `add_labels` does.
        """
        with self.writing():
            known = self.rows("SELECT supersedes FROM label WHERE client_key = ?", [client_key])
            old = self.rows("SELECT * FROM label WHERE client_key = ? AND annotator = ?", [replaces, annotator])
            if known == [{"supersedes": replaces}]:
                new = label_in(label_of(old[0]))
            else:
                recent = {label.client_key: label for label in self.recent(annotator)}
                if replaces not in recent:
                    raise Conflict("this answer cannot be changed any more: it was replaced, or it is too long ago")
                new = label_in(recent[replaces])
                if new.outcome != "skip" and self._went_to_others(recent[replaces]):
                    raise Conflict(TOO_LATE)
            purpose = label_of(old[0]).purpose
            return bool(self._add_label(replace(new, purpose=purpose, supersedes=replaces)))

    def take_back(self, client_key: str, annotator: str, k: tuple[int, int], seconds: float) -> bool:
        """Undo the newest of the annotator's recent labels on k[0]..k[1] candidates, and make it their current one.

        What can be changed can be taken back, and nothing older (see `recent`). The same key again changes nothing.
        Returns whether something was taken back now. Raises Conflict when there is nothing to take back, when what was
        skipped has all its people by now, and when the key belongs to something else.
        """
        with self.writing():
            known = self.rows("SELECT annotator, outcome FROM label WHERE client_key = ?", [client_key])
            if known == [{"annotator": annotator, "outcome": "undone"}]:
                return False
            old = next((label for label in self.recent(annotator) if k[0] <= len(label.order) <= k[1]), None)
            if old is None:
                raise Conflict(f"there is nothing to take back: that goes for your last {REPEAT_AFTER} answers alone")
            if self._went_to_others(old):
                raise Conflict(TOO_LATE)
            self._add_label(
                Label(old.slate_id, annotator, "undone", client_key, order=old.order, supersedes=old.client_key)
            )
            first = self.rows("SELECT coalesce(min(turn), 0) - 1 AS turn FROM lease WHERE annotator = ?", [annotator])
            self._add_lease(old.slate_id, annotator, old.order, time.time() + seconds, first[0]["turn"], old.purpose)
            return True


def _counting(labels: Sequence[Label]) -> tuple[Label, ...]:
    """The labels of a slate that teach: a decision, if there is one."""
    return tuple(label for label in labels if label.decides) or tuple(labels)


def _json(values: Sequence[int] | None) -> str | None:
    return None if values is None else json.dumps(values)
