"""Tables in files: rows of named cells, read as if an enemy had written them, written whole; here those in CSV.

This file knows nothing of prompts and labels (see `labeling.table_rows`). `labeling.parquet_files` has the others.

CSV has only text, so two things are said by convention. An empty cell is a missing value. And a spreadsheet takes a
cell that begins with = + - @, a tab or a line break for a formula and runs it: such text gets an apostrophe in front
when written, and loses it again when read. Numbers are written as numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from labeling.jsonl import require_storable
from labeling.raw_files import LONGEST_LINE, Unit, at_line, read_lines, written_whole
from labeling.records import UserError

Row = dict[str, Any]
# Spreadsheets pass over blanks before the sign, and take its full-width forms too.
FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
MOST_COLUMNS = 1000


@dataclass(frozen=True)
class Table:
    """A table whose columns are known and whose rows are still in the file.

    rows: (names of columns) → (number, row) for each row, missing cells as None; the names are of this table.
    unit: what the numbers count. unreadable: columns that hold neither text nor numbers nor lists of these, and what.
    """

    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[tuple[int, Row]]]
    unit: Unit
    unreadable: Mapping[str, str] = field(default_factory=dict)


def open_csv(path: Path) -> Table:
    """A CSV file, plain or gzipped, in UTF-8, separated by commas, with the names of its columns in the first line.

    Raises UserError with file and line, there or while rows are read: no such header, a row that does not fit it, a
    line or a row of more than LONGEST_LINE bytes, quotes that do not close, or what no database can keep.
    """
    _, header = next(_csv_rows(path), (0, []))
    if not header:
        raise UserError(f"{path}: the file is empty: it needs the names of its columns in the first line")
    return Table(check_columns(path, header), lambda names: _csv_cells(path, header, names), "line")


def _csv_cells(path: Path, header: Sequence[str], names: Sequence[str]) -> Iterator[tuple[int, Row]]:
    places = [(header.index(name), name) for name in names]
    for number, cells in islice(_csv_rows(path), 1, None):
        try:
            if len(cells) != len(header):
                raise UserError(f"{len(cells)} cells for {len(header)} columns: is a comma or a quote missing?")
            row: Row = {name: _shown(cells[place]) or None for place, name in places}
            require_storable(row)
        except UserError as error:
            raise at_line(path, number, error) from error
        yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line in which it begins, cells) of every row that is not blank, with bounds on lines, rows and cells."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))
    begins, size = 1, 0

    def text() -> Iterator[str]:
        nonlocal size
        for number, line in read_lines(path):
            size += len(line)
            if size > LONGEST_LINE:
                limit = f"a row of more than {LONGEST_LINE // 2**20} MiB begins here: does a quote not close?"
                raise at_line(path, begins, UserError(limit))
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise at_line(path, number, UserError("not UTF-8: save the file as CSV in UTF-8")) from error

    reader = csv.reader(text(), strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise at_line(path, begins, UserError(f"not valid CSV ({error}): mend or remove the row")) from error
        if cells is None:
            return
        if cells:
            yield begins, cells
        begins, size = reader.line_num + 1, 0


def check_columns(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns, when each has a name of its own; blank names may repeat, as nobody can ask for them."""
    if len(columns) > MOST_COLUMNS:
        raise UserError(f"{path}: {len(columns)} columns are more than {MOST_COLUMNS}: keep those that are needed")
    twice = next((name for n, name in enumerate(columns) if name and name in columns[:n]), None)
    if twice is not None:
        raise at_line(path, 1, UserError(f"the column {twice!r} occurs twice: keep one"))
    return tuple(name for name in columns if name)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows of texts, numbers, truth values and None as CSV in UTF-8, and return how many.

    Raises UserError when the file cannot be written whole.
    """
    with written_whole(path) as raw:
        stream = io.TextIOWrapper(raw, encoding="utf-8", newline="")
        writer = csv.writer(stream)
        writer.writerow(columns)
        count = 0
        for row in rows:
            writer.writerow([guarded(row[name]) for name in columns])
            count += 1
        stream.detach()
    return count


def guarded(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula. `_shown` is its inverse, for every text."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return "'" + cell if isinstance(cell, str) and FORMULA.match(cell) else cell


def _shown(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell
