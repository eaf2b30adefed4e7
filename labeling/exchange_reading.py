"""A file that is to be imported becomes records: what kind of file it is, whose lines it has, and what they say.

The whole file is read and checked before anything is stored; see `labeling.exchange` for what happens then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling.argilla_records import is_argilla, read_argilla
from labeling.compared_texts import Unusable
from labeling.exchange_lines import (
    Completions,
    Entry,
    format_of,
    keys_not_read,
    read_labels,
    read_pair,
    read_prompt,
    read_responses,
)
from labeling.jsonl import read_array, read_objects
from labeling.label_studio import is_label_studio, read_label_studio, refuse_shortened
from labeling.parquet_files import open_parquet
from labeling.raw_files import Unit, at_line, beginning
from labeling.records import Annotator, UserError
from labeling.table_rows import chosen_columns, line_of
from labeling.tables import Table, open_csv

Line = dict[str, Any]
Read = tuple[Entry | None, list[str]]  # what a line holds, and why something of it was left out
PARQUET_MAGIC = b"PAR1"
ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Reading:
    """A file that has been read and checked whole: its records by number, and what holds no preference.

    lines: how many lines, records or rows (`unit`) it has. ignored: columns of a table, or keys of lines, that were
    left out.
    """

    path: Path
    lines: int
    entries: tuple[tuple[int, Entry], ...]
    skipped: tuple[tuple[int, str], ...]
    unit: Unit = "line"
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Source:
    lines: Iterator[tuple[int, Line]]
    unit: Unit
    ignored: tuple[str, ...] = ()


def read_file(path: Path) -> Reading:
    """Read a file of any format of `labeling.exchange_lines`, or an export of Argilla or Label Studio.

    CSV is recognised by its name (.csv, .csv.gz), Parquet and JSON arrays by their beginning; else it is JSONL.
    Raises UserError with the file and the line, record or row.
    """
    source = _open(path)
    numbers: list[int] = []
    skipped: list[tuple[int, str]] = []
    ignored = dict.fromkeys(source.ignored)
    entries = tuple(_entries(path, source, numbers, skipped, ignored))
    return Reading(path, len(numbers), entries, tuple(sorted(skipped)), source.unit, tuple(ignored))


def _open(path: Path) -> _Source:
    name = path.name.lower()
    if not path.is_file():  # a pipe can be read only once; what is no file at all is explained in reading
        return _Source(read_objects(path), "line")
    if name.removesuffix(".gz").endswith(".csv"):
        return _rows(path, open_csv(path))
    first = beginning(path).lstrip()
    if name.endswith(".parquet") or first.startswith(PARQUET_MAGIC):
        return _rows(path, open_parquet(path))
    return _Source(read_array(path), "record") if first.startswith(b"[") else _Source(read_objects(path), "line")


def _rows(path: Path, table: Table) -> _Source:
    what, used, ignored = chosen_columns(path, table)

    def lines() -> Iterator[tuple[int, Line]]:
        for number, row in table.rows(used):
            try:
                yield number, line_of(what, row)
            except UserError as error:
                raise at_line(path, number, error, table.unit) from error

    return _Source(lines(), table.unit, ignored)


def _entries(
    path: Path, source: _Source, numbers: list[int], skipped: list[tuple[int, str]], ignored: dict[str, None]
) -> Iterator[tuple[int, Entry]]:
    """What a source holds as records.

    Every number goes to `numbers`, what says nothing to `skipped`, and keys that are left out to `ignored`.
    """
    completions = Completions()
    readers = _readers(Annotator(f"import:{_stem(path)}", "human"), completions)
    first: tuple[int, str] | None = None
    for number, line in source.lines:
        numbers.append(number)
        try:
            form = _form_of(line)
            ignored.update(dict.fromkeys(keys_not_read(line, form)))
            first = first or (number, form)
            if form != first[1]:
                other = f"{source.unit} {first[0]} is one of {first[1]}"
                raise UserError(f"this is a {source.unit} of {form}, but {other}: use two files")
            entry, unsaid = readers[form](number, line)
            skipped += [(number, reason) for reason in unsaid]
        except Unusable as reason:
            skipped.append((number, str(reason)))
        except UserError as error:
            raise at_line(path, number, error, source.unit) from error
        else:
            if entry:
                yield number, entry
    skipped += [(number, "no completion of the same prompt has the other verdict") for number in completions.left()]


def _form_of(line: Line) -> str:
    if is_label_studio(line):
        return "Label Studio"
    refuse_shortened(line)
    return "Argilla" if is_argilla(line) else format_of(line)


def _readers(annotator: Annotator, completions: Completions) -> dict[str, Callable[[int, Line], Read]]:
    def read_unpaired(number: int, line: Line) -> Read:
        pair = completions.match(number, line)
        return (read_pair(pair, annotator) if pair else None), []

    return {
        "prompts": lambda _, line: (read_prompt(line), []),
        "responses": lambda _, line: (read_responses(line), []),
        "pairs": lambda _, line: (read_pair(line, annotator), []),
        "unpaired": read_unpaired,
        "labels": lambda _, line: (read_labels(line), []),
        "Argilla": lambda _, line: read_argilla(line),
        "Label Studio": lambda _, line: read_label_studio(line),
    }


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    name = name.removesuffix(next((ending for ending in ENDINGS if name.endswith(ending)), ""))
    return os.fsencode(name).decode("utf-8", "replace")  # a file's name need not be text; an annotator's must be
