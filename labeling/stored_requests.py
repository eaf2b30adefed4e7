"""What people are to answer because a judge did, as the store keeps it: audits drawn at random, and doubtful cases.

A request only moves a slate to the front of the ordinary queue (see `labeling.stored_leases`), so who answers it cannot
tell it from any other.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from labeling.records import HumanRequest, RequestReason, Slate
from labeling.stored_quality import StoredQuality

COLUMNS = "slate_id, judge, reason, place, propensity"
ANSWERED = """EXISTS (SELECT 1 FROM standing JOIN annotator ON annotator.id = standing.annotator
    WHERE standing.slate_id = human_request.slate_id AND kind = 'human')"""
RANKED = """FROM slate WHERE EXISTS (SELECT 1 FROM standing WHERE slate_id = slate.id AND annotator = ?
    AND outcome = 'ranked') AND id NOT IN (SELECT slate_id FROM gold_item)"""
REASONS: dict[RequestReason, str] = {
    "audit": "drawn at random, to measure the judge by",
    "orders": "it contradicts itself when the order of showing changes",
    "margin": "it hardly prefers any answer",
    "reward_model": "the reward model prefers another answer",
}


class RequestCount(NamedTuple):
    """Of one judge and reason: slates that people are to answer, how many they did, and how many the judge ranked."""

    judge: str
    reason: RequestReason
    asked: int
    answered: int
    ranked: int

    @property
    def share(self) -> float:
        """What people are to answer of what the judge ranked."""
        return self.asked / max(1, self.ranked)


class StoredRequests(StoredQuality):
    """The part of `labeling.store.Store` that knows which judged slates people are to answer, and why."""

    def request_people(self, requests: Iterable[HumanRequest]) -> int:
        """Note requests; returns how many are new. One that is known takes the larger propensity, and else stays.

        Drawing by a larger share contains the draw by a smaller one, so all of it then had the larger chance.
        """
        new = 0
        with self.writing():
            for r in requests:
                known = self.rows(
                    "SELECT 1 FROM human_request WHERE slate_id = ? AND judge = ? AND reason = ?",
                    [r.slate_id, r.judge, r.reason],
                )
                new += not known
                self.db.execute(
                    f"INSERT INTO human_request ({COLUMNS}, created) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE "
                    "SET propensity = max(propensity, excluded.propensity)",
                    [r.slate_id, r.judge, r.reason, r.place, r.propensity, time.time()],
                )
                self.db.execute(
                    "UPDATE slate SET place = ? WHERE id = ? AND (place IS NULL OR place > ?)",
                    [r.place, r.slate_id, r.place],
                )
        return new

    def human_requests(self, judge: str | None = None) -> list[HumanRequest]:
        """What people are to answer (of one judge's), in its order in the queue."""
        sql = f"SELECT {COLUMNS} FROM human_request WHERE (? IS NULL OR judge = ?) ORDER BY place, slate_id, reason"
        return [HumanRequest(**row) for row in self.rows(sql, [judge, judge])]

    def audits(self) -> dict[str, dict[str, float]]:
        """Of each judge, the slates drawn for its audit, with their propensities."""
        found: dict[str, dict[str, float]] = defaultdict(dict)
        for row in self.rows("SELECT judge, slate_id, propensity FROM human_request WHERE reason = 'audit'"):
            found[row["judge"]][row["slate_id"]] = row["propensity"]
        return dict(found)

    def request_counts(self) -> list[RequestCount]:
        """How many slates people are to answer and did, by judge and reason."""
        rows = self.rows(
            f"SELECT judge, reason, count(*) AS asked, coalesce(sum({ANSWERED}), 0) AS answered FROM human_request "
            "GROUP BY judge, reason ORDER BY judge, reason"
        )
        ranked = {judge: self.count_ranked(judge) for judge in {row["judge"] for row in rows}}
        return [RequestCount(**row, ranked=ranked[row["judge"]]) for row in rows]

    def ranked_slates(self, annotator: str) -> Iterator[Slate]:
        """Slates that an annotator ranked and whose answer nobody knows beforehand, oldest first, page by page."""
        return self._page_by_page(RANKED, [annotator])

    def count_ranked(self, annotator: str) -> int:
        """How many slates `ranked_slates` gives."""
        return int(self.rows(f"SELECT count(*) AS n {RANKED}", [annotator])[0]["n"])

    def answered_by_people(self, slate_ids: Iterable[str]) -> set[str]:
        """Those of the slates that some person answered, in whatever way."""
        rows = self.rows(
            "SELECT DISTINCT slate_id FROM standing JOIN annotator ON annotator.id = standing.annotator "
            "WHERE kind = 'human' AND slate_id IN (SELECT value FROM json_each(?))",
            [json.dumps(list(slate_ids))],
        )
        return {row["slate_id"] for row in rows}
