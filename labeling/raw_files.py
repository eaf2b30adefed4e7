"""Files as bytes: read in lines of bounded length, written whole or not at all.

This file knows nothing of JSON or tables; it knows what can be wrong with a file.
"""

from __future__ import annotations

import gzip
import io
import os
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from labeling.records import UserError

Unit = Literal["line", "record", "row"]  # what a file's numbers count: only lines can be looked up in an editor

LONGEST_LINE = 10 * 2**20  # bytes
LONGEST_BEGINNING = 4096  # bytes
LONGEST_MESSAGE = 300  # characters; messages quote values, and a value may be megabytes
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
GZIP_MAGIC = b"\x1f\x8b"


def at_line(path: Path, number: int, error: Exception, unit: Unit = "line") -> UserError:
    """The same error, as one line of bounded length that begins with the file and the line (or record, or row)."""
    text = " ".join(str(error).splitlines())
    if len(text) > LONGEST_MESSAGE:
        text = text[: LONGEST_MESSAGE // 2] + " … " + text[-LONGEST_MESSAGE // 2 :]
    where = f"{path}:{number}" if unit == "line" else f"{path}, {unit} {number}"
    return UserError(f"{where}: {text}")


def read_lines(path: Path, longest: int = LONGEST_LINE) -> Iterator[tuple[int, bytes]]:
    """Yield (number, line) for each line, its end included. Gzip is recognised by its first bytes.

    Raises UserError with the file and, where there is one, the line: the file cannot be read, or a line has more
    than `longest` bytes.
    """
    number = 0
    with _unpacked(path, lambda: number + 1) as stream:
        while line := stream.readline(longest + 1):
            number += 1
            if len(line) > longest:
                limit = f"longer than {longest // 2**20} MiB: is a line break missing?"
                raise at_line(path, number, ValueError(limit))
            yield number, line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


def beginning(path: Path) -> bytes:
    """The first bytes of a file, unpacked. Raises UserError when it cannot be read."""
    with _unpacked(path, lambda: 1) as stream:
        return stream.read(LONGEST_BEGINNING).removeprefix(BYTE_ORDER_MARK)


@contextmanager
def _unpacked(path: Path, number: Callable[[], int]) -> Iterator[io.BufferedIOBase]:
    """The open file, gzip undone; what goes wrong is explained, with the number of the line that is being read."""
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == GZIP_MAGIC
            yield gzip.GzipFile(fileobj=raw) if packed else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path}:{number()}: the gzip file is cut short or damaged here: fetch or pack it again"
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> UserError:
    """The error of a file that the system does not give out."""
    return UserError(f"{path}: cannot be read ({error.strerror or error}): check the name and its permissions")


@contextmanager
def written_whole(path: Path) -> Iterator[io.BufferedWriter]:
    """A stream whose bytes appear under the file's name only when all are on disk; an older file stays until then.

    Raises UserError when it cannot be written, leaving nothing behind.
    """
    target = path.resolve()
    unfinished = target.with_name(f".prefloop-{uuid.uuid4().hex[:12]}.part")
    try:
        with open(unfinished, "xb") as raw:
            yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(unfinished, target)
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be written: make the folder {target.parent}, or name another place") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path}: cannot be written ({reason}): free some space or name another place; nothing was written"
        ) from error
    finally:  # also when the content stops coming or the user presses Ctrl-C
        with suppress(OSError):
            unfinished.unlink()
