"""How people's work is checked, as the store keeps it: a project's settings and the items with a known answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from labeling.records import UserError
from labeling.settings import Settings, parse_settings
from labeling.stored_slates import StoredSlates


class StoredQuality(StoredSlates):
    """The part of `labeling.store.Store` that knows how people's work is checked."""

    def settings(self) -> Settings:
        """The project's settings. Raises UserError for values that this version does not know."""
        return parse_settings({row["key"]: row["value"] for row in self.rows("SELECT * FROM setting")})

    def set_settings(self, changes: Mapping[str, str]) -> Settings:
        """Change settings, given as text by key, and return all. Raises UserError and changes nothing for a bad one."""
        with self.writing():
            known = {row["key"]: row["value"] for row in self.rows("SELECT * FROM setting")}
            changed = parse_settings({**known, **changes})
            for key, value in changes.items():
                self.db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", [key, value])
        return changed

    # Items with a known answer

    def add_gold(self, slate_id: str, ranks: Sequence[int]) -> int:
        """Say which ranks are right for a slate; labels on it measure who gives them and never train.

        Returns whether that is new. Raises UserError for a slate with another known answer, and for one that people
        or judges have answered already or that a run asked about: its labels may have trained something.
        """
        with self.writing():
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
