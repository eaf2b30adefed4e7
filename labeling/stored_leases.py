"""Who is shown which slate, as the store keeps it: leases that run out, chosen and written in one transaction.

What a person is given next is a new slate, an item with a known answer, or one of their own mirrored; the settings say
at which rates. Of new slates, those come first that people are to answer because a judge did. Nobody gets the same
slate twice but as such a repeat. Where there is a qualifying round, a person gets items with a known answer until it is
over, and nothing more if they fail.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.assignment import AHEAD_SECONDS, FAIR_SHARE, REPEAT_AFTER, Queue, draw, kind_of_next
from labeling.qualifying import Qualifying, agreement
from labeling.quality import disputed_slates
from labeling.records import Label, Purpose
from labeling.stored_requests import StoredRequests
from labeling.stored_slates import label_of

MOST_COUNTED = 100
COUNTED_BY = 10  # where checks are mixed in: a step of the counter hides which of so many answers were to checks
PEOPLES_ANSWERS = """(SELECT count(*) FROM standing JOIN annotator ON annotator.id = standing.annotator
    WHERE slate_id = slate.id AND kind = 'human' AND outcome != 'skip')"""
HELD_BY_OTHERS = """FROM lease JOIN annotator ON annotator.id = lease.annotator
    WHERE slate_id = slate.id AND kind = 'human' AND expires > :now AND annotator != :who"""
# What a slate must meet to be given to a person. `closed` spares looking at what has its answers (see `Store._close`),
# and `taken_until` at what others hold, of which a crowd has thousands in front of what is free (see `_note_taken`).
WANTED = f"""closed = 0 AND taken_until <= :now AND k BETWEEN :least AND :most
    AND id NOT IN (SELECT slate_id FROM standing WHERE annotator = :who)
    AND id NOT IN (SELECT slate_id FROM gold_item)
    AND (:stale = 0 OR run = '' OR
         iteration + :stale >= (SELECT max(iteration) FROM slate AS newer WHERE newer.run = slate.run))
    AND {PEOPLES_ANSWERS} + (SELECT count(*) {HELD_BY_OTHERS}) < :overlap"""
# A slate that one person skips is for others, but one that so many more than the overlap skip is for nobody.
SKIPS_BEYOND = 2
GOLD_UNANSWERED = """SELECT slate_id FROM gold_item JOIN slate ON slate.id = slate_id
    WHERE k BETWEEN :least AND :most AND slate_id NOT IN (SELECT slate_id FROM standing WHERE annotator = :who)"""
HELD = "(SELECT slate_id FROM lease WHERE annotator = :who AND expires > :now)"

REQUESTED = f"""SELECT id FROM slate INDEXED BY slate_requested
    WHERE place IS NOT NULL AND {WANTED} AND id NOT IN {HELD} ORDER BY place LIMIT :most_new"""
NEWEST = f"""SELECT id FROM slate INDEXED BY slate_open
    WHERE {WANTED} AND id NOT IN {HELD} ORDER BY seq DESC LIMIT :most_new"""


@dataclass(frozen=True)
class Lease:
    """A slate given to one annotator for some time, in the order in which it is to be shown."""

    slate_id: str
    order: tuple[int, ...]
    purpose: Purpose = "teach"


class StoredLeases(StoredRequests):
    """The part of `labeling.store.Store` that knows who is shown what next."""

    def leases(
        self,
        annotator: str,
        order_of: Callable[[int], Sequence[int]],
        k: tuple[int, int],
        seconds: float,
        ahead: int = 0,
        queue: Queue = "new",
    ) -> list[Lease]:
        """Give `annotator` the newest slate of k[0]..k[1] candidates that wants an answer from a person, and some more.

        A slate wants answers while fewer people than the setting `overlap` have answered it or hold it. At the rates
        that are set, an item with a known answer or a mirrored repeat comes instead. The annotator's own live leases
        come first, in their turn, so a reload shows the same slate in the same order. ahead: how many come after the
        first, at most; what was given cannot change any more. They are filled up once a third of them is gone, since to
        look for several costs no more than for one. They run out sooner than the first, which is held for `seconds`,
        and where there are few slates they are few, so that others find some too. `order_of(k)` draws the order for a
        new lease. queue: "disputed" gives slates on which people contradict each other.
        """
        asked: dict[str, Any] = {"who": annotator, "least": k[0], "most": k[1], "now": time.time()}
        later = min(seconds, AHEAD_SECONDS)
        with self.writing():
            qualifying = self.qualifying(annotator)
            if qualifying and qualifying.failed:
                return []
            leases = self._held(asked, 1 + ahead, queue)
            self._renew(annotator, [lease.slate_id for lease in leases], asked["now"], seconds, later)
            if 3 * len(leases) > 2 * (1 + ahead):
                return leases
            most = self._fair(asked, len(leases), ahead) if ahead > 1 else ahead
            new = self._new(asked, most + 1 - len(leases))
            while len(leases) <= most and (chosen := self._choose(asked, queue, new)):
                until = asked["now"] + (later if leases else seconds)
                leases.append(self._give(annotator, *chosen, order_of, until))
            self._note_taken([lease.slate_id for lease in leases], asked["now"])
        return leases

    def _held(self, asked: dict[str, Any], most: int, queue: Queue) -> list[Lease]:
        """What this person holds, in its turn."""
        rows = self.rows(
            "SELECT slate_id, display_order, purpose FROM lease JOIN slate ON slate.id = slate_id "
            "WHERE annotator = :who AND expires > :now AND k BETWEEN :least AND :most "
            "AND (purpose = 'adjudicate') = :deciding ORDER BY turn LIMIT :limit",
            {**asked, "limit": most, "deciding": queue == "disputed"},
        )
        return [Lease(row["slate_id"], tuple(json.loads(row["display_order"])), row["purpose"]) for row in rows]

    def _renew(self, annotator: str, slate_ids: Sequence[str], now: float, first: float, later: float) -> None:
        """Let leases run for so many seconds from now, the first and the later ones; no time is shortened.

        A later one that has two thirds of its time left stays as it is: a dozen rows would be written at every answer.
        """
        self.db.execute(
            "UPDATE lease SET expires = max(expires, :now + CASE slate_id WHEN :first THEN :soon ELSE :later END) "
            "WHERE annotator = :who AND slate_id IN (SELECT value FROM json_each(:ids)) "
            "AND (slate_id = :first OR expires < :now + :later * 2 / 3)",
            {
                "first": next(iter(slate_ids), ""),
                "ids": json.dumps(slate_ids),
                "who": annotator,
                "now": now,
                "soon": first,
                "later": later,
            },
        )

    def _note_taken(self, slate_ids: Sequence[str], now: float) -> None:
        """Note until when slates have all people that they want, so that searches pass them by without counting.

        Whoever takes a lease or an answer away before its time sets `taken_until` back to 0: too early costs time
        alone, too late would keep a slate from everybody. Like leases, it is not written again while most is left.
        """
        self.db.execute(
            f"UPDATE slate SET taken_until = (SELECT min(expires) {HELD_BY_OTHERS}) "
            "WHERE id IN (SELECT value FROM json_each(:ids)) AND taken_until < :late "
            f"AND {PEOPLES_ANSWERS} + (SELECT count(*) {HELD_BY_OTHERS}) >= :overlap",
            {
                "ids": json.dumps(slate_ids),
                "who": "",  # everybody is another
                "now": now,
                "late": now + AHEAD_SECONDS * 2 / 3,
                "overlap": self.settings().overlap,
            },
        )

    def _went_to_others(self, skip: Label) -> bool:
        """Whether others have all the places of a slate that somebody skipped; any other answer keeps its place."""
        if skip.outcome != "skip" or skip.purpose != "teach":
            return False
        full = self.rows(
            "SELECT 1 FROM slate WHERE id = :slate AND id NOT IN (SELECT slate_id FROM gold_item) "
            f"AND {PEOPLES_ANSWERS} + (SELECT count(*) {HELD_BY_OTHERS}) >= :overlap",
            {"slate": skip.slate_id, "who": skip.annotator, "now": time.time(), "overlap": self.settings().overlap},
        )
        return bool(full)

    def _fair(self, asked: dict[str, Any], held: int, ahead: int) -> int:
        """How many slates a person may hold ahead: one, and more where there are many for all."""
        settings = self.settings()
        limit = {"overlap": settings.overlap, "stale": settings.stale_iterations, "enough": FAIR_SHARE * ahead}
        sql = f"SELECT count(*) AS n FROM (SELECT 1 FROM slate WHERE {WANTED} AND id NOT IN {HELD} LIMIT :enough)"
        return min(ahead, max(1, (held + int(self.rows(sql, {**asked, **limit})[0]["n"])) // FAIR_SHARE))

    def _give(
        self,
        annotator: str,
        slate_id: str,
        purpose: Purpose,
        order_of: Callable[[int], Sequence[int]],
        until: float,
    ) -> Lease:
        """Make a lease, behind all that this person holds; one that ran out comes back in the order that it had."""
        shown = self._shown(slate_id, annotator)
        k = self.rows("SELECT k FROM slate WHERE id = ?", [slate_id])[0]["k"]
        mirrored = self._mirrored(slate_id, annotator) if purpose == "repeat" else ()
        order = shown[0] if shown else mirrored or tuple(order_of(k))
        last = self.rows("SELECT coalesce(max(turn), 0) AS turn FROM lease WHERE annotator = ?", [annotator])
        self._add_lease(slate_id, annotator, order, until, last[0]["turn"] + 1, purpose)
        return Lease(slate_id, order, purpose)

    def _new(self, asked: dict[str, Any], most: int) -> Iterator[str]:
        """New slates in the order in which they are to be given, at most so many: each must be given before the next.

        They are looked for once and not for each, as what others hold lies in front of them.
        """
        settings = self.settings()
        rates = {**asked, "overlap": settings.overlap, "stale": settings.stale_iterations, "most_new": most}
        for source in (REQUESTED, NEWEST):
            for row in self.rows(source, rates):
                yield row["id"]

    def _choose(self, asked: dict[str, Any], queue: Queue, new: Iterator[str]) -> tuple[str, Purpose] | None:
        """What comes next, by the draw of this person's next place; what is drawn but lacking becomes a new slate."""
        if asked["who"] in self.revoked():
            return None
        if queue == "disputed":
            left = self._disputed(asked)
            return (left[0], "adjudicate") if left else None
        settings = self.settings()
        qualifying = self.qualifying(asked["who"])
        if qualifying and not qualifying.over:
            left = self._gold_left(asked)[: self._qualifying_left(qualifying, asked["who"])]
            return (left[0], "teach") if left else None
        given = self.rows(
            "SELECT (SELECT count(*) FROM label WHERE annotator = :who AND outcome != 'undone') "
            "+ (SELECT count(*) FROM lease WHERE annotator = :who AND expires > :now) AS n",
            asked,
        )[0]["n"]
        kind = kind_of_next(asked["who"], given, settings)
        found = self._gold_left(asked) if kind == "gold" else self._repeatable(asked) if kind == "repeat" else []
        if found:
            # Another draw than the one that chose the kind, so that which item it is hangs on nothing else.
            chosen = found[int(draw(asked["who"], given, "which") * len(found))]
            return chosen, "repeat" if kind == "repeat" else "teach"
        slate_id = next(new, None)
        return (slate_id, "teach") if slate_id else None

    def qualifying(self, annotator: str) -> Qualifying | None:
        """Where a person stands in the qualifying round; None where there is none, and for programs and judges."""
        settings = self.settings()
        if not settings.qualifying or not annotator.startswith("human:"):
            return None
        items = self.rows("SELECT count(*) AS n FROM gold_item")[0]["n"]
        # The items that came first, also when their answers were changed since.
        answers = self.rows(
            "SELECT standing.ranks AS given, gold_item.ranks AS known FROM standing "
            "JOIN gold_item USING (slate_id) WHERE annotator = ? ORDER BY (SELECT min(seq) FROM label AS first "
            "WHERE first.slate_id = standing.slate_id AND first.annotator = standing.annotator) LIMIT ?",
            [annotator, settings.qualifying],
        )
        ranks = [(a["given"] and json.loads(a["given"]), json.loads(a["known"])) for a in answers]
        wanted = min(settings.qualifying, items)
        return Qualifying(len(ranks), wanted, agreement(ranks), settings.qualifying_share) if wanted else None

    def _qualifying_left(self, qualifying: Qualifying, annotator: str) -> int:
        """How many more items a person is to be given before the round is over, besides those that they hold."""
        held = self.rows(
            "SELECT count(*) AS n FROM lease JOIN gold_item USING (slate_id) WHERE annotator = ? AND expires > ?",
            [annotator, time.time()],
        )
        return qualifying.of - qualifying.done - int(held[0]["n"])

    def _disputed(self, asked: dict[str, Any]) -> list[str]:
        """Slates that people contradict each other on, and that this person has neither answered nor been given."""
        rows = self.rows(
            "SELECT standing.*, slate_id IN (SELECT slate_id FROM standing WHERE annotator = :who) "
            f"OR slate_id IN {HELD} AS theirs FROM standing JOIN slate ON slate.id = slate_id "
            "WHERE k BETWEEN :least AND :most AND slate_id NOT IN (SELECT slate_id FROM gold_item) "
            "ORDER BY standing.seq",
            asked,
        )
        people = [row["id"] for row in self.rows("SELECT id FROM annotator WHERE kind = 'human'")]
        return disputed_slates([label_of(row) for row in rows if not row["theirs"]], people)

    def _gold_left(self, asked: dict[str, Any]) -> list[str]:
        """Items with a known answer that this person has neither answered nor been given."""
        rows = self.rows(f"{GOLD_UNANSWERED} AND slate_id NOT IN {HELD} ORDER BY seq", asked)
        return [row["slate_id"] for row in rows]

    def _repeatable(self, asked: dict[str, Any]) -> list[str]:
        """Slates that this person ranked long enough ago, and that they were not asked about again yet."""
        rows = self.rows(
            "SELECT slate_id FROM standing JOIN slate ON slate.id = slate_id WHERE annotator = :who "
            "AND k BETWEEN :least AND :most AND purpose = 'teach' AND outcome = 'ranked' AND display_order != '[]' "
            "AND slate_id NOT IN (SELECT slate_id FROM gold_item) "
            f"AND slate_id NOT IN (SELECT slate_id FROM repeated WHERE annotator = :who) AND slate_id NOT IN {HELD} "
            "AND standing.seq <= (SELECT seq FROM label WHERE annotator = :who AND outcome != 'undone' "
            "                     ORDER BY seq DESC LIMIT 1 OFFSET :after) ORDER BY standing.seq",
            {**asked, "after": REPEAT_AFTER},
        )
        return [row["slate_id"] for row in rows]

    def _mirrored(self, slate_id: str, annotator: str) -> tuple[int, ...]:
        """The order in which this person was shown the slate before, reversed."""
        rows = self.rows(
            "SELECT display_order FROM standing WHERE slate_id = ? AND annotator = ?", [slate_id, annotator]
        )
        return tuple(reversed(json.loads(rows[0]["display_order"])))

    def _shown(self, slate_id: str, annotator: str) -> tuple[tuple[int, ...], Purpose] | None:
        """Order and purpose of this person's lease, also of one that ran out: two open pages must never differ."""
        rows = self.rows(
            "SELECT display_order, purpose FROM lease WHERE slate_id = ? AND annotator = ?", [slate_id, annotator]
        )
        return (tuple(json.loads(rows[0]["display_order"])), rows[0]["purpose"]) if rows else None

    def _add_lease(
        self, slate_id: str, annotator: str, order: Sequence[int], expires: float, turn: int, purpose: Purpose
    ) -> None:
        self.db.execute(
            "INSERT INTO lease (slate_id, annotator, display_order, expires, turn, purpose) VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET display_order = excluded.display_order, expires = excluded.expires, "
            "turn = excluded.turn, purpose = excluded.purpose",
            [slate_id, annotator, json.dumps(order), expires, turn, purpose],
        )

    def extend_leases(self, annotator: str, seconds: float) -> int:
        """Keep what somebody holds who is still there. Returns how many live leases that are.

        The first in turn runs for `seconds` from now, the others for the shorter time of what nobody has seen yet.
        """
        now = time.time()
        with self.writing():
            held = self.rows(
                "SELECT slate_id FROM lease WHERE annotator = ? AND expires > ? ORDER BY turn", [annotator, now]
            )
            ids = [row["slate_id"] for row in held]
            self._renew(annotator, ids, now, seconds, min(seconds, AHEAD_SECONDS))
            self._note_taken(ids, now)
        return len(ids)

    def waiting(self, annotator: str, k: tuple[int, int], queue: Queue = "new") -> int:
        """How many slates of k[0]..k[1] candidates this annotator holds or could still be given from a queue.

        It counts to MOST_COUNTED: each request asks this, and nobody need know whether it is 300 or 100,000. Where
        checks are mixed in, new slates alone would make the exact number fall, so that one that stands still gives a
        check away. There it is told in whole tens, rounded up: it stands still at nearly every answer, and 0 means
        that there is nothing, as always.
        """
        settings = self.settings()
        values = {"who": annotator, "least": k[0], "most": k[1], "now": time.time()}
        values |= {"overlap": settings.overlap, "stale": settings.stale_iterations, "most_counted": MOST_COUNTED}
        qualifying = self.qualifying(annotator)
        if qualifying and qualifying.failed:
            return 0
        held = (
            "(SELECT count(*) FROM lease JOIN slate ON slate.id = slate_id WHERE annotator = :who AND expires > :now "
            "AND k BETWEEN :least AND :most AND (purpose = 'adjudicate') = :deciding)"
        )
        values |= {"deciding": queue == "disputed"}
        if queue == "disputed":
            return len(self._disputed(values)) + self.rows(f"SELECT {held} AS n", values)[0]["n"]
        if qualifying and not qualifying.over:
            here = self.rows(f"SELECT count(*) AS n FROM ({GOLD_UNANSWERED})", values)
            return min(here[0]["n"], qualifying.of - qualifying.done)
        left = self.rows(
            "SELECT (SELECT count(*) FROM "
            f"(SELECT 1 FROM slate WHERE {WANTED} AND id NOT IN {HELD} LIMIT :most_counted)) + {held} AS n",
            values,
        )[0]["n"]
        mixed = settings.gold_rate or settings.repeat_rate
        return -(-left // COUNTED_BY) * COUNTED_BY if mixed else left
