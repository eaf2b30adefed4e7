"""A slate whose secrets must stay, an answer as the page sends it, and the one line of a refusal."""

from __future__ import annotations

from itertools import count
from typing import Any

from labeling.records import Candidate, Lineage, Message, Prompt, Slate

KEYS = (f"test-key-{n}" for n in count())


def slate(name: str, k: int = 2) -> Slate:
    """What nobody may see is called secret."""
    texts = tuple(Candidate(f"{name} {n}", f"secret-policy-{n}", n > 0) for n in range(k))
    lineage = Lineage("secret-run", 7, "secret-selector", 0.125, "secret-rm", tuple(float(n) for n in range(k)))
    return Slate(Prompt((Message("user", f"question {name}"),), category="secret-category"), texts, lineage)


def submission(lease: dict[str, Any], ranks: list[int] | None = None, **more: Any) -> dict[str, Any]:
    """What the page sends when the person answers this lease."""
    outcome = "skip" if ranks is None else "ranked"
    return {"client_key": next(KEYS), "slate": lease["slate"], "outcome": outcome, "ranks": ranks, **more}


def only_error(reply: Any) -> str:
    """The one line of an error reply."""
    body = reply.json()
    assert list(body) == ["error"]
    assert "\n" not in body["error"]
    return body["error"]
