"""Import and export: files of prompts, pairs and labels go into a store and come out of it.

An import is read to its end before the store is touched and then written in one transaction: all of it or nothing.
Importing the same file again adds nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labeling.exchange_lines import Format, label_line, pair_line, prompt_line, unpaired_line
from labeling.exchange_reading import Reading, read_file
from labeling.jsonl import write_objects
from labeling.raw_files import Unit, at_line
from labeling.records import Annotator, LabeledSlate, Prompt, Split, UserError, content_id, printable
from labeling.store import Conflict, Store
from labeling.table_rows import write_table

EVEN = 1e-9  # a lead below this is rounding, not a preference
WRITTEN = (".jsonl", ".jsonl.gz", ".csv", ".parquet")


@dataclass(frozen=True)
class ImportReport:
    """What an import did. `skipped`: (number, reason) of what holds no preference, numbered in `unit`s.

    splits_kept: lines that ask for another split than the one that their prompt already had; the old one stays.
    ignored: columns of a table, or keys of lines, that were left out.
    gold_new: slates with a known answer. segments_new: clips. requests_new: what people are to answer because a judge
    did. revoked_new: annotators who are revoked here too, as they were where the file comes from.
    """

    lines: int
    prompts_new: int
    slates_new: int
    labels_new: int
    splits_kept: int
    skipped: tuple[tuple[int, str], ...]
    unit: Unit = "line"
    ignored: tuple[str, ...] = ()
    gold_new: int = 0
    segments_new: int = 0
    requests_new: int = 0
    revoked_new: int = 0

    def __str__(self) -> str:
        new = f"{self.prompts_new} prompts, {self.slates_new} slates and {self.labels_new} labels are new"
        new += f", and {self.gold_new} slates have a known answer" if self.gold_new else ""
        parts = [f"{self.lines} {self.unit}s read: {new}"]
        parts += [f"so are {self.segments_new} clips"] if self.segments_new else []
        parts += [f"so are {self.requests_new} requests to people"] if self.requests_new else []
        parts += [f"{self.revoked_new} annotators are revoked, as the file says"] if self.revoked_new else []
        for reason in Counter(reason for _, reason in self.skipped):
            places = [str(number) for number, why in self.skipped if why == reason]
            where = ", ".join(places[:5]) + (", …" if len(places) > 5 else "")
            parts.append(f"{len(places)} skipped: {reason} ({self.unit} {where})")
        if self.splits_kept:
            asked = f"{self.splits_kept} {self.unit}s name another split than their prompt already has"
            parts.append(f"{asked}: it keeps its own")
        if self.ignored:
            more = ", …" if len(self.ignored) > 8 else ""
            parts.append(
                f"columns or keys not read: {', '.join(printable(name[:40]) for name in self.ignored[:8])}{more}"
            )
        return "; ".join(parts)


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote. `ties`: pairs left out because nobody came out ahead."""

    lines: int
    ties: int = 0

    def __str__(self) -> str:
        left_out = f"; {self.ties} pairs left out because nobody came out ahead" if self.ties else ""
        return f"{self.lines} lines written{left_out}"


def import_file(store: Store, path: Path, split: Split | None = None, heldout_share: float = 0.2) -> ImportReport:
    """Read a file and add what it holds; see `read_file` and `add_reading`."""
    return add_reading(store, read_file(path), split, heldout_share)


def add_reading(store: Store, reading: Reading, split: Split | None = None, heldout_share: float = 0.2) -> ImportReport:
    """Add all that a file holds to the store, or nothing.

    A prompt's split is what its line says, else `split`, else drawn by a hash of how its conversation opens, so that
    `heldout_share` of the conversations are held out and a conversation and its continuations never part. What counted
    for nothing where the file comes from does here too: answers to items with a known answer, and, where they are new,
    those of revoked annotators.
    Raises UserError, with file and line, and leaves the store as it was.
    """
    if not 0 <= heldout_share <= 1:
        raise UserError(f"the held-out share lies in [0, 1], not {heldout_share}")
    prompts = slates = labels = segments = requests = kept = gold = 0
    revoked: dict[str, str] = {}
    with store.writing():
        splits, annotators = store.prompt_splits(), store.annotators()
        before = frozenset(annotators)
        for number, entry in reading.entries:
            try:
                asked = entry.split or split
                prompt = replace(entry.prompt, split=asked or _drawn_split(entry.prompt, heldout_share))
                kept += asked not in (None, splits.setdefault(prompt.id, prompt.split))
                prompts += store.add_prompts([prompt])
                segments += store.add_segments(entry.segments)
                slates += store.add_slates([entry.slate] if entry.slate else [])
                gold += store.add_gold(entry.slate.id, entry.gold) if entry.slate and entry.gold else 0
                revoked |= {who: why for who, why in entry.revoked.items() if who not in before}
                for annotator in entry.annotators:
                    _add_annotator(store, annotator, annotators)
                labels += store.add_labels(entry.labels, entry.created)
            except UserError as error:
                raise at_line(reading.path, number, error, reading.unit) from error
        for who, why in revoked.items():  # after all labels: what is revoked does not stand, and cannot be superseded
            store.revoke(who, why, "an import")
        judges = {annotator.id for annotator in annotators.values() if annotator.kind == "judge"}
        for number, entry in reading.entries:  # a table may have the judge's own label in a later row
            if strangers := {request.judge for request in entry.requests} - judges:
                said = UserError(f"a request names {min(strangers)!r}, and no judge of that name labelled: remove it")
                raise at_line(reading.path, number, said, reading.unit)
            requests += store.request_people(entry.requests)
    new = (prompts, slates, labels, kept)
    return ImportReport(
        reading.lines, *new, reading.skipped, reading.unit, reading.ignored, gold, segments, requests, len(revoked)
    )


def add_gold(store: Store, reading: Reading, split: Split | None = None) -> ImportReport:
    """Add the labelled slates of a file as items with a known answer, or nothing; see `StoredQuality.add_gold`.

    A line's last ranked label that stands and leaves no candidate out is the known answer, and is not kept as a label.
    A prompt that is new is held out unless its line or `split` says otherwise, so that no policy practises on it.
    Raises UserError, with file and line, for a line without a ranked label, and as `add_gold` of the store does.
    """
    prompts = slates = gold = segments = kept = 0
    with store.writing():
        splits = store.prompt_splits()
        for number, entry in reading.entries:
            try:
                replaced = {label.supersedes for label in entry.labels}
                standing = [label for label in entry.labels if label.client_key not in replaced]
                ranked = [label.ranks for label in standing if label.ranks is not None and not label.unranked]
                ranked += [entry.gold] if entry.gold else []
                if entry.slate is None or not ranked:
                    raise UserError("--gold: this line holds no ranked answer to all its candidates to go by")
                asked = entry.split or split
                prompt = replace(entry.prompt, split=asked or "heldout")
                kept += asked not in (None, splits.setdefault(prompt.id, prompt.split))
                prompts += store.add_prompts([prompt])
                segments += store.add_segments(entry.segments)
                slates += store.add_slates([entry.slate])
                gold += store.add_gold(entry.slate.id, ranked[-1])
            except UserError as error:
                raise at_line(reading.path, number, error, reading.unit) from error
    new = (prompts, slates, 0, kept)
    return ImportReport(reading.lines, *new, reading.skipped, reading.unit, reading.ignored, gold, segments)


def _drawn_split(prompt: Prompt, heldout_share: float) -> Split:
    opening = next((m.content for m in prompt.messages if m.role == "user"), "")
    drawn = int(content_id("split", opening)[-12:], 16) / 16**12
    return "heldout" if drawn < heldout_share else "train"


def _add_annotator(store: Store, annotator: Annotator, known: dict[str, Annotator]) -> None:
    """A known annotator keeps the weight and flip rate that it has here."""
    here = known.get(annotator.id)
    if here is None:
        store.add_annotator(annotator)
        known[annotator.id] = annotator
    elif here.kind != annotator.kind:
        raise Conflict(f"{annotator.id!r} is a {annotator.kind} here, but a {here.kind} before: rename one of them")


def export_file(store: Store, path: Path, what: Format, split: Split | None = None) -> ExportReport:
    """Write prompts, pairs or unpaired completions (for TRL and `datasets`), or labels (everything; read back equal).

    The name's end decides: .csv, .parquet, or JSONL, gzipped when it ends in .gz.
    Raises UserError for another end, and when the file cannot be written; then no file of that name is new or changed.
    """
    if path.suffix and not path.name.lower().endswith(WRITTEN):
        raise UserError(f"{path}: no such format is written: let the name end in {', '.join(WRITTEN)}")
    lines, ties = _lines(store, what, split)
    if path.suffix.lower() in (".csv", ".parquet"):
        return ExportReport(write_table(path, what, lines), ties)
    unnamed = ({key: value for key, value in line.items() if key != "slate"} for line in lines)
    return ExportReport(write_objects(path, unnamed), ties)


def _lines(store: Store, what: Format, split: Split | None) -> tuple[Iterator[dict[str, Any]], int]:
    """What is to be written, and how many pairs are left out of it."""
    if what == "prompts":
        return map(prompt_line, store.prompts(split)), 0
    if what == "labels":
        return _label_lines(store, split), 0
    verdicts = [(labeled, i, j, lead) for labeled in store.labeled_slates(split=split) for i, j, lead in leads(labeled)]
    won = [(labeled, *((i, j) if lead > 0 else (j, i))) for labeled, i, j, lead in verdicts if abs(lead) > EVEN]
    return (line for pair in won for line in _won(what, *pair)), len(verdicts) - len(won)


def leads(labeled: LabeledSlate) -> list[tuple[int, int, float]]:
    """(i, j, lead) for each compared pair: Σ w·(1-ε)·(p - ½) over the annotators, > 0 when i is preferred.

    w is the weight and ε the flip rate of who said so; (1-ε)·(p - ½) is P' - ½ with the noise of arXiv 1706.03741.
    """
    total: dict[tuple[int, int], float] = {}
    for p in labeled.preferences:
        total[p.i, p.j] = total.get((p.i, p.j), 0.0) + p.weight * (1 - p.flip_rate) * (p.p - 0.5)
    return [(i, j, lead) for (i, j), lead in total.items()]


def _won(what: Format, labeled: LabeledSlate, winner: int, loser: int) -> Iterator[dict[str, Any]]:
    """A decided comparison as one line, or as two with a verdict each."""
    prompt, chosen, rejected = labeled.slate.prompt, *(labeled.slate.candidates[place] for place in (winner, loser))
    if what == "pairs":
        yield pair_line(prompt, chosen, rejected)
    else:
        yield from (unpaired_line(prompt, chosen, True), unpaired_line(prompt, rejected, False))


def _label_lines(store: Store, split: Split | None) -> Iterator[dict[str, Any]]:
    annotators, times = store.annotators(), store.label_times()
    gold, revoked = store.gold(), store.revoked()
    history: dict[str, list[Any]] = {}
    for label in store.labels(history=True):
        history.setdefault(label.slate_id, []).append(label)
    requests = defaultdict(list)
    for request in store.human_requests():
        requests[request.slate_id].append(request)
    for slate in store.slates(split=split):
        segments = store.segments([candidate.clip for candidate in slate.candidates if candidate.clip])
        said = history.get(slate.id, ())
        line = label_line(slate, said, annotators, segments, times, requests[slate.id])
        for who in (answer["annotator"] for answer in line["labels"]):
            who |= {"revoked": revoked[who["id"]]} if who["id"] in revoked else {}
        yield {"slate": slate.id, **line, **({"gold": gold[slate.id]} if slate.id in gold else {})}
