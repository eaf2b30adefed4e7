"""What a person may see of a slate and of their own answer: in places of the screen, and nothing about origins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from labeling import clip_routes
from labeling.records import Candidate, Label, Slate
from labeling.rich_text import plain, rich


def blind(slate: Slate, order: Sequence[int]) -> dict[str, Any]:
    """The conversation and the candidates, in the order in which they are shown.

    Of a clip that is its video alone: its text describes it to judges, and a system message beside it is technical.
    """
    shown = [slate.candidates[candidate] for candidate in order]
    technical = any(c.clip for c in shown)
    messages = [m for m in slate.prompt.messages if m.role == "user" or not technical]
    return {
        "slate": slate.id,
        "prompt": [{"role": m.role, **_readable("content", m.content)} for m in messages],
        "candidates": [_candidate(c) for c in shown],
    }


def in_places(label: Label) -> dict[str, Any]:
    """The label as its person gave it: about places, as a submitted answer is."""
    side = sides(label.order)
    return {
        "outcome": label.outcome,
        "ranks": None if label.ranks is None else [label.ranks[candidate] for candidate in label.order],
        "unranked": sorted(label.order.index(candidate) for candidate in label.unranked),
        "strength": label.strength,
        "reason": label.reason,
        "flags": list(label.flags),
        "criteria": {name: side.get(choice, "tie") for name, choice in label.criteria},
    }


def sides(order: Sequence[int]) -> dict[str, str]:
    """Of a pair: which candidate is in a place, and in which place a candidate is."""
    left, right = ("first", "second") if tuple(order) == (0, 1) else ("second", "first")
    return {"left": left, "right": right, left: "left", right: "right"}


def _candidate(c: Candidate) -> dict[str, Any]:
    if c.clip:
        return {"clip": clip_routes.address(c.clip)}
    return {**_readable("text", c.text), "finished": c.finished}


def _readable(key: str, text: str) -> dict[str, str]:
    """A text under `key`, and as `html` where it is more than words."""
    html = rich(text)
    return {key: plain(text), **({"html": html} if html else {})}
