"""Tables in files, CSV and Parquet: rows of named cells, read as if an enemy had written them, written whole.

This file knows nothing of prompts and labels (see `labeling.table_rows`). Parquet goes through pyarrow alone, and no
pickle is ever read.

CSV has only text, so two things are said by convention. An empty cell is a missing value. And a spreadsheet takes a
cell that begins with = + - @, a tab or a line break for a formula and runs it: such text gets an apostrophe in front
when written, and loses it again when read. Numbers are written as numbers.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from labeling.jsonl import require_storable
from labeling.raw_files import LONGEST_LINE, Unit, at_line, read_lines, unreadable, written_whole
from labeling.records import UserError

Row = dict[str, Any]
# Spreadsheets pass over blanks before the sign, and take its full-width forms too.
FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@＝＋－＠])")
MOST_COLUMNS = 1000
BATCH = 256  # rows of Parquet that are held in memory at once …
LONGEST_BATCH = 512 * 2**20  # … with at most so many bytes of text …
LARGEST_BATCH = 2**20  # … in at most so many values
LARGEST_CHUNK = 2**30  # bytes of a column in a row group, unpacked
MOST_VALUES = 50_000_000  # of a column in a row group
WRITTEN_AT_ONCE = 1000  # rows in a row group that is written


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
    return Table(_checked(path, header), lambda names: _csv_cells(path, header, names), "line")


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


def _checked(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
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
            writer.writerow([_guarded(row[name]) for name in columns])
            count += 1
        stream.detach()
    return count


def _guarded(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula. `_shown` is its inverse, for every text."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return "'" + cell if isinstance(cell, str) and FORMULA.match(cell) else cell


def _shown(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def open_parquet(path: Path) -> Table:
    """A Parquet file: texts, numbers, truth values, and lists and structs of these. Other columns may stand beside.

    Raises UserError with file and row, there or while rows are read: the file is damaged, or rows are so large that
    they would not fit into memory.
    """
    from pyarrow import parquet

    with _explained(path), parquet.ParquetFile(path) as file:
        columns = _checked(path, file.schema_arrow.names)
        unreadable = {held.name: str(held.type) for held in file.schema_arrow if not _is_readable(held.type)}
        _require_small_chunks(path, file.metadata)
    readable = tuple(name for name in columns if name not in unreadable)
    return Table(readable, lambda names: _parquet_rows(path, names), "row", unreadable)


def _parquet_rows(path: Path, names: Sequence[str]) -> Iterator[tuple[int, Row]]:
    from pyarrow import parquet

    number = 0
    with _explained(path):
        with parquet.ParquetFile(path) as file:
            leaves = [file.schema.column(n) for n in range(len(file.schema))]
            texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        # Kept as dictionaries, a text that a small file repeats a million times stays one text until it is measured.
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            for batch in file.iter_batches(BATCH, columns=list(names), use_threads=False):
                if missing := set(names) - set(batch.schema.names):
                    raise UserError(f"{path}: the column {min(missing)!r} has no data: write or fetch the file again")
                _require_small(path, number, batch)
                for row in batch.to_pylist():
                    number += 1
                    try:
                        require_storable(row)
                    except UserError as error:
                        raise at_line(path, number, error, "row") from error
                    yield number, row


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Whatever pyarrow cannot read a file for, in the user's words."""
    import pyarrow

    try:
        yield
    except FileNotFoundError as error:
        raise unreadable(path, error) from error
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not usable as Parquet ({reason}): write or fetch it again") from error


def _is_readable(held: Any) -> bool:
    from pyarrow import types

    if types.is_list(held) or types.is_large_list(held) or types.is_dictionary(held):
        return _is_readable(held.value_type)
    if types.is_struct(held):
        return all(_is_readable(field.type) for field in held)
    plain = (
        types.is_string,
        types.is_large_string,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_null,
    )
    return any(is_it(held) for is_it in plain)


def _require_small_chunks(path: Path, metadata: Any) -> None:
    """A few bytes of Parquet can stand for millions of values; what the file says of itself is checked first."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.total_uncompressed_size > LARGEST_CHUNK or chunk.num_values > MOST_VALUES:
                raise UserError(f"{path}: a row group of {chunk.path_in_schema!r} is too large: write smaller ones")


def _require_small(path: Path, before: int, batch: Any) -> None:
    """Measure a batch before Python objects are made of it."""
    leaves = [leaf for column in batch.columns for leaf in _leaves(column)]
    small = sum(map(len, leaves)) <= LARGEST_BATCH
    lengths = [_text_lengths(leaf) for leaf in leaves] if small else []
    if (
        not small
        or sum(map(sum, lengths)) > LONGEST_BATCH
        or max(map(max, filter(None, lengths)), default=0) > LONGEST_LINE
    ):
        rows = f"rows {before + 1} to {before + batch.num_rows}"
        raise UserError(f"{path}, {rows}: a text of more than 10 MiB, or too much for so few rows: split them")


def _leaves(array: Any) -> Iterator[Any]:
    from pyarrow import types

    if types.is_list(array.type) or types.is_large_list(array.type):
        yield from _leaves(array.flatten())
    elif types.is_struct(array.type):
        for child in array.flatten():
            yield from _leaves(child)
    else:
        yield array


def _text_lengths(leaf: Any) -> list[int]:
    """The bytes of each text of a column; nothing for numbers."""
    from pyarrow import compute, types

    if types.is_dictionary(leaf.type):
        return [n or 0 for n in compute.take(compute.binary_length(leaf.dictionary), leaf.indices).to_pylist()]
    return [n or 0 for n in compute.binary_length(leaf).to_pylist()] if types.is_string(leaf.type) else []


def write_parquet(path: Path, schema: Any, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows under a pyarrow schema, and return how many. Raises UserError when it cannot be written whole."""
    import pyarrow
    from pyarrow import parquet

    rows, count = iter(rows), 0
    with written_whole(path) as raw, parquet.ParquetWriter(raw, schema) as writer:
        while part := list(islice(rows, WRITTEN_AT_ONCE)):
            writer.write_table(pyarrow.Table.from_pylist(part, schema))
            count += len(part)
    return count
