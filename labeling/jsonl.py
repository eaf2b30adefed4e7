"""Files of one JSON object a line, plain or gzipped: read as if an enemy had written them, written whole or not at all.

This file knows nothing of prompts and labels; it knows what can be wrong with a file.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from labeling.records import UserError

LONGEST_LINE = 10 * 2**20  # bytes
LONGEST_MESSAGE = 300  # characters; messages quote values, and a value may be megabytes
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"


def at_line(path: Path, number: int, error: Exception) -> UserError:
    """The same error, as one line of bounded length that begins with the file and the line."""
    text = " ".join(str(error).splitlines())
    if len(text) > LONGEST_MESSAGE:
        text = text[: LONGEST_MESSAGE // 2] + " … " + text[-LONGEST_MESSAGE // 2 :]
    return UserError(f"{path}:{number}: {text}")


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number, object) for each line that is not blank. Gzip is recognised by its first bytes.

    Raises UserError with the file and, where there is one, the line: the file cannot be read, is empty, or a line
    is too long, not UTF-8, not a JSON object, or holds what no database can keep.
    """
    number = 0
    found = False
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == GZIP_MAGIC
            stream: io.BufferedIOBase = gzip.GzipFile(fileobj=raw) if packed else raw
            while line := stream.readline(LONGEST_LINE + 1):
                number += 1
                if len(line) > LONGEST_LINE:
                    raise at_line(path, number, ValueError("longer than 10 MiB: is each object on a line of its own?"))
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                if line.strip():
                    found = True
                    try:
                        yield number, parse_object(line)
                    except UserError as error:
                        raise at_line(path, number, error) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}:{number + 1}: the gzip file is cut short or damaged here: fetch or pack it again"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the name and its permissions") from error
    if not found:
        raise UserError(f"{path}: the file is empty: it needs one JSON object a line")


def parse_object(line: bytes) -> dict[str, Any]:
    """One line as a JSON object whose numbers are finite and whose text SQLite can keep, or UserError."""
    try:
        text = line.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_number, parse_float=_finite
        )
        if "\\u" in text:  # only an escape can bring in half a surrogate pair or a NUL
            _require_storable(value)
    except UnicodeDecodeError as error:
        raise UserError(f"byte {error.start + 1} is not UTF-8: save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise UserError(f"not valid JSON at column {error.colno} ({error.msg}): mend or remove the line") from error
    except RecursionError as error:
        raise UserError("nested too deeply: the formats need no more than four levels") from error
    except ValueError as error:  # a whole number of thousands of digits
        raise UserError(f"not usable as JSON ({error}): mend or remove the line") from error
    if not isinstance(value, dict):
        raise UserError(f"a line must be a JSON object {{…}}, not {value!r}")
    return value


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


def _require_storable(value: Any) -> None:
    if isinstance(value, str):
        bad = next((c for c in value if c == "\0" or "\ud800" <= c <= "\udfff"), None)
        if bad is not None:
            raise UserError(f"the text holds the character {bad!r}, which cannot be stored: remove it")
    elif isinstance(value, list):
        for item in value:
            _require_storable(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _require_storable(key)
            _require_storable(item)


def write_objects(path: Path, objects: Iterable[Mapping[str, Any]]) -> int:
    """Write one object a line (gzipped when the name ends in .gz) and return how many.

    The file appears under its name only when all of it is on disk; until then an older file of that name stays.
    Raises UserError when it cannot be written, leaving nothing behind.
    """
    target = path.resolve()
    unfinished = target.with_name(f".prefloop-{uuid.uuid4().hex[:12]}.part")
    try:
        with open(unfinished, "xb") as raw:
            lines = _write_packed(raw, objects) if path.suffix == ".gz" else _write_lines(raw, objects)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(unfinished, target)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}): free some space or name another place; nothing was written"
        ) from error
    finally:  # also when the objects stop coming or the user presses Ctrl-C
        with suppress(OSError):
            unfinished.unlink()
    return lines


def _write_lines(stream: io.BufferedIOBase, objects: Iterable[Mapping[str, Any]]) -> int:
    lines = 0
    for item in objects:
        stream.write(json.dumps(item, ensure_ascii=False, allow_nan=False).encode() + b"\n")
        lines += 1
    return lines


def _write_packed(stream: io.BufferedIOBase, objects: Iterable[Mapping[str, Any]]) -> int:
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", mtime=0) as packed:  # the same labels, the same bytes
        return _write_lines(packed, objects)
