"""TOML text becomes plain data here, and a value that an option cannot have becomes a few words of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

LONGEST_ECHO = 80  # characters
WHOLE_NUMBERS = range(-(2**63), 2**63)  # what TOML promises to hold


class NumberTooLong(tomllib.TOMLDecodeError):
    """A whole number has more than the 64 bits of TOML."""


def parsed_toml(text: str) -> dict[str, Any]:
    """The data of a TOML text. Raises TOMLDecodeError, as NumberTooLong for a whole number of more than 64 bits."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # Python reads no number of thousands of digits
        raise NumberTooLong("a whole number has thousands of digits: 64 bits are the most") from error
    for key, number in _whole_numbers("", data):
        if number not in WHOLE_NUMBERS:
            raise NumberTooLong(f"{key} = {echoed(number)}: a whole number has 64 bits at most")
    return data


def _whole_numbers(key: str, value: Any) -> Iterator[tuple[str, int]]:
    """The whole numbers in a value, each with its key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _whole_numbers(f"{key}.{name}" if key else name, inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _whole_numbers(key, inner)
    elif isinstance(value, int):
        yield key, value


def echoed(value: object) -> str:
    """A value as its author would write it in Python, cut after LONGEST_ECHO characters."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_ECHO else f"{text[: LONGEST_ECHO - 1]}…"
