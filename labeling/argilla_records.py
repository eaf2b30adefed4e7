"""Records as Argilla exports them: nested by `records.to_json`, flat by `records.to_datasets`.

What a person said about the responses of a record is read from the first question that tells: a ranking of them, a
label that names one of them, or ratings, one question for each response. Argilla's exports name people by their ids
and leave out when they answered; a ranking loses its ties on the way, as Argilla writes it down best first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from labeling.compared_texts import Unusable, numbered_texts, plain
from labeling.exchange_lines import Entry
from labeling.json_values import get, objects
from labeling.peer_answers import Said, entry_of, prompt_of, verdict
from labeling.records import UserError

Ranking = tuple[tuple[int, ...] | None, tuple[int, ...]]  # ranks and unranked, as in `peer_answers.verdict`
ANSWERS = ".responses"


def is_argilla(keys: Iterable[str]) -> bool:
    """Whether these are the keys of a record of Argilla."""
    found = set(keys)
    flat = any(key.endswith(ANSWERS) and f"{key}.users" in found for key in found)
    return flat or {"fields", "responses"} <= found or {"id", "_server_id"} <= found


def read_argilla(record: Mapping[str, Any]) -> tuple[Entry | None, list[str]]:
    """A record as a slate with its labels, or None, and why answers were left out.

    Raises UserError, and Unusable when the record compares nothing.
    """
    nested = "fields" in record
    fields = get(record, "fields", dict) if nested else {key: value for key, value in record.items() if "." not in key}
    texts = numbered_texts(fields)
    answers: list[Said] = []
    unsaid: list[str] = []
    for who, questions in _by_person(_nested(record) if nested else _flat(record), unsaid).items():
        ranking = _ranking(questions, list(texts))
        if ranking is None:
            unsaid.append("an answer that does not say which response is better")
        else:
            answers.append(Said(who, *ranking))
    if not answers and not unsaid:
        raise Unusable("nobody has answered")
    return (entry_of(prompt_of(fields), texts.values(), answers) if answers else None), unsaid


def _by_person(found: Iterator[tuple[str, str, Any, Any]], unsaid: list[str]) -> dict[str, dict[str, Any]]:
    """{person: {question: answer}} of what was submitted; drafts and discarded answers are counted in `unsaid`."""
    people: dict[str, dict[str, Any]] = {}
    for question, who, answer, status in found:
        if status in (None, "submitted"):
            people.setdefault(who, {})[question] = answer
        else:
            unsaid.append("an answer that was not submitted")
    return people


def _nested(record: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Any]]:
    for question in get(record, "responses", dict, {}):
        for answer in objects(record["responses"], question, []):
            yield question, get(answer, "user_id", str), answer.get("value"), answer.get("status")


def _flat(record: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Any]]:
    for key in record:
        if key.endswith(ANSWERS) and record[key] is not None:
            answers, people = get(record, key, list), get(record, f"{key}.users", list)
            states = get(record, f"{key}.status", list, [None] * len(answers))
            if not len(answers) == len(people) == len(states):
                raise UserError(f"{key!r} has {len(answers)} answers by {len(people)} people: export it again")
            for answer, who, status in zip(answers, people, states, strict=True):
                yield key.removesuffix(ANSWERS), get({"user_id": who}, "user_id", str), answer, status


def _ranking(questions: Mapping[str, Any], names: Sequence[str]) -> Ranking | None:
    for answer in questions.values():
        if isinstance(answer, list) and (ranking := _ranked(answer, names)):
            return ranking
    for answer in questions.values():
        if isinstance(answer, str) and (chosen := verdict(answer, names)):
            return chosen
    return _rated(questions, names)


def _ranked(answer: Sequence[Any], names: Sequence[str]) -> Ranking | None:
    """A ranking question's answer: names, best first, or the server's {"value": name, "rank": n}, where ties are."""
    known = {plain(name): n for n, name in enumerate(names)}
    items = [item if isinstance(item, dict) else {"value": item, "rank": n} for n, item in enumerate(answer, start=1)]
    places = [known.get(plain(str(item.get("value")))) for item in items]
    given = {place: item.get("rank") for place, item in zip(places, items, strict=True) if place is not None}
    ranked = {place: rank for place, rank in given.items() if type(rank) is int}
    if not ranked or len(set(places)) < len(places):
        return None
    return _dense(ranked, len(names))


def _rated(questions: Mapping[str, Any], names: Sequence[str]) -> Ranking | None:
    """Ratings in questions that are called after the responses: response_1_rating, rating_1, …; more is better."""
    ratings = {plain(question): answer for question, answer in questions.items() if type(answer) in (int, float)}
    ranked: dict[int, float] = {}
    for n, name in enumerate(names):
        own = [q for q in ratings if plain(name) in q] or [q for q in ratings if q.endswith(plain(name)[-1])]
        if len(own) != 1:
            return None
        ranked[n] = -ratings[own[0]]
    return _dense(ranked, len(names))


def _dense(ranked: Mapping[int, float], k: int) -> Ranking:
    """Ranks 1, 2, … without gaps of those whose place in the order is known; the others are unranked."""
    steps = sorted(set(ranked.values()))
    ranks = tuple(steps.index(ranked[n]) + 1 if n in ranked else len(steps) + 1 for n in range(k))
    return ranks, tuple(n for n in range(k) if n not in ranked)
