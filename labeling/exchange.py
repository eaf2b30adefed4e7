"""Import and export: files of prompts, pairs and labels go into a store and come out of it.

An import is read to its end before the store is touched and then written in one transaction: all of it or nothing.
Importing the same file again adds nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labeling.exchange_lines import (
    Entry,
    Format,
    Unusable,
    format_of,
    label_line,
    pair_line,
    prompt_line,
    read_labels,
    read_pair,
    read_prompt,
)
from labeling.jsonl import at_line, read_objects, write_objects
from labeling.records import Annotator, LabeledSlate, Prompt, Split, UserError, content_id
from labeling.store import Conflict, Store

EVEN = 1e-9  # a lead below this is rounding, not a preference


@dataclass(frozen=True)
class ImportReport:
    """What an import did. `skipped`: (line, reason) of lines that hold no preference. `segments_new`: clips.

    splits_kept: lines that ask for another split than the one that their prompt already had; the old one stays.
    gold_new: slates with a known answer.
    """

    lines: int
    prompts_new: int
    slates_new: int
    labels_new: int
    splits_kept: int
    skipped: tuple[tuple[int, str], ...]
    gold_new: int = 0
    segments_new: int = 0

    def __str__(self) -> str:
        new = f"{self.prompts_new} prompts, {self.slates_new} slates and {self.labels_new} labels are new"
        new += f", and {self.gold_new} slates have a known answer" if self.gold_new else ""
        parts = [f"{self.lines} lines read: {new}"]
        parts += [f"so are {self.segments_new} clips"] if self.segments_new else []
        for reason in Counter(reason for _, reason in self.skipped):
            lines = [str(line) for line, why in self.skipped if why == reason]
            where = ", ".join(lines[:5]) + (", …" if len(lines) > 5 else "")
            parts.append(f"{len(lines)} skipped: {reason} (line {where})")
        if self.splits_kept:
            parts.append(f"{self.splits_kept} lines name another split than their prompt already has: it keeps its own")
        return "; ".join(parts)


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote. `ties`: pairs left out because nobody came out ahead."""

    lines: int
    ties: int = 0

    def __str__(self) -> str:
        left_out = f"; {self.ties} pairs left out because nobody came out ahead" if self.ties else ""
        return f"{self.lines} lines written{left_out}"


@dataclass(frozen=True)
class Reading:
    """A file that has been read and checked whole: its records by line, and the lines that hold no preference."""

    path: Path
    entries: tuple[tuple[int, Entry], ...]
    skipped: tuple[tuple[int, str], ...]


def read_file(path: Path) -> Reading:
    """Read a file of prompts, pairs or labels (.jsonl, plain or gzipped). Raises UserError with file and line."""
    skipped: list[tuple[int, str]] = []
    entries = tuple(_entries(path, skipped))
    return Reading(path, entries, tuple(skipped))


def import_file(store: Store, path: Path, split: Split | None = None, heldout_share: float = 0.2) -> ImportReport:
    """Read a file and add what it holds; see `read_file` and `add_reading`."""
    return add_reading(store, read_file(path), split, heldout_share)


def add_reading(store: Store, reading: Reading, split: Split | None = None, heldout_share: float = 0.2) -> ImportReport:
    """Add all that a file holds to the store, or nothing.

    A prompt's split is what its line says, else `split`, else drawn by a hash of how its conversation opens, so that
    `heldout_share` of the conversations are held out and a conversation and its continuations never part.
    Raises UserError, with file and line, and leaves the store as it was.
    """
    if not 0 <= heldout_share <= 1:
        raise UserError(f"the held-out share lies in [0, 1], not {heldout_share}")
    prompts = slates = labels = segments = kept = 0
    with store.writing():
        splits, annotators = store.prompt_splits(), store.annotators()
        for number, entry in reading.entries:
            try:
                asked = entry.split or split
                prompt = replace(entry.prompt, split=asked or _drawn_split(entry.prompt, heldout_share))
                kept += asked not in (None, splits.setdefault(prompt.id, prompt.split))
                prompts += store.add_prompts([prompt])
                segments += store.add_segments(entry.segments)
                slates += store.add_slates([entry.slate] if entry.slate else [])
                for annotator in entry.annotators:
                    _add_annotator(store, annotator, annotators)
                labels += store.add_labels(entry.labels)
            except Conflict as error:
                raise at_line(reading.path, number, error) from error
    lines = len(reading.entries) + len(reading.skipped)
    return ImportReport(lines, prompts, slates, labels, kept, reading.skipped, 0, segments)


def add_gold(store: Store, reading: Reading, split: Split | None = None) -> ImportReport:
    """Add the labelled slates of a file as items with a known answer, or nothing; see `StoredQuality.add_gold`.

    A line's last ranked label is the known answer, and is not kept as a label. A prompt that is new is held out unless
    its line or `split` says otherwise, so that no policy practises on it.
    Raises UserError, with file and line, for a line without a ranked label, and as `add_gold` of the store does.
    """
    prompts = slates = gold = segments = kept = 0
    with store.writing():
        splits = store.prompt_splits()
        for number, entry in reading.entries:
            try:
                ranked = [label.ranks for label in entry.labels if label.ranks is not None]
                if entry.slate is None or not ranked:
                    raise UserError("--gold: this line holds no ranked answer that could be the known one")
                asked = entry.split or split
                prompt = replace(entry.prompt, split=asked or "heldout")
                kept += asked not in (None, splits.setdefault(prompt.id, prompt.split))
                prompts += store.add_prompts([prompt])
                segments += store.add_segments(entry.segments)
                slates += store.add_slates([entry.slate])
                gold += store.add_gold(entry.slate.id, ranked[-1])
            except UserError as error:
                raise at_line(reading.path, number, error) from error
    lines = len(reading.entries) + len(reading.skipped)
    return ImportReport(lines, prompts, slates, 0, kept, reading.skipped, gold, segments)


def _entries(path: Path, skipped: list[tuple[int, str]]) -> Iterator[tuple[int, Entry]]:
    """The lines of a file as records; those that hold no preference are added to `skipped`."""
    annotator = Annotator(f"import:{_stem(path)}", "human")
    first: tuple[int, Format] | None = None
    for number, line in read_objects(path):
        try:
            form = format_of(line)
            first = first or (number, form)
            if form != first[1]:
                raise UserError(f"this is a line of {form}, but line {first[0]} is one of {first[1]}: use two files")
            if form == "pairs":
                yield number, read_pair(line, annotator)
            else:
                yield number, (read_labels if form == "labels" else read_prompt)(line)
        except Unusable as reason:
            skipped.append((number, str(reason)))
        except UserError as error:
            raise at_line(path, number, error) from error


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz").removesuffix(".jsonl")
    return os.fsencode(name).decode("utf-8", "replace")  # a file's name need not be text; an annotator's must be


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
    """Write prompts, pairs (for TRL and `datasets`) or labels (everything; imports back equal) as JSONL, .gz too.

    Raises UserError when the file cannot be written; then no file of that name is new or changed.
    """
    if what == "prompts":
        return ExportReport(write_objects(path, map(prompt_line, store.prompts(split))))
    if what == "labels":
        return ExportReport(write_objects(path, _label_lines(store, split)))
    verdicts = [(labeled, i, j, lead) for labeled in store.labeled_slates(split=split) for i, j, lead in leads(labeled)]
    won = [_pair(labeled, (i, j) if lead > 0 else (j, i)) for labeled, i, j, lead in verdicts if abs(lead) > EVEN]
    return ExportReport(write_objects(path, won), len(verdicts) - len(won))


def leads(labeled: LabeledSlate) -> list[tuple[int, int, float]]:
    """(i, j, lead) for each compared pair: Σ w·(1-ε)·(p - ½) over the annotators, > 0 when i is preferred.

    w is the weight and ε the flip rate of who said so; (1-ε)·(p - ½) is P' - ½ with the noise of arXiv 1706.03741.
    """
    total: dict[tuple[int, int], float] = {}
    for p in labeled.preferences:
        total[p.i, p.j] = total.get((p.i, p.j), 0.0) + p.weight * (1 - p.flip_rate) * (p.p - 0.5)
    return [(i, j, lead) for (i, j), lead in total.items()]


def _pair(labeled: LabeledSlate, order: tuple[int, int]) -> dict[str, Any]:
    chosen, rejected = (labeled.slate.candidates[place] for place in order)
    return pair_line(labeled.slate.prompt, chosen, rejected)


def _label_lines(store: Store, split: Split | None) -> Iterator[dict[str, Any]]:
    annotators = store.annotators()
    history: dict[str, list[Any]] = {}
    for label in store.labels(history=True):
        history.setdefault(label.slate_id, []).append(label)
    for slate in store.slates(split=split):
        segments = store.segments([candidate.clip for candidate in slate.candidates if candidate.clip])
        yield label_line(slate, history.get(slate.id, ()), annotators, segments)
