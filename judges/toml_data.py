"""TOML files become frozen values here, and a mistake in one becomes one line that names file, key and value."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from labeling.records import UserError
from labeling.toml_values import echoed, parsed_toml

T = TypeVar("T")
FENCE = "+++"  # the line before and the line after the TOML at the top of a Markdown file


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises UserError naming file (and line) when it cannot be read."""
    return _parsed(_text(path), path)


def read_markdown(path: Path) -> tuple[dict[str, Any], str]:
    """The TOML between two lines +++ at the top of a Markdown file, {} without, and the text below it.

    Raises UserError naming the file (and the line within the TOML).
    """
    text = _text(path).lstrip("\n")
    first, _, rest = text.partition("\n")
    if first.strip() != FENCE:
        return {}, text.strip()
    lines = rest.splitlines()
    ends = [n for n, line in enumerate(lines) if line.strip() == FENCE]
    if not ends:
        raise UserError(f"{path}: the line {FENCE} at its top has no second one: end the TOML with another")
    return _parsed("\n".join(lines[: ends[0]]), path), "\n".join(lines[ends[0] + 1 :]).strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return parsed_toml(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path}: is not valid TOML: {error}") from error


def validated(kind: type[T], data: Any, path: Path, others: Iterable[str] = (), section: str = "") -> T:
    """Make a `kind` (a pydantic dataclass) of data read from `path`, whose `others` keys are read elsewhere.

    section: where in the file the data stands.

    Raises UserError naming file, key, value and what is allowed.
    """
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        known = ", ".join([*(field.name for field in fields(kind)), *sorted(others)])  # type: ignore[arg-type]
        place = f"[{section}] " if section else ""
        raise UserError(f"{path}: {place}{_explain(error, known)}") from error


def _explain(error: ValidationError, known: str) -> str:
    """The first thing wrong, in one line. Elements of a list are counted from #1."""
    first = error.errors(include_url=False)[0]
    context = first.get("ctx", {})
    key = ".".join(f"#{part + 1}" if isinstance(part, int) else part for part in first["loc"])
    match first["type"]:
        case "unexpected_keyword_argument":
            there = f" (known: {known})" if len(first["loc"]) == 1 else ""
            return f"{key} is not a known key{there}: remove it or mend its spelling"
        case "missing":
            return f"{key} is missing: add it"
        case "union_tag_not_found":
            return f"{key}.kind is missing: add it"
        case "union_tag_invalid":
            return f"{key}.kind = {echoed(context['tag'])}: must be one of {context['expected_tags']}"
        case "value_error":
            return f"{key}: {context['error']}"
    return f"{key} = {echoed(first['input'])}: {first['msg'][:1].lower()}{first['msg'][1:]}"
