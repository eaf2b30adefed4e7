"""Files of JSON objects, one a line or all in one array: read as if an enemy had written them.

This file knows nothing of prompts and labels; `labeling.raw_files` knows what can be wrong with a file as such.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labeling.raw_files import LONGEST_LINE, at_line, read_lines, written_whole
from labeling.records import UserError

LONGEST_ARRAY = 256 * 2**20  # bytes; an array is held in memory as text, its objects one at a time
BLANK = re.compile(r"[ \t\r\n]*")


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line that is not blank. Gzip is recognised by its first bytes.

    Raises UserError with the file and, where there is one, the line: the file cannot be read, is empty, or a line
    is too long, not UTF-8, not a JSON object, or holds what no database can keep.
    """
    found = False
    for number, line in read_lines(path):
        if line.strip():
            found = True
            try:
                yield number, parse_object(line)
            except UserError as error:
                raise at_line(path, number, error) from error
    if not found:
        raise UserError(f"{path}: the file is empty: it needs one JSON object a line")


def read_array(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number from 1, object) for each object of a file that is one JSON array, as many tools export.

    Raises UserError with the file and the record, as `read_objects` does, and for more than LONGEST_ARRAY bytes.
    """
    text = _whole_text(path)
    start, number, after = _after_blank(text, text.find("[") + 1), 0, ","
    if text[start:].strip() == "]":
        raise UserError(f"{path}: the file is empty: it needs records between the brackets")
    while after == ",":
        number += 1
        try:
            value, start, after = _next_record(text, start)
        except UserError as error:
            raise at_line(path, number, error, "record") from error
        yield number, value
    if text[start:].strip():
        raise UserError(f"{path}: something follows the end of the array: keep one array in a file")


def _next_record(text: str, start: int) -> tuple[dict[str, Any], int, str]:
    """The object at `start`, where the next one begins, and the comma or bracket between them."""
    with _explained():
        value, end = DECODER.raw_decode(text, start)
    if end - start > LONGEST_LINE:
        raise UserError(f"longer than {LONGEST_LINE // 2**20} MiB: split or remove it")
    if "\\u" in text[start:end]:
        require_storable(value)
    _require_object(value, "a record")
    end = _after_blank(text, end)
    after = text[end : end + 1]
    if after not in (",", "]") or not after:
        raise UserError("neither a comma nor the closing bracket follows: is the file cut short?")
    return value, _after_blank(text, end + 1), after


def _whole_text(path: Path) -> str:
    parts, size = [], 0
    for _, line in read_lines(path, longest=LONGEST_ARRAY):
        parts.append(line)
        size += len(line)
        if size > LONGEST_ARRAY:
            raise UserError(f"{path}: longer than {LONGEST_ARRAY // 2**20} MiB: write one object a line (JSONL)")
    try:
        return b"".join(parts).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8: save the file as UTF-8") from error


def _after_blank(text: str, start: int) -> int:
    found = BLANK.match(text, start)
    return found.end() if found else start


def parse_object(line: bytes) -> dict[str, Any]:
    """One line as a JSON object whose numbers are finite and whose text SQLite can keep, or UserError."""
    value = parse_value(line)
    _require_object(value, "a line")
    return value


def parse_value(line: bytes) -> Any:
    """JSON whose numbers are finite and whose text SQLite can keep, or UserError."""
    with _explained():
        text = line.decode("utf-8")
        value = DECODER.decode(text)
        if "\\u" in text:  # only an escape can bring in half a surrogate pair or a NUL
            require_storable(value)
    return value


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever JSON cannot be read for, in the user's words."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start + 1} is not UTF-8: save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(f"not valid JSON at column {error.colno} ({error.msg}): mend or remove the line") from error
    except RecursionError as error:
        raise UserError("nested too deeply: the formats need no more than four levels") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise UserError(f"not usable as JSON ({error}): mend or remove the line") from error


def _require_object(value: Any, what: str) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{what} must be a JSON object {{…}}, not {value!r}")


def _without_duplicates(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(items)
    if len(value) < len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"the key {twice!r} occurs twice: keep one")
    return value


def _refuse_number(text: str) -> float:
    raise UserError(f"{text} is not a JSON number: use a finite number or leave the key out")


def _finite(text: str) -> float:
    value = float(text)
    return value if abs(value) != float("inf") else _refuse_number(text)


def require_storable(value: Any) -> None:
    """Raise UserError when a text in `value`, also deep inside, holds what SQLite cannot keep."""
    if isinstance(value, str):
        bad = next((c for c in value if c == "\0" or "\ud800" <= c <= "\udfff"), None)
        if bad is not None:
            raise UserError(f"the text holds the character {bad!r}, which cannot be stored: remove it")
    elif isinstance(value, list):
        for item in value:
            require_storable(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            require_storable(key)
            require_storable(item)


DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_refuse_number, parse_float=_finite)


def write_objects(path: Path, objects: Iterable[Mapping[str, Any]]) -> int:
    """Write one object a line (gzipped when the name ends in .gz) and return how many.

    Raises UserError when the file cannot be written whole; see `labeling.raw_files.written_whole`.
    """
    with written_whole(path) as raw:
        return _write_packed(raw, objects) if path.suffix == ".gz" else _write_lines(raw, objects)


def _write_lines(stream: io.BufferedIOBase, objects: Iterable[Mapping[str, Any]]) -> int:
    lines = 0
    for item in objects:
        stream.write(json.dumps(item, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        lines += 1
    return lines


def _write_packed(stream: io.BufferedIOBase, objects: Iterable[Mapping[str, Any]]) -> int:
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed:  # the same labels, the same bytes
        return _write_lines(packed, objects)
