"""What the names and words of other labeling tools say: which fields are responses, and which of them won.

Argilla and Label Studio let every project choose its own names, and their exports do not say what a field is for; so
the usual names are known here, and a record that has none of them is refused with what it should be called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.exchange_lines import Entry, Unusable, known_times, messages
from labeling.records import Annotator, Candidate, Label, Prompt, Slate, UserError, content_id

PROMPTS = ("prompt", "instruction", "question", "query", "input", "context", "messages", "conversation", "chat")
STEMS = ("response", "reply", "answer", "completion", "generation", "output", "candidate", "option", "text", "txt")
NUMBERED = re.compile(rf"({'|'.join(STEMS)})([1-9]|[a-i])")
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


def plain(name: str) -> str:
    """A name without case and signs: response_1, Response-1 and response1 are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def numbered_texts(fields: Mapping[str, Any]) -> dict[str, str]:
    """The fields that are responses (response_1, answer2, text-b, …) in their order, without those left empty.

    Raises UserError when there are no two, Unusable when fewer than two hold text or two hold the same.
    """
    found = sorted(
        (STEMS.index(match[1]), match[2], name) for name in fields if (match := NUMBERED.fullmatch(plain(name)))
    )
    stems = [stem for stem, _, _ in found]
    names = [name for stem, _, name in found if stem == next((s for s in stems if stems.count(s) > 1), None)]
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
