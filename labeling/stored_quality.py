"""How people's work is checked, as the store keeps it: a project's settings and the items with a known answer."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache

from labeling.records import UserError
from labeling.settings import Settings, parse_settings
from labeling.stored_slates import StoredSlates


class StoredQuality(StoredSlates):
    """The part of `labeling.store.Store` that knows how people's work is checked."""

    def settings(self) -> Settings:
        """The project's settings. Raises UserError for values that this version does not know."""
        return _settings(tuple((row["key"], row["value"]) for row in self.rows("SELECT * FROM setting")))

    def set_settings(self, changes: Mapping[str, str]) -> Settings:
        """Change settings, given as text by key, and return all. Raises UserError and changes nothing for a bad one."""
        with self.writing():
            known = {row["key"]: row["value"] for row in self.rows("SELECT * FROM setting")}
            changed = parse_settings({**known, **changes})
            for key, value in changes.items():
                self.db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", [key, value])
            if "overlap" in changes:
                self.db.execute("UPDATE slate SET closed = 0, taken_until = 0")
        return changed

    # Annotators whose labels count for nothing

    def revoke(self, annotator: str, reason: str, author: str) -> int:
        """Let an annotator's labels count for nothing from now on, and give them no more slates.

        The labels stay, and `restore` lets them count again. Returns how many stood. Raises UserError for an annotator
        that nobody knows or that is revoked already, and for a reason that says nothing.
        """
        if not reason.strip():
            raise UserError("revoking somebody needs a reason: it stands beside every figure that changes by it")
        with self.writing():
            if not self.rows("SELECT 1 FROM annotator WHERE id = ?", [annotator]):
                raise UserError(f"there is no annotator {annotator!r}: `prefloop quality` lists them")
            if annotator in self.revoked():
                raise UserError(f"{annotator} is revoked already")
            stood = self.rows("SELECT count(*) AS n FROM standing WHERE annotator = ?", [annotator])[0]["n"]
            sql = "INSERT INTO revocation (annotator, reason, author, created) VALUES (?, ?, ?, ?)"
            self.db.execute(sql, [annotator, reason.strip(), author, time.time()])
            # Their page may be open: if they come back, its order is still the one that they were shown.
            self.db.execute("UPDATE lease SET expires = 0 WHERE annotator = ?", [annotator])
            sql = "UPDATE slate SET closed = 0, taken_until = 0 WHERE id IN (SELECT slate_id FROM label "
            sql += "WHERE annotator = ?1 UNION SELECT slate_id FROM lease WHERE annotator = ?1)"
            self.db.execute(sql, [annotator])
            return int(stood)

    def restore(self, annotator: str) -> int:
        """Let a revoked annotator's labels count again; returns how many. Raises UserError for one that is not."""
        with self.writing():
            sql = "UPDATE revocation SET lifted = ? WHERE annotator = ? AND lifted IS NULL"
            if not self.db.execute(sql, [time.time(), annotator]).rowcount:
                raise UserError(f"{annotator} is not revoked")
            return int(self.rows("SELECT count(*) AS n FROM standing WHERE annotator = ?", [annotator])[0]["n"])

    def revoked(self) -> dict[str, str]:
        """Why each revoked annotator is."""
        return {row["annotator"]: row["reason"] for row in self.rows("SELECT * FROM revoked")}

    # Items with a known answer

    def add_gold(self, slate_id: str, ranks: Sequence[int]) -> int:
        """Say which ranks are right for a slate; labels on it measure who gives them and never train.

        Returns whether that is new. Raises UserError for ranks of the wrong length, for a slate with another known
        answer, and for one that people or judges have answered already or that a run asked about: its labels may have
        trained something.
        """
        with self.writing():
            k = self.rows("SELECT k FROM slate WHERE id = ?", [slate_id])[0]["k"]
            if len(ranks) != k or not all(1 <= rank <= k for rank in ranks):
                raise UserError(f"the known answer {list(ranks)} does not fit: give {k} ranks from 1 (best) to {k}")
            known = self.rows("SELECT ranks FROM gold_item WHERE slate_id = ?", [slate_id])
            if known:
                if json.loads(known[0]["ranks"]) != list(ranks):
                    raise UserError(f"the slate {slate_id} has another known answer already: leave one of them out")
                return 0
            if self.rows("SELECT 1 FROM slate WHERE id = ? AND run != ''", [slate_id]) or self.rows(
                "SELECT 1 FROM label WHERE slate_id = ?", [slate_id]
            ):
                raise UserError(f"the slate {slate_id} teaches already: an item with a known answer cannot do both")
            self.db.execute("INSERT INTO gold_item VALUES (?, ?)", [slate_id, json.dumps(list(ranks))])
            return 1

    def gold(self) -> dict[str, tuple[int, ...]]:
        """The known ranks of each item that has a known answer, by slate."""
        return {row["slate_id"]: tuple(json.loads(row["ranks"])) for row in self.rows("SELECT * FROM gold_item")}


@lru_cache(maxsize=8)
def _settings(given: tuple[tuple[str, str], ...]) -> Settings:
    return parse_settings(dict(given))
