"""What the ledger keeps of a model's reply: its words, its tokens' probabilities, and what it comes to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from judges.endpoint import Completion
from judges.injection import favoured_attempt, scored_attempt
from judges.questions import Question
from judges.score_reading import read_score
from judges.verdict import FINAL_CALLS, TIE, VERDICTS, Verdict, read_verdict
from labeling.records import CallOutcome, Slate, content_id


@dataclass(frozen=True)
class Reply:
    """What the ledger keeps of a completion: enough to read the verdict again.

    order: as it was shown. chances: probability of the verdict's first token and of its rivals A, B and TIE, or of each
    score; None when the endpoint gave none. id, model: what the endpoint called the reply, and the model that gave it.
    injected: why its verdict is not believed, if it is not. scale: that of a score of one candidate alone.
    candidate: which one (see `named`), in whatever slate. attempt: what it says to get its score.
    """

    order: tuple[int, ...]
    text: str
    finish_reason: str = "stop"
    refusal: str = ""
    chances: Mapping[str, float] | None = None
    id: str = ""
    model: str = ""
    injected: str = ""
    scale: tuple[int, int] | None = None
    candidate: str = ""
    attempt: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the reply comes to."""
        return Verdict("injected", reason=self.injected) if self.injected else self.stated

    @property
    def stated(self) -> Verdict:
        """What the reply says about the places shown, believed or not."""
        if self.scale:
            return read_score(self.text, self.scale, self.finish_reason, self.refusal)
        return read_verdict(self.text, len(self.order), self.finish_reason, self.refusal)

    @property
    def candidate_ranks(self) -> dict[int, float]:
        """The ranks that it states, by the positions of the candidates that it is about; empty without a verdict."""
        ranks = self.stated.ranks
        return dict(zip(self.order, ranks, strict=True)) if ranks else {}

    @property
    def score(self) -> float | None:
        """The score that it gives: by its chances the expected one, Σ s·p(s) / Σ p(s) (G-Eval, arXiv 2303.16634)."""
        if self.stated.score is None or not self.chances:
            return self.stated.score
        return sum(int(s) * p for s, p in self.chances.items()) / sum(self.chances.values())


def kept(replies: Sequence[Reply]) -> str:
    """All replies of one call as one line of JSON: an object, or a list of several."""
    data = [asdict(reply) for reply in replies]
    return json.dumps(data if len(data) > 1 else data[0], ensure_ascii=False)


def replies_in(line: str) -> list[Reply]:
    """Read back what `kept` wrote."""
    data = json.loads(line)
    return [
        Reply(**one | {"order": tuple(one["order"]), "scale": tuple(one["scale"]) if one.get("scale") else None})
        for one in (data if isinstance(data, list) else [data])
    ]


def call_outcome(replies: Sequence[Reply]) -> CallOutcome:
    """What a call came to: where a reply holds no verdict that; one that is asked again goes before the others."""
    outcomes = [reply.verdict.outcome for reply in replies]
    return min(outcomes, key=lambda outcome: (outcome in FINAL_CALLS, outcome in VERDICTS))


def reply_of(question: Question, completion: Completion) -> Reply:
    """Keep of a completion what the ledger needs; and whether its verdict favours an attempt to give it."""
    finish = completion.finish_reason or "stop"
    told = {"id": completion.id, "model": completion.model, "scale": question.scale}
    reply = Reply(question.order, completion.text, finish, completion.refusal, **told)  # type: ignore[arg-type]
    stated = reply.stated
    found = None if stated.letter_at is None else alternatives_at(completion, stated.letter_at)
    if question.scale is not None:
        chances = score_chances(*found, question.scale) if found else None
        return replace(scored(reply, question), chances=chances)
    injected = favoured_attempt(question.slate, question.order, stated) if stated.ranks else ""
    return replace(reply, chances=verdict_chances(*found) if found else None, injected=injected)


def named(slate: Slate, position: int) -> str:
    """A name of a candidate that it has in every slate of its prompt, unlike its position."""
    candidate = slate.candidates[position]
    return content_id("candidate", slate.prompt.id, candidate.text, candidate.finished, candidate.clip)


def scored(reply: Reply, question: Question) -> Reply:
    """The reply with what it is a score of."""
    return replace(reply, candidate=named(question.slate, question.order[0]), attempt=scored_attempt(question))


def alternatives_at(completion: Completion, at: int) -> tuple[str, Mapping[str, float]] | None:
    """The token in which a place of the text stands: its characters before it, and its alternatives' log-probabilities.

    None if that cannot be known.
    """
    if "".join(token for token, _ in completion.tokens) != completion.text:
        return None
    start, index = 0, 0
    while start + len(completion.tokens[index][0]) <= at:
        start += len(completion.tokens[index][0])
        index += 1
    token, alternatives = completion.tokens[index]
    return token[: at - start], alternatives


def continued(before: str, alternatives: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """What may stand in place of a verdict, with its probability: tokens that begin with the same characters."""
    for text, logprob in alternatives.items():
        rest = text[len(before) :].strip("]*. \n").upper()
        if text.startswith(before) and rest and math.isfinite(logprob) and logprob <= 1e-3:
            yield rest, math.exp(min(0.0, logprob))


def verdict_chances(before: str, alternatives: Mapping[str, float]) -> dict[str, float] | None:
    """Probabilities of A, B and TIE, None without any; tokens of one of them add up."""
    chances = {"A": 0.0, "B": 0.0, TIE: 0.0}
    for rest, p in continued(before, alternatives):
        name = rest if rest in ("A", "B") else TIE if TIE.startswith(rest) else None
        if name:
            chances[name] += p
    return chances if sum(chances.values()) > 0 else None


def score_chances(before: str, alternatives: Mapping[str, float], scale: tuple[int, int]) -> dict[str, float] | None:
    """Probabilities of the scores on the scale, None without any.

    None too where a token may be the beginning of several (a "1" of 1 and of 10): it is whole only if the model's
    tokens are known to hold more than one digit.
    """
    scores = [str(s) for s in range(scale[0], scale[1] + 1)]
    chances = dict.fromkeys(scores, 0.0)
    for rest, p in continued(before, alternatives):
        if rest in chances:
            chances[rest] += p
    named = [s for s in scores if chances[s] > 0]
    begins = any(other != s and other.startswith(s) for s in named for other in scores)
    return chances if named and (not begins or any(len(s) > 1 for s in named)) else None
