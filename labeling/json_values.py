"""Values of a JSON object from outside, each of the type that was asked for, or one line that names the key."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from labeling.records import UserError

NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
REQUIRED: Any = object()


def get(o: Mapping[str, Any], key: str, kind: type, default: Any = REQUIRED) -> Any:
    """The value of a key, of that very type (a whole number is a number too); null is as good as a missing key.

    Raises UserError for another type, a whole number that no database keeps, and a missing key without a default.
    """
    value = o.get(key)
    if value is None and default is not REQUIRED:
        return default
    if key not in o:
        raise UserError(f"the key {key!r} is missing")
    if type(value) is int and abs(value) >= 2**63:
        raise UserError(f"{key!r} is too large a number")
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"{key!r} must be {NAMES[kind]}, not {value!r}")
    return value


def objects(o: Mapping[str, Any], key: str, default: Any = REQUIRED) -> list[dict[str, Any]]:
    """A list of objects. Raises UserError as `get` does."""
    items = get(o, key, list, default)
    for item in items:
        if not isinstance(item, dict):
            raise UserError(f"{key!r} must hold objects, not {item!r}")
    return items


def numbers(o: Mapping[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    """A list of values of one type, empty where the key is missing. Raises UserError as `get` does."""
    return tuple(get({key: item}, key, kind) for item in get(o, key, list, []))


def require_known(o: Mapping[str, Any] | Set[str], known: set[str], what: str) -> None:
    """Raise UserError for a key that `what` does not have."""
    unknown = sorted(set(o) - known)
    if unknown:
        raise UserError(f"{what} has no key {unknown[0]!r}: remove it; known are {', '.join(sorted(known))}")
