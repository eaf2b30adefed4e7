"""Which values of a line or record are the responses that are to be compared.

Everybody names them otherwise, so the usual names are known here, with a number or a letter: response_1, answer-b, …
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from labeling.records import UserError

STEMS = ("response", "reply", "answer", "completion", "generation", "output", "candidate", "option", "text", "txt")
NUMBERED = re.compile(rf"({'|'.join(STEMS)})([1-9]|[a-i])")


class Unusable(Exception):
    """A well-formed line that says nothing about preferences; it is counted and left out."""


def plain(name: str) -> str:
    """A name without case and signs: response_1, Response-1 and response1 are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def numbered_names(names: Iterable[str]) -> list[str]:
    """Those of the names that are of responses, in their order, all with the same word; none unless there are two."""
    found = sorted(
        (STEMS.index(match[1]), match[2], name) for name in names if (match := NUMBERED.fullmatch(plain(name)))
    )
    stems = [stem for stem, _, _ in found]
    return [name for stem, _, name in found if stem == next((s for s in stems if stems.count(s) > 1), None)]


def numbered_texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """The fields that are responses, in their order, without those left empty.

    Raises UserError when there are no two, Unusable when fewer than two hold text or two hold the same.
    """
    names = numbered_names(fields)
    if not names:
        has = ", ".join(map(repr, fields))[:150]
        raise UserError(f"no responses to compare, only {has}: call their fields response_1, response_2, …")
    texts = {name: fields[name] for name in names if fields[name] not in (None, "")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise UserError(f"{name!r} must be text, not {text!r}")
    return require_different(texts)


def require_different(texts: dict[str, str]) -> dict[str, str]:
    """The texts, unless they give nothing to compare: then Unusable."""
    if len(texts) < 2 or not all(text.strip() for text in texts.values()):
        raise Unusable("an empty response")
    if len(set(texts.values())) < len(texts):
        raise Unusable("two responses are the same")
    return texts
