"""The forms in which an endpoint that can is to reply: JSON with one key, by a schema.

A schema holds the letters and their number; that a ranking names each of them once, only who reads it can tell (see
`judges.verdict`).
"""

from __future__ import annotations

from typing import Any

from judges.verdict import ABSTAIN, LETTERS, TIE


def verdict_schema(k: int) -> dict[str, Any]:
    """The form of a verdict about k shown candidates: for more than two a ranking like "B>A=C"."""
    if k == 2:
        return _schema("verdict", {"type": "string", "enum": [*LETTERS[:k], TIE, ABSTAIN]})
    return _schema("verdict", {"type": "string", "pattern": ranking_pattern(k)})


def ranking_pattern(k: int) -> str:
    """As a regular expression: k letters of the first k with > or = between them, or an abstention."""
    letter = f"[A-{LETTERS[k - 1]}]"
    return f"^({letter}([>=]{letter}){{{k - 1}}}|{ABSTAIN})$"


def score_schema(scale: tuple[int, int]) -> dict[str, Any]:
    """The form of a score on this scale."""
    return _schema("score", {"type": "integer", "enum": list(range(scale[0], scale[1] + 1))})


def _schema(key: str, value: dict[str, Any]) -> dict[str, Any]:
    whole = {"type": "object", "properties": {key: value}, "required": [key], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": key, "strict": True, "schema": whole}}
