"""What a line of an exchange file means: JSON objects become records, records become JSON objects.

Three formats, told apart by their keys: prompts, pairs (chosen and rejected) and labels (candidates and what
everybody said about them). data/README.md shows one line of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from labeling.hh_dialogues import parse_dialogue, parting, render_response
from labeling.records import (
    Annotator,
    Candidate,
    Label,
    Lineage,
    Message,
    Prompt,
    Slate,
    Split,
    UserError,
    content_id,
)

Format = Literal["prompts", "pairs", "labels"]
PROMPT_KEYS = {"prompt", "messages", "split", "category"}
PAIR_KEYS = PROMPT_KEYS - {"messages"} | {"chosen", "rejected"}
LABEL_KEYS = PROMPT_KEYS | {"candidates", "lineage", "labels"}
KEYS: dict[Format, set[str]] = {"prompts": PROMPT_KEYS, "pairs": PAIR_KEYS, "labels": LABEL_KEYS}
NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
REQUIRED: Any = object()


class Unusable(Exception):
    """A well-formed line that says nothing about preferences; it is counted and left out."""


@dataclass(frozen=True)
class Entry:
    """One line as records. `split`: what the line itself asks for. `annotators`: those of the labels, by id."""

    prompt: Prompt
    split: Split | None
    slate: Slate | None = None
    annotators: tuple[Annotator, ...] = ()
    labels: tuple[Label, ...] = ()


def format_of(line: Mapping[str, Any]) -> Format:
    """Which format a line has. Raises UserError for a key that this format does not know."""
    found: Format = "labels" if "candidates" in line else "pairs" if line.keys() & {"chosen", "rejected"} else "prompts"
    _require_known(line, KEYS[found], f"a line of {found}")
    return found


def read_prompt(line: Mapping[str, Any]) -> Entry:
    """{"prompt": text or messages} or {"messages": […]}, with optional split and category."""
    if ("prompt" in line) == ("messages" in line):
        raise UserError("a line needs either 'prompt' or 'messages', and not both")
    messages = _messages(line, "prompt" if "prompt" in line else "messages")
    return _entry(line, messages)


def read_pair(line: Mapping[str, Any], annotator: Annotator) -> Entry:
    """A prompt with a chosen and a rejected response, or two dialogues that share the prompt, as one ranked pair.

    Which response becomes candidate 0 hangs on the texts alone, so that the place says nothing about the winner and
    two lines that disagree about the same responses are two labels of one slate.
    Raises Unusable for an empty response, two equal ones, and dialogues without a common prompt.
    """
    prompt, chosen, rejected = _compared(line)
    if not chosen.strip() or not rejected.strip():
        raise Unusable("an empty response")
    if chosen == rejected:
        raise Unusable("chosen and rejected are the same")
    entry = _entry(line, prompt)
    texts = sorted((chosen, rejected))
    if int(content_id("place", entry.prompt.id, texts)[-1], 16) % 2:
        texts.reverse()
    slate = Slate(entry.prompt, tuple(map(Candidate, texts)))
    ranks = (1, 2) if texts[0] == chosen else (2, 1)
    key = content_id("import", annotator.id, slate.id, ranks)
    label = Label(slate.id, annotator.id, "ranked", key, ranks)
    return Entry(entry.prompt, entry.split, slate, (annotator,), (label,))


def _compared(line: Mapping[str, Any]) -> tuple[tuple[Message, ...], str, str]:
    for key in ("chosen", "rejected"):
        if key not in line:
            raise UserError(f"the key {key!r} is missing: a pair needs 'chosen' and 'rejected'")
    if "prompt" in line:
        return _messages(line, "prompt"), _response(line, "chosen"), _response(line, "rejected")
    one, other = (
        parse_dialogue(line[key]) if isinstance(line[key], str) else _messages(line, key)
        for key in ("chosen", "rejected")
    )
    shared = parting(one, other)
    if not shared:
        raise Unusable("the two dialogues share no prompt")
    if not one[shared - 1].content.strip():
        raise Unusable("an empty prompt")
    return one[:shared], render_response(one[shared:]), render_response(other[shared:])


def _response(line: Mapping[str, Any], key: str) -> str:
    if isinstance(line[key], str):
        return line[key]
    turns = _messages(line, key)
    if turns[0].role != "assistant":
        raise UserError(f"{key!r} must begin with the assistant's turn when the line has a 'prompt'")
    return render_response(turns)


def read_labels(line: Mapping[str, Any]) -> Entry:
    """One slate with its lineage and every label it ever got, as `label_line` writes it."""
    entry = read_prompt(line)
    candidates = tuple(map(_candidate, _objects(line, "candidates")))
    slate = Slate(entry.prompt, candidates, _lineage(_get(line, "lineage", dict, {}), len(candidates)))
    answers = _objects(line, "labels", [])
    labels = tuple(_label(answer, slate) for answer in answers)
    annotators = tuple(_annotator(_get(answer, "annotator", dict)) for answer in answers)
    return Entry(entry.prompt, entry.split, slate, annotators, labels)


def _candidate(o: Mapping[str, Any]) -> Candidate:
    _require_known(o, {"text", "policy", "finished", "clip"}, "a candidate")
    finished, clip = _get(o, "finished", bool, True), _get(o, "clip", str, "")
    return Candidate(_get(o, "text", str), _get(o, "policy", str, ""), finished, clip)


def _lineage(o: Mapping[str, Any], k: int) -> Lineage:
    _require_known(o, set(asdict(Lineage())), "lineage")
    predicted = _numbers(o, "predicted", float)
    if len(predicted) not in (0, k):
        raise UserError(f"'predicted' holds {len(predicted)} scores for {k} candidates")
    return Lineage(
        run=_get(o, "run", str, ""),
        iteration=_get(o, "iteration", int, 0),
        selector=_get(o, "selector", str, "import"),
        propensity=_get(o, "propensity", float, 1.0),
        reward_model=_get(o, "reward_model", str, ""),
        predicted=predicted,
    )


def _annotator(o: Mapping[str, Any]) -> Annotator:
    _require_known(o, {"id", "kind", "weight", "flip_rate"}, "an annotator")
    weight, flip_rate = _get(o, "weight", float, 1.0), _get(o, "flip_rate", float, 0.0)
    return Annotator(_get(o, "id", str), _get(o, "kind", str), weight, flip_rate)


def _label(o: Mapping[str, Any], slate: Slate) -> Label:
    keys = {"annotator", "outcome", "client_key", "ranks", "probability", "strength", "order", "seconds", "reason"}
    keys |= {"supersedes", "unranked", "flags", "criteria", "purpose"}
    _require_known(o, keys, "a label")
    criteria: dict[str, str] = _get(o, "criteria", dict, {})
    if not all(isinstance(choice, str) for choice in criteria.values()):
        raise UserError('\'criteria\' maps names to "first", "second" or "tie"')
    flags = _get(o, "flags", list, [])
    if not all(isinstance(flag, str) for flag in flags):
        raise UserError("'flags' is a list of words")
    return Label(
        slate_id=slate.id,
        annotator=_get(_get(o, "annotator", dict), "id", str),
        outcome=_get(o, "outcome", str),
        client_key=_get(o, "client_key", str),
        ranks=None if o.get("ranks") is None else _numbers(o, "ranks", int),
        probability=_get(o, "probability", float, None),
        strength=_get(o, "strength", float, None),
        order=_numbers(o, "order", int),
        seconds=_get(o, "seconds", float, None),
        reason=_get(o, "reason", str, ""),
        supersedes=_get(o, "supersedes", str, None),
        unranked=_numbers(o, "unranked", int),
        flags=tuple(flags),
        criteria=tuple(criteria.items()),
        purpose=_get(o, "purpose", str, "teach"),
    )


def prompt_line(prompt: Prompt) -> dict[str, Any]:
    """A prompt as an object; one user turn is written as plain text."""
    alone = len(prompt.messages) == 1 and prompt.messages[0].role == "user"
    asked = {"prompt": prompt.messages[0].content} if alone else {"messages": list(map(asdict, prompt.messages))}
    return {**asked, "split": prompt.split, "category": prompt.category}


def label_line(slate: Slate, labels: Iterable[Label], annotators: Mapping[str, Annotator]) -> dict[str, Any]:
    """A slate with its lineage and labels as an object that `read_labels` reads back."""
    answers = []
    for label in labels:
        answer = {**asdict(label), "annotator": asdict(annotators[label.annotator])}
        del answer["slate_id"]  # it follows from the content
        answer["criteria"] = dict(label.criteria)
        for key, usual in (("unranked", ()), ("flags", ()), ("criteria", {}), ("purpose", "teach")):
            if answer[key] == usual:
                del answer[key]
        answers.append(answer)
    candidates, lineage = list(map(_candidate_object, slate.candidates)), asdict(slate.lineage)
    return {**prompt_line(slate.prompt), "candidates": candidates, "lineage": lineage, "labels": answers}


def _candidate_object(candidate: Candidate) -> dict[str, Any]:
    """A candidate as an object; only a clip says which."""
    return {key: value for key, value in asdict(candidate).items() if key != "clip" or value}


def pair_line(prompt: Prompt, chosen: Candidate, rejected: Candidate) -> dict[str, Any]:
    """A preference in the conversational form with an explicit prompt that TRL and `datasets` read."""
    return {
        "prompt": list(map(asdict, prompt.messages)),
        "chosen": [{"role": "assistant", "content": chosen.text}],
        "rejected": [{"role": "assistant", "content": rejected.text}],
    }


def _entry(line: Mapping[str, Any], messages: tuple[Message, ...]) -> Entry:
    split = _get(line, "split", str, None)
    prompt = Prompt(messages, split or "train", _get(line, "category", str, ""))
    return Entry(prompt, prompt.split if split else None)


def _messages(o: Mapping[str, Any], key: str) -> tuple[Message, ...]:
    if isinstance(o[key], str):
        return (Message("user", o[key]),)
    if not isinstance(o[key], list):
        raise UserError(f"{key!r} must be text or a list of messages, not {o[key]!r}")
    turns = _objects(o, key)
    if not turns:
        raise UserError(f"{key!r} holds no messages")
    for turn in turns:
        _require_known(turn, {"role", "content"}, "a message")
    return tuple(Message(_get(turn, "role", str), _get(turn, "content", str)) for turn in turns)


def _objects(o: Mapping[str, Any], key: str, default: Any = REQUIRED) -> list[dict[str, Any]]:
    items = _get(o, key, list, default)
    for item in items:
        if not isinstance(item, dict):
            raise UserError(f"{key!r} must hold objects, not {item!r}")
    return items


def _numbers(o: Mapping[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    return tuple(_get({key: item}, key, kind) for item in _get(o, key, list, []))


def _get(o: Mapping[str, Any], key: str, kind: type, default: Any = REQUIRED) -> Any:
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


def _require_known(o: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(o.keys() - known)
    if unknown:
        raise UserError(f"{what} has no key {unknown[0]!r}: remove it; known are {', '.join(sorted(known))}")
