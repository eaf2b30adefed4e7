"""Tasks as Label Studio exports them in JSON: comparisons by `Pairwise` or `Choices`, orders by `Ranker`.

A task holds its data and everybody's annotations. Predictions of models are left aside, and so are `Ranker` answers
in several buckets: they do not say which bucket is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from labeling.compared_texts import Unusable, numbered_texts, require_different
from labeling.exchange_lines import Entry
from labeling.json_values import get, objects
from labeling.peer_answers import Said, best_first, entry_of, prompt_of, verdict
from labeling.records import UserError

Ranking = tuple[tuple[int, ...] | None, tuple[int, ...]]  # ranks and unranked, as in `peer_answers.verdict`
TEXTS_OF_ITEMS = ("body", "text", "html", "title")


def is_label_studio(keys: Iterable[str]) -> bool:
    """Whether these are the keys of a task of Label Studio."""
    return {"data", "annotations"} <= set(keys)


def refuse_shortened(keys: Iterable[str], called: str = "JSON-MIN") -> None:
    """Raise UserError for what JSON-MIN or CSV makes of an annotation: one row, in which answers stand among the data.

    called: which of the two.
    """
    if {"annotation_id", "lead_time"} <= set(keys):
        raise UserError(
            f"this is Label Studio's {called}, which shortens the answers: export the project again as JSON"
        )


def read_label_studio(task: Mapping[str, Any]) -> tuple[Entry | None, list[str]]:
    """A task as a slate with its labels, or None, and why annotations were left out.

    Raises UserError, and Unusable when the task compares nothing.
    """
    data, annotations = get(task, "data", dict), objects(task, "annotations")
    if not annotations:
        raise Unusable("nobody has answered")
    results = [result for annotation in annotations for result in objects(annotation, "result", [])]
    texts = _items(data) if any(result.get("type") == "ranker" for result in results) else numbered_texts(data)
    answers: list[Said] = []
    unsaid: list[str] = []
    for annotation in annotations:
        ranking = _ranking(objects(annotation, "result", []), texts)
        if get(annotation, "was_cancelled", bool, False):
            unsaid.append("an annotation that was cancelled")
        elif ranking is None:
            unsaid.append("an annotation that does not say which response is better")
        else:
            answers.append(_said(annotation, ranking, len(texts)))
    return (entry_of(prompt_of(data), texts.values(), answers) if answers else None), unsaid


def _said(annotation: Mapping[str, Any], ranking: Ranking, k: int) -> Said:
    """An annotation as an answer; responses are shown in the order in which the data has them."""
    seconds, created = get(annotation, "lead_time", float, None), get(annotation, "created_at", str, None)
    when = None if created is None else _unix(created)
    return Said(_name(annotation.get("completed_by")), *ranking, tuple(range(k)), seconds, when)


def _name(who: Any) -> str:
    """Who annotated: a number, or an object with the person's e-mail address or name."""
    if isinstance(who, dict):
        who = next((who[key] for key in ("email", "username", "id") if who.get(key) not in (None, "")), None)
    if type(who) not in (int, str):
        raise UserError(f"'completed_by' must be a number or an object with an 'email', not {who!r}")
    return str(who)


def _unix(text: str) -> float:
    try:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError) as error:
        raise UserError(f"'created_at' must be a time like 2026-03-09T22:16:08Z, not {text!r}") from error


def _items(data: Mapping[str, Any]) -> dict[str, str]:
    """{id: text} of the list that a `Ranker` put in order. Raises UserError when the data has no or two such lists."""
    lists = [key for key, value in data.items() if isinstance(value, list) and _have_ids(value)]
    if len(lists) != 1:
        raise UserError(f"a ranked task needs one list of objects with an 'id' in its data, not {len(lists)}")
    items = objects(data, lists[0])
    texts = {str(item["id"]): _text_of(item) for item in items}
    if len(texts) < len(items):
        raise UserError(f"two items of {lists[0]!r} have the same id: give each its own")
    return require_different(texts)


def _have_ids(value: list[Any]) -> bool:
    return bool(value) and all(isinstance(item, dict) and "id" in item for item in value)


def _text_of(item: Mapping[str, Any]) -> str:
    return next((text for key in TEXTS_OF_ITEMS if (text := get(item, key, str, ""))), "")


def _ranking(results: Iterable[Mapping[str, Any]], texts: Mapping[str, str]) -> Ranking | None:
    """What the first telling result says about the texts."""
    for result in results:
        value, kind = get(result, "value", dict, {}), result.get("type")
        if kind == "pairwise" and isinstance(selected := value.get("selected"), str):
            return verdict(selected, list(texts))
        if kind == "choices" and (chosen := _only_choice(value, texts)):
            return chosen
        if kind == "ranker":
            return _ranked(value.get("ranker"), list(texts))
    return None


def _only_choice(value: Mapping[str, Any], texts: Mapping[str, str]) -> Ranking | None:
    choices = get(value, "choices", list, [])
    return verdict(choices[0], list(texts)) if len(choices) == 1 and isinstance(choices[0], str) else None


def _ranked(ranker: Any, ids: list[str]) -> Ranking | None:
    """A `Ranker`'s ids in their new order, alone or as the only bucket that holds any."""
    buckets = [bucket for bucket in (ranker.values() if isinstance(ranker, dict) else [ranker]) if bucket]
    if len(buckets) != 1 or not isinstance(buckets[0], list):
        return None
    order = [str(item) for item in buckets[0]]
    strange = next((item for item in order if item not in ids or order.count(item) > 1), None)
    if strange is not None:
        raise UserError(f"the ranking names {strange!r}, which is not once in the data: export the task again")
    return best_first([ids.index(item) for item in order], len(ids))
