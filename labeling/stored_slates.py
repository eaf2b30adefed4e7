"""What is compared, as the store keeps it: prompts, slates of candidates, and the segments that clips show."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from labeling.database import ProjectDatabase
from labeling.records import Candidate, Label, Lineage, Message, Prompt, Slate, Split
from labeling.segments import Segment, from_bytes, to_bytes

PAGE = 256


class StoredSlates(ProjectDatabase):
    """The part of `labeling.store.Store` that knows what is compared. Adding what is there already changes nothing."""

    # Prompts and slates

    def add_prompts(self, prompts: Iterable[Prompt]) -> int:
        """Add prompts; one that is there already keeps its split. Returns how many were new."""
        with self.writing():
            return sum(map(self._add_prompt, prompts))

    def _add_prompt(self, prompt: Prompt) -> int:
        messages = json.dumps([[m.role, m.content] for m in prompt.messages], ensure_ascii=False)
        values = [prompt.id, messages, prompt.split, prompt.category]
        return self.db.execute("INSERT OR IGNORE INTO prompt VALUES (?, ?, ?, ?)", values).rowcount

    def prompts(self, split: Split | None = None) -> list[Prompt]:
        """All prompts (of one split), in the order in which they came."""
        where, values = ("", []) if split is None else ("WHERE split = ?", [split])
        return [_prompt(row) for row in self.rows(f"SELECT * FROM prompt {where} ORDER BY rowid", values)]

    def prompt_splits(self) -> dict[str, Split]:
        """The split of every prompt, by prompt id."""
        return {row["id"]: row["split"] for row in self.rows("SELECT id, split FROM prompt")}

    def add_slates(self, slates: Iterable[Slate]) -> int:
        """Add slates and their prompts. Returns how many slates were new."""
        with self.writing():
            return sum(map(self._add_slate, slates))

    def _add_slate(self, slate: Slate) -> int:
        self._add_prompt(slate.prompt)
        lineage = slate.lineage
        values = [slate.id, slate.prompt.id, len(slate.candidates), lineage.run, lineage.iteration, lineage.selector]
        values += [lineage.propensity, lineage.reward_model, json.dumps(lineage.predicted), time.time()]
        added = self.db.execute(
            "INSERT OR IGNORE INTO slate (id, prompt_id, k, run, iteration, selector, propensity, reward_model, "
            "predicted, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        ).rowcount
        for position, c in enumerate(slate.candidates if added else ()):
            row = [slate.id, position, c.text, c.policy, int(c.finished), c.clip]
            self.db.execute("INSERT INTO candidate VALUES (?, ?, ?, ?, ?, ?)", row)
        return added

    def slates(
        self,
        *,
        id: str | None = None,
        ids: Sequence[str] | None = None,
        run: str | None = None,
        split: Split | None = None,
        unanswered_by: str | None = None,
        answered: bool = False,
    ) -> list[Slate]:
        """Slates that meet every given condition, in the order in which they came.

        unanswered_by: an annotator with no standing label on the slate. answered: some standing label exists.
        """
        conditions = {
            "slate.id = ?": id,
            "slate.id IN (SELECT value FROM json_each(?))": None if ids is None else json.dumps(list(ids)),
            "slate.run = ?": run,
            "prompt.split = ?": split,
            "slate.id NOT IN (SELECT slate_id FROM standing WHERE annotator = ?)": unanswered_by,
        }
        given = {sql: value for sql, value in conditions.items() if value is not None}
        clauses = [*given, *(["slate.id IN (SELECT slate_id FROM standing)"] if answered else [])]
        source = f"FROM slate JOIN prompt ON prompt.id = slate.prompt_id WHERE {' AND '.join(clauses) or '1'}"
        values = list(given.values())
        candidates: dict[str, list[Candidate]] = defaultdict(list)
        inside = f"SELECT candidate.* FROM candidate WHERE slate_id IN (SELECT slate.id {source})"
        for row in self.rows(f"{inside} ORDER BY slate_id, position", values):
            c = Candidate(row["text"], row["policy"], bool(row["finished"]), row["clip"])
            candidates[row["slate_id"]].append(c)
        rows = self.rows(f"SELECT prompt.*, slate.*, slate.id AS slate_id {source} ORDER BY seq", values)
        return [_slate(row, tuple(candidates[row["slate_id"]])) for row in rows]

    def slate(self, slate_id: str) -> Slate | None:
        """The slate of this id, if there is one."""
        return next(iter(self.slates(id=slate_id)), None)

    def _page_by_page(self, sql: str, values: list[Any]) -> Iterator[Slate]:
        """The slates of `FROM slate WHERE …`, oldest first; only a page of them is held at a time."""
        after = 0
        while rows := self.rows(f"SELECT seq, id {sql} AND seq > ? ORDER BY seq LIMIT ?", [*values, after, PAGE]):
            yield from self.slates(ids=[row["id"] for row in rows])
            after = rows[-1]["seq"]

    # Segments: what clips show

    def add_segments(self, segments: Iterable[Segment]) -> int:
        """Keep segments; one that is there already changes nothing. Returns how many were new."""
        with self.writing():
            return sum(map(self._add_segment, segments))

    def _add_segment(self, s: Segment) -> int:
        row = [s.id, s.environment, s.seed, s.start, to_bytes(s.actions), to_bytes(s.steps), s.gold, int(s.ended)]
        sql = "INSERT OR IGNORE INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        return self.db.execute(sql, [*row, time.time()]).rowcount

    def segments(self, ids: Iterable[str]) -> dict[str, Segment]:
        """Those of the named segments that are there, by id."""
        sql = "SELECT * FROM segment WHERE id IN (SELECT value FROM json_each(?))"
        rows = self.rows(sql, [json.dumps(list(ids))])
        return {row["id"]: _segment(row) for row in rows}


def _prompt(row: Mapping[str, Any]) -> Prompt:
    messages = tuple(Message(role, content) for role, content in json.loads(row["messages"]))
    return Prompt(messages, row["split"], row["category"])


def _slate(row: Mapping[str, Any], candidates: tuple[Candidate, ...]) -> Slate:
    predicted = tuple(json.loads(row["predicted"]))
    lineage = Lineage(row["run"], row["iteration"], row["selector"], row["propensity"], row["reward_model"], predicted)
    return Slate(_prompt(row), candidates, lineage)


def _segment(row: Mapping[str, Any]) -> Segment:
    actions, steps = from_bytes(row["actions"]), from_bytes(row["steps"])
    return Segment(row["environment"], row["seed"], row["start"], actions, steps, row["gold"], bool(row["ended"]))


def label_of(row: Mapping[str, Any]) -> Label:
    """A row of the table of labels as a label."""
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
