"""Tables in Parquet files, read by pyarrow in a process of its own, as if an enemy had written them.

On some damaged files pyarrow aborts the whole process (it throws where nobody can catch): that must not be ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from labeling.apart import apart
from labeling.jsonl import require_storable
from labeling.raw_files import LONGEST_LINE, at_line, unreadable, written_whole
from labeling.records import UserError
from labeling.tables import Row, Table, check_columns

BATCH = 256  # rows of Parquet that are held in memory at once …
LONGEST_BATCH = 512 * 2**20  # … with at most so many bytes of text …
LARGEST_BATCH = 2**20  # … in at most so many values
LARGEST_CHUNK = 2**30  # bytes of a column in a row group, unpacked
MOST_VALUES = 50_000_000  # of a column in a row group
WRITTEN_AT_ONCE = 1000  # rows in a row group that is written


def open_parquet(path: Path) -> Table:
    """A Parquet file: texts, numbers, truth values, and lists and structs of these. Other columns may stand beside.

    Raises UserError with file and row, there or while rows are read: the file is damaged, or rows are so large that
    they would not fit into memory.
    """
    broken = f"{path}: not usable as Parquet (it broke the reader): write or fetch it again"
    [(columns, unreadable)] = apart(columns_of, str(path), broken=broken)

    def rows(names: Sequence[str]) -> Iterator[tuple[int, Row]]:
        for part in apart(rows_of, str(path), tuple(names), broken=broken):
            yield from ((number, row) for number, row in part)

    return Table(tuple(columns), rows, "row", unreadable)


def columns_of(path: str) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """The columns that can be read, and what the others hold, by name; one value, in this process."""
    from pyarrow import parquet

    with _explained(Path(path)), parquet.ParquetFile(path) as file:
        columns = check_columns(Path(path), file.schema_arrow.names)
        unreadable = {held.name: str(held.type) for held in file.schema_arrow if not _is_readable(held.type)}
        _require_small_chunks(Path(path), file.metadata)
    yield tuple(name for name in columns if name not in unreadable), unreadable


def rows_of(where: str, names: Sequence[str]) -> Iterator[list[tuple[int, Row]]]:
    """The rows with their numbers, some at a time, in this process."""
    from pyarrow import parquet

    path = Path(where)

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
                part = list(enumerate(batch.to_pylist(), number + 1))
                for number, row in part:
                    try:
                        require_storable(row)
                    except UserError as error:
                        raise at_line(path, number, error, "row") from error
                yield part


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
