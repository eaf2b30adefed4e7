"""What a line of an exchange file means: JSON objects become records, records become JSON objects.

Five formats, told apart by their keys: prompts, responses (to be compared), pairs (chosen and rejected), unpaired (a
completion and whether it is good) and labels (candidates and what everybody said about them). Responses are only read.
data/README.md shows one line of each.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from labeling.compared_texts import Unusable, numbered_names, numbered_texts, require_different
from labeling.exchange_segments import read_segment, segment_object
from labeling.hh_dialogues import is_dialogue, parse_dialogue, parting, parting_words, render_response
from labeling.json_values import get, numbers, objects, require_known
from labeling.records import (
    Annotator,
    Candidate,
    HumanRequest,
    Label,
    Lineage,
    Message,
    Prompt,
    Slate,
    Split,
    UserError,
    content_id,
)
from labeling.segments import Segment

Format = Literal["prompts", "pairs", "unpaired", "labels"]
ReadFormat = Format | Literal["responses"]
PROMPT_KEYS = {"prompt", "messages", "split", "category"}
PAIR_KEYS = PROMPT_KEYS - {"messages"} | {"chosen", "rejected"}
# What TRL's and UltraFeedback's files of pairs have besides: beyond which answer was chosen, it is left out.
PAIR_KEYS_NOT_READ = {"score_chosen", "score_rejected", "margin", "messages", "prompt_id"}
UNPAIRED_KEYS = PROMPT_KEYS - {"messages"} | {"completion", "label"}
LABEL_KEYS = PROMPT_KEYS | {"candidates", "lineage", "gold", "labels"}
KEYS: dict[Format, set[str]] = {
    "prompts": PROMPT_KEYS,
    "pairs": PAIR_KEYS,
    "unpaired": UNPAIRED_KEYS,
    "labels": LABEL_KEYS,
}


@dataclass(frozen=True)
class Entry:
    """One line as records.

    split: what the line itself asks for. annotators: those of the labels. created: when labels were given, in Unix
    seconds by client_key, of those whose time is known. requests: why people were to answer the slate. gold: the known
    answer, if there is one. revoked: why annotators whose labels count for nothing are revoked, by their ids.
    """

    prompt: Prompt
    split: Split | None
    slate: Slate | None = None
    annotators: tuple[Annotator, ...] = ()
    labels: tuple[Label, ...] = ()
    segments: tuple[Segment, ...] = ()
    created: Mapping[str, float] = field(default_factory=dict)
    requests: tuple[HumanRequest, ...] = ()
    gold: tuple[int, ...] = ()
    revoked: Mapping[str, str] = field(default_factory=dict)


def format_of(line: Mapping[str, Any]) -> ReadFormat:
    """Which format a line has. Raises UserError for a key that this format does not know."""
    found, known = format_of_keys(line)
    require_known(line.keys() - keys_not_read(line, found), known, f"a line of {found}")
    return found


def keys_not_read(line: Mapping[str, Any], form: str) -> list[str]:
    """The keys of a line of this format that are left out, in their order."""
    return [key for key in line if key in PAIR_KEYS_NOT_READ] if form == "pairs" else []


def format_of_keys(keys: Iterable[str]) -> tuple[ReadFormat, set[str]]:
    """Which format has such keys, and all the keys that it knows."""
    found = set(keys)
    telling: dict[Format, set[str]] = {
        "labels": {"candidates"},
        "pairs": {"chosen", "rejected"},
        "unpaired": {"completion"},
    }
    what = next((name for name, own in telling.items() if found & own), None)
    numbered = numbered_names(found)
    if what is None and (numbered or "responses" in found):
        return "responses", PROMPT_KEYS | {"responses", "policies"} | set(numbered)
    return what or "prompts", KEYS[what or "prompts"]


def read_prompt(line: Mapping[str, Any]) -> Entry:
    """{"prompt": text or messages} or {"messages": […]}, with optional split and category."""
    if ("prompt" in line) == ("messages" in line):
        raise UserError("a line needs either 'prompt' or 'messages', and not both")
    turns = messages(line, "prompt" if "prompt" in line else "messages")
    return _entry(line, turns)


def read_responses(line: Mapping[str, Any]) -> Entry:
    """A prompt with 2 to 9 responses that nobody has compared yet.

    {"responses": [text, …]} or {"response_1": text, "response_2": text, …}; beside either, "policies": [name, …], who
    wrote them. Raises UserError, and Unusable when a response is empty or two are the same.
    """
    entry = read_prompt(line)
    if ("responses" in line) == bool(numbered_names(line)):
        raise UserError("a line needs either 'responses' or 'response_1', 'response_2', …, and not both")
    if "responses" in line:
        texts = require_different({str(n): text for n, text in enumerate(numbers(line, "responses", str))})
    else:
        texts = numbered_texts(line)
    policies = numbers(line, "policies", str) or ("",) * len(texts)
    if len(policies) != len(texts):
        raise UserError(f"'policies' names {len(policies)} for {len(texts)} responses")
    return Entry(entry.prompt, entry.split, Slate(entry.prompt, tuple(map(Candidate, texts.values(), policies))))


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


class Completions:
    """Completions of one file that wait for one of the same prompt with the other verdict.

    Good or bad by itself compares nothing, but a good and a bad one of the same prompt do: of each prompt the n-th
    good completion and the n-th bad one become a pair.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[Message, ...], deque[tuple[int, Mapping[str, Any]]]] = {}

    def match(self, number: int, line: Mapping[str, Any]) -> dict[str, Any] | None:
        """The line of a pair, or None when the completion has to wait. Raises UserError."""
        for key in ("prompt", "completion"):
            if key not in line:
                raise UserError(
                    f"the key {key!r} is missing: an unpaired line needs 'prompt', 'completion' and 'label'"
                )
        prompt, good = messages(line, "prompt"), get(line, "label", bool)
        response = _response(line, "completion")
        waiting = self._waiting.setdefault(prompt, deque())
        if not waiting or waiting[0][1]["label"] == good:
            waiting.append((number, line))
            return None
        _, other = waiting.popleft()
        kept = {key: value for key, value in {**other, **line}.items() if key in PAIR_KEYS}
        texts = (response, _response(other, "completion"))
        return {**kept, "chosen": texts[not good], "rejected": texts[good]}

    def left(self) -> list[int]:
        """The numbers of the lines that still wait."""
        return sorted(number for waiting in self._waiting.values() for number, _ in waiting)


def _compared(line: Mapping[str, Any]) -> tuple[tuple[Message, ...], str, str]:
    for key in ("chosen", "rejected"):
        if key not in line:
            raise UserError(f"the key {key!r} is missing: a pair needs 'chosen' and 'rejected'")
    if "prompt" in line:
        return messages(line, "prompt"), _response(line, "chosen"), _response(line, "rejected")
    texts = (line["chosen"], line["rejected"])
    if all(isinstance(text, str) and not is_dialogue(text) for text in texts) and (shared := parting_words(*texts)):
        return (Message("user", texts[0][:shared]),), texts[0][shared:], texts[1][shared:]
    one, other = (
        parse_dialogue(line[key]) if isinstance(line[key], str) else messages(line, key)
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
    turns = messages(line, key)
    if turns[0].role != "assistant":
        raise UserError(f"{key!r} must begin with the assistant's turn when the line has a 'prompt'")
    return render_response(turns)


def read_labels(line: Mapping[str, Any]) -> Entry:
    """One slate with its lineage and every label it ever got, as `label_line` writes it."""
    entry = read_prompt(line)
    if any(isinstance(candidate, str) for candidate in get(line, "candidates", list)):
        raise UserError("'candidates' are objects with a 'text': call a list of plain texts 'responses'")
    given = objects(line, "candidates")
    candidates = tuple(map(_candidate, given))
    segments = tuple(read_segment(get(o, "segment", dict), o.get("clip")) for o in given if "segment" in o)
    lineage = get(line, "lineage", dict, {})
    slate = Slate(entry.prompt, candidates, _lineage(lineage, len(candidates)))
    requests = tuple(_request(o, slate) for o in objects(lineage, "requests", []))
    answers = objects(line, "labels", [])
    labels = tuple(_label(answer, slate) for answer in answers)
    said_by = [get(answer, "annotator", dict) for answer in answers]
    annotators = tuple(map(_annotator, said_by))
    revoked = {get(o, "id", str): why for o in said_by if (why := get(o, "revoked", str, "").strip())}
    created = {
        label.client_key: get(answer, "created", float, None) for label, answer in zip(labels, answers, strict=True)
    }
    said = (slate, annotators, labels, segments, known_times(created), requests, numbers(line, "gold", int), revoked)
    return Entry(entry.prompt, entry.split, *said)


def known_times(created: Mapping[str, float | None]) -> dict[str, float]:
    """The times that are given, in Unix seconds. Raises UserError for one that no clock shows."""
    times = {key: when for key, when in created.items() if when is not None}
    for when in times.values():
        if not (math.isfinite(when) and 0 <= when < 2**33):
            raise UserError(f"'created' is a time in Unix seconds (up to the year 2242), not {when}")
    return times


def _candidate(o: Mapping[str, Any]) -> Candidate:
    require_known(o, {"text", "policy", "finished", "clip", "segment"}, "a candidate")
    finished, clip = get(o, "finished", bool, True), get(o, "clip", str, "")
    return Candidate(get(o, "text", str), get(o, "policy", str, ""), finished, clip)


def _lineage(o: Mapping[str, Any], k: int) -> Lineage:
    require_known(o, {*asdict(Lineage()), "requests"}, "lineage")
    predicted = numbers(o, "predicted", float)
    if len(predicted) not in (0, k):
        raise UserError(f"'predicted' holds {len(predicted)} scores for {k} candidates")
    return Lineage(
        run=get(o, "run", str, ""),
        iteration=get(o, "iteration", int, 0),
        selector=get(o, "selector", str, "import"),
        propensity=get(o, "propensity", float, 1.0),
        reward_model=get(o, "reward_model", str, ""),
        predicted=predicted,
    )


def _request(o: Mapping[str, Any], slate: Slate) -> HumanRequest:
    require_known(o, {"judge", "reason", "place", "propensity"}, "a request")
    drawn = get(o, "propensity", float, None)
    return HumanRequest(slate.id, get(o, "judge", str), get(o, "reason", str), get(o, "place", float), drawn)


def _annotator(o: Mapping[str, Any]) -> Annotator:
    require_known(o, {"id", "kind", "weight", "flip_rate", "revoked"}, "an annotator")
    weight, flip_rate = get(o, "weight", float, 1.0), get(o, "flip_rate", float, 0.0)
    return Annotator(get(o, "id", str), get(o, "kind", str), weight, flip_rate)


def _label(o: Mapping[str, Any], slate: Slate) -> Label:
    keys = {"annotator", "outcome", "client_key", "ranks", "probability", "strength", "order", "seconds", "reason"}
    keys |= {"supersedes", "created", "unranked", "flags", "criteria", "purpose"}
    require_known(o, keys, "a label")
    criteria: dict[str, str] = get(o, "criteria", dict, {})
    if not all(isinstance(choice, str) for choice in criteria.values()):
        raise UserError('\'criteria\' maps names to "first", "second" or "tie"')
    flags = get(o, "flags", list, [])
    if not all(isinstance(flag, str) for flag in flags):
        raise UserError("'flags' is a list of words")
    return Label(
        slate_id=slate.id,
        annotator=get(get(o, "annotator", dict), "id", str),
        outcome=get(o, "outcome", str),
        client_key=get(o, "client_key", str),
        ranks=None if o.get("ranks") is None else numbers(o, "ranks", int),
        probability=get(o, "probability", float, None),
        strength=get(o, "strength", float, None),
        order=numbers(o, "order", int),
        seconds=get(o, "seconds", float, None),
        reason=get(o, "reason", str, ""),
        supersedes=get(o, "supersedes", str, None),
        unranked=numbers(o, "unranked", int),
        flags=tuple(flags),
        criteria=tuple(criteria.items()),
        purpose=get(o, "purpose", str, "teach"),
    )


def prompt_line(prompt: Prompt) -> dict[str, Any]:
    """A prompt as an object; one user turn is written as plain text."""
    alone = len(prompt.messages) == 1 and prompt.messages[0].role == "user"
    asked = {"prompt": prompt.messages[0].content} if alone else {"messages": list(map(asdict, prompt.messages))}
    return {**asked, "split": prompt.split, "category": prompt.category}


def label_line(
    slate: Slate,
    labels: Iterable[Label],
    annotators: Mapping[str, Annotator],
    segments: Mapping[str, Segment],
    created: Mapping[str, float],
    requests: Iterable[HumanRequest] = (),
) -> dict[str, Any]:
    """A slate with its lineage, its labels and what its clips show as an object that `read_labels` reads back.

    created: when the labels were given, by client_key. requests: why people were to answer the slate, if they were.
    """
    answers = []
    for label in labels:
        answer = {**asdict(label), "annotator": asdict(annotators[label.annotator])}
        answer["created"] = created[label.client_key]
        del answer["slate_id"]  # it follows from the content
        answer["criteria"] = dict(label.criteria)
        for key, usual in (("unranked", ()), ("flags", ()), ("criteria", {}), ("purpose", "teach")):
            if answer[key] == usual:
                del answer[key]
        answers.append(answer)
    candidates = [_candidate_object(candidate, segments.get(candidate.clip)) for candidate in slate.candidates]
    lineage = asdict(slate.lineage)
    if asked := [{key: value for key, value in asdict(r).items() if key != "slate_id"} for r in requests]:
        lineage["requests"] = asked
    return {**prompt_line(slate.prompt), "candidates": candidates, "lineage": lineage, "labels": answers}


def _candidate_object(candidate: Candidate, segment: Segment | None) -> dict[str, Any]:
    """A candidate as an object; only a clip says which, and brings what it shows."""
    written = {key: value for key, value in asdict(candidate).items() if key != "clip" or value}
    return written if segment is None else {**written, "segment": segment_object(segment)}


def pair_line(prompt: Prompt, chosen: Candidate, rejected: Candidate) -> dict[str, Any]:
    """A preference in the conversational form with an explicit prompt that TRL and `datasets` read."""
    return {"prompt": list(map(asdict, prompt.messages)), "chosen": _turn(chosen), "rejected": _turn(rejected)}


def unpaired_line(prompt: Prompt, completion: Candidate, good: bool) -> dict[str, Any]:
    """A completion and its verdict in TRL's conversational unpaired form."""
    return {"prompt": list(map(asdict, prompt.messages)), "completion": _turn(completion), "label": good}


def _turn(candidate: Candidate) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": candidate.text}]


def _entry(line: Mapping[str, Any], turns: tuple[Message, ...]) -> Entry:
    split = get(line, "split", str, None)
    prompt = Prompt(turns, split or "train", get(line, "category", str, ""))
    return Entry(prompt, prompt.split if split else None)


def messages(o: Mapping[str, Any], key: str) -> tuple[Message, ...]:
    """A conversation: a text is what the user says. Raises UserError."""
    if isinstance(o[key], str):
        return (Message("user", o[key]),)
    if not isinstance(o[key], list):
        raise UserError(f"{key!r} must be text or a list of messages, not {o[key]!r}")
    turns = objects(o, key)
    if not turns:
        raise UserError(f"{key!r} holds no messages")
    for turn in turns:
        require_known(turn, {"role", "content"}, "a message")
    return tuple(Message(get(turn, "role", str), get(turn, "content", str)) for turn in turns)
