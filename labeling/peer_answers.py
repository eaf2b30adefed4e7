"""What the names and words of other labeling tools say: which field is the prompt, and which response won.

Argilla and Label Studio let every project choose its own names, and their exports do not say what a field is for; so
the usual names are known here, and a record that has none of them is refused with what it should be called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.compared_texts import plain
from labeling.exchange_lines import Entry, known_times, messages
from labeling.records import Annotator, Candidate, Label, Prompt, Slate, UserError, content_id

PROMPTS = ("prompt", "instruction", "question", "query", "input", "context", "messages", "conversation", "chat")
TIES = {"tie", "tied", "equal", "equallygood", "same", "draw", "nopreference"}
BOTH_BAD = {"bothbad", "equallybad", "bothareequallybad", "neither"}
PLACES = (("left", "first"), ("right", "second"))
LONGEST_NAME = 200


@dataclass(frozen=True)
class Said:
    """One person's answer: ranks (1 = best; None when both are bad), and what is known of it beside.

    created: Unix seconds. seconds: how long it took.
    """

    who: str
    ranks: tuple[int, ...] | None
    unranked: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    seconds: float | None = None
    created: float | None = None


def prompt_of(fields: Mapping[str, Any]) -> Prompt:
    """What was answered: the first field with a usual name, a text or a list of messages. Raises UserError."""
    names = {plain(name): name for name in reversed(list(fields)) if fields[name] is not None}
    name = next((names[usual] for usual in PROMPTS if usual in names), None)
    if name is None:
        raise UserError(f"no prompt, only {', '.join(map(repr, fields))[:150]}: call its field 'prompt'")
    return Prompt(messages(fields, name))


def best_first(order: Sequence[int], k: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(ranks, unranked) of k candidates of which `order` names some, the best first."""
    ranks = [len(order) + 1] * k
    for rank, place in enumerate(order, start=1):
        ranks[place] = rank
    return tuple(ranks), tuple(n for n in range(k) if n not in order)


def verdict(word: str, names: Sequence[str]) -> tuple[tuple[int, ...] | None, tuple[int, ...]] | None:
    """(ranks, unranked) that a chosen word gives the named candidates; ranks None: both are bad. None: it says nothing.

    The winner is named, numbered (1, 2, …), lettered (A, B, …) or left/right of two.
    """
    said = plain(word)
    said = re.sub(r"(is)?better$", "", said) or said
    for n, name in enumerate(names):
        sides = PLACES[n] if len(names) == 2 else ()
        if said in (plain(name), str(n + 1), "abcdefghi"[n], *sides):
            return best_first([n], len(names))
    if said in TIES:
        return (1,) * len(names), ()
    return (None, ()) if said in BOTH_BAD else None


def entry_of(prompt: Prompt, texts: Iterable[str], answers: Sequence[Said]) -> Entry:
    """A slate with its answers. A label's key hangs on all that it says, so the same export again adds nothing.

    Raises UserError for a name or time that cannot be.
    """
    slate = Slate(prompt, tuple(map(Candidate, texts)))
    labels: dict[str, Label] = {}
    created: dict[str, float | None] = {}
    for said in answers:
        if not said.who.strip() or len(said.who) > LONGEST_NAME:
            raise UserError(f"an annotator's name has 1 to {LONGEST_NAME} characters, not {said.who!r}")
        annotator = f"human:{said.who}"
        key = content_id("import", slate.id, annotator, said.ranks, said.unranked, said.seconds, said.created)
        outcome: Any = "both_bad" if said.ranks is None else "ranked"
        labels[key] = Label(
            slate.id,
            annotator,
            outcome,
            key,
            said.ranks,
            order=said.order,
            seconds=said.seconds,
            unranked=said.unranked,
        )
        created[key] = said.created
    people = {label.annotator: Annotator(label.annotator, "human") for label in labels.values()}
    return Entry(prompt, None, slate, tuple(people.values()), tuple(labels.values()), created=known_times(created))
