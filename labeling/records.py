"""The words of the product as data: prompt, candidate, slate, annotator, label, preference.

Every package speaks in these frozen values; the store writes them down and reads them back. A record is
checked when it is made, so whatever holds one may trust it. Identifiers are hashes of content: what arrives
twice is the same thing.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, get_args

Split = Literal["train", "heldout"]
Role = Literal["system", "user", "assistant"]
AnnotatorKind = Literal["human", "judge", "oracle"]
Outcome = Literal[
    "ranked",  # a weak order of the candidates: the only outcome that becomes preferences
    "both_bad",  # no candidate deserves to be preferred
    "skip",  # the person would rather not say
    "abstain",  # the judge would rather not say
    "parse_failure",  # the reply held no verdict
    "refused",  # the judge's model declined the task
    "truncated",  # the reply ended before a verdict
    "injected",  # the verdict favours a candidate that tries to give it
    "endpoint_failure",  # no usable reply came
    "undone",  # takes back the label that it supersedes
]
# What a judge's call came to. Only the first two become labels that train.
CallOutcome = Literal[
    "label",  # a verdict that prefers
    "tie",  # a verdict that finds all candidates equal
    "abstain",
    "parse_failure",
    "refused",
    "truncated",
    "injected",
    "endpoint_failure",
    "unsettled",  # sent, and nothing is known of a reply: it may have been billed
]
# Why a label was asked for: to teach, to see whether people agree with themselves, or to decide where they differ.
Purpose = Literal["teach", "repeat", "adjudicate"]
# Why people are asked about a slate that a judge answered: it was drawn at random, to measure the judge by; or the
# judge contradicts itself between orders, hardly prefers either, or is contradicted by the reward model.
RequestReason = Literal["audit", "orders", "margin", "reward_model"]
MAX_CANDIDATES = 9
MAX_TEXT = 10_000  # characters of a rationale


class UserError(Exception):
    """A mistake that the user can mend: its message is one line that names the culprit and the cure."""


class InvalidRecord(UserError):
    """A record that breaks its own rules (an empty prompt, ranks of the wrong length, …)."""


def printable(text: str) -> str:
    """The text on one line, without what a terminal obeys instead of showing it."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def content_id(kind: str, *parts: Any) -> str:
    """Return `kind_` + 16 hex digits of the SHA-256 of the parts in canonical JSON."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"{kind}_{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def is_clip_id(text: str) -> bool:
    """Whether `text` can name a clip: nothing else ever becomes part of a path."""
    return re.fullmatch(r"clip_[0-9a-f]{16}", text) is not None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidRecord(message)


def _require_choice(name: str, value: str, choices: Any) -> None:
    allowed = get_args(choices)
    _require(value in allowed, f"{name} {value!r} is not one of {', '.join(allowed)}")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        _require_choice("role", self.role, Role)
        _require(isinstance(self.content, str), f"the content of a message must be text, not {self.content!r}")


@dataclass(frozen=True)
class Prompt:
    """What is answered: a conversation that ends before the next assistant turn."""

    messages: tuple[Message, ...]
    split: Split = "train"
    category: str = ""

    def __post_init__(self) -> None:
        _require_choice("split", self.split, Split)
        _require(len(self.messages) > 0, "a prompt needs at least one message")
        last = self.messages[-1]
        _require(last.role != "assistant", "a prompt must end before the assistant's turn")
        _require(last.content.strip() != "", "the prompt is empty")

    @property
    def id(self) -> str:
        """Hash of the conversation."""
        return content_id("prompt", [[m.role, m.content] for m in self.messages])


@dataclass(frozen=True)
class Candidate:
    """Something that can be preferred: a response, or a clip of an agent.

    text: the response; of a clip, its description in words and numbers, for judges that cannot see. finished: false
    when the length limit cut a response off. clip: the id of the segment that a clip shows (see `labeling.segments`).
    """

    text: str
    policy: str = ""
    finished: bool = True
    clip: str = ""

    def __post_init__(self) -> None:
        _require(isinstance(self.text, str), f"a candidate's text must be text, not {self.text!r}")
        _require(not self.clip or is_clip_id(self.clip), f"a clip is named clip_ and 16 hex digits, not {self.clip!r}")


@dataclass(frozen=True)
class Lineage:
    """Where a slate comes from: enough to say later what was asked, by which chance, and what was expected."""

    run: str = ""
    iteration: int = 0
    selector: str = "import"
    propensity: float = 1.0
    reward_model: str = ""
    predicted: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _require(0 < self.propensity <= 1, f"a propensity lies in (0, 1], not {self.propensity}")
        _require(all(map(math.isfinite, self.predicted)), "predicted scores must be finite")


@dataclass(frozen=True)
class Slate:
    """K >= 2 candidates of one prompt, compared together. Positions 0..K-1 are the candidates' names in labels."""

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    lineage: Lineage = field(default_factory=Lineage)

    def __post_init__(self) -> None:
        k = len(self.candidates)
        _require(2 <= k <= MAX_CANDIDATES, f"a slate holds 2 to {MAX_CANDIDATES} candidates, not {k}")
        contents = {(c.text, c.finished, c.clip) for c in self.candidates}
        _require(len(contents) == k, "the candidates of a slate must differ")

    @property
    def id(self) -> str:
        """Hash of prompt, candidates, run and iteration."""
        shown = [[c.text, c.policy, c.finished, *([c.clip] if c.clip else [])] for c in self.candidates]
        return content_id("slate", self.prompt.id, shown, self.lineage.run, self.lineage.iteration)


@dataclass(frozen=True)
class Annotator:
    """Who labels: a human, a judge or an oracle, all alike.

    weight: factor on its preferences in the loss, >= 0.
    flip_rate: ε, the share of its answers taken to be uniform noise: P' = (1-ε)P + ε/2 (arXiv 1706.03741).
    """

    id: str
    kind: AnnotatorKind
    weight: float = 1.0
    flip_rate: float = 0.0

    def __post_init__(self) -> None:
        _require(self.id.strip() != "", "an annotator needs a name")
        _require_choice("annotator kind", self.kind, AnnotatorKind)
        _require(math.isfinite(self.weight) and self.weight >= 0, f"a weight is >= 0, not {self.weight}")
        _require(0 <= self.flip_rate < 1, f"a flip rate lies in [0, 1), not {self.flip_rate}")


@dataclass(frozen=True)
class Label:
    """One annotator's answer about one slate.

    client_key: chosen by whoever answers, once per answer; the same key again is the same label.
    ranks: (K,) rank of each candidate, 1 = best, equal = tied; only for the outcome "ranked".
    probability: P(candidate 0 is better), for pairs whose annotator gives one.
    strength: 0 (about equal) to 1 (significantly better), for pairs whose annotator was asked.
    unranked: candidates that the annotator left out of the order: worse than the ranked ones, and among themselves
    nothing is known. They share the last rank.
    flags: what is wrong with candidates or slate, in a word each ("unsafe", "broken"). criteria: choices for single
    criteria, (name, "first" | "second" | "tie") of a pair by candidate. purpose: why it was asked for.
    order: (K,) order[k] is the candidate that was shown in place k.
    supersedes: client_key of the label that this one replaces; labels are never edited or deleted.
    """

    slate_id: str
    annotator: str
    outcome: Outcome
    client_key: str
    ranks: tuple[int, ...] | None = None
    probability: float | None = None
    strength: float | None = None
    order: tuple[int, ...] = ()
    seconds: float | None = None
    reason: str = ""
    supersedes: str | None = None
    unranked: tuple[int, ...] = ()
    flags: tuple[str, ...] = ()
    criteria: tuple[tuple[str, str], ...] = ()
    purpose: Purpose = "teach"

    def __post_init__(self) -> None:
        _require_choice("outcome", self.outcome, Outcome)
        _require_choice("purpose", self.purpose, Purpose)
        _require(0 < len(self.client_key) <= 200, "a label needs a client_key of 1 to 200 characters")
        ranked = self.outcome == "ranked"
        _require(ranked == (self.ranks is not None), "a label has ranks exactly when its outcome is 'ranked'")
        if self.ranks is not None:
            k = len(self.ranks)
            _require(2 <= k <= MAX_CANDIDATES, f"ranks are for 2 to {MAX_CANDIDATES} candidates, not {k}")
            whole = all(type(r) is int and 1 <= r <= k for r in self.ranks)
            _require(whole, f"ranks are whole numbers from 1 (best) to {k}, not {list(self.ranks)}")
        for name in ("probability", "strength"):
            value = getattr(self, name)
            if value is not None:
                _require(ranked and len(self.ranks or ()) == 2, f"a {name} belongs to a ranked pair")
                _require(0 <= value <= 1, f"a {name} lies in [0, 1], not {value}")
        if self.seconds is not None:
            _require(0 <= self.seconds < math.inf, f"seconds are >= 0 and finite, not {self.seconds}")
        if self.unranked:
            ranks = self.ranks or ()
            inside = len(set(self.unranked)) == len(self.unranked) and all(0 <= n < len(ranks) for n in self.unranked)
            _require(inside, f"unranked names candidates of a ranked slate, not {list(self.unranked)}")
            _require(len(self.unranked) < len(ranks), "a label that ranks nothing is no ranking")
            worst = {ranks[n] for n in self.unranked}
            others = [r for n, r in enumerate(ranks) if n not in self.unranked]
            _require(len(worst) == 1 and max(others) < min(worst), "unranked candidates share the last rank")
        words = all(re.fullmatch(r"[\w-]{1,40}", f) for f in (*self.flags, *(name for name, _ in self.criteria)))
        _require(words, "flags and criteria are single words of at most 40 letters")
        choices = all(choice in ("first", "second", "tie") for _, choice in self.criteria)
        _require(choices, 'the choice for a criterion is "first", "second" or "tie"')
        _require(len(self.reason) <= MAX_TEXT, f"a reason has at most {MAX_TEXT} characters")
        if self.order:
            permutation = sorted(self.order) == list(range(len(self.order)))
            _require(permutation, f"order must be a permutation of the candidates, not {list(self.order)}")

    @property
    def decides(self) -> bool:
        """Whether it settles what people contradict each other on. Whoever was asked to and skips leaves it open."""
        return self.purpose == "adjudicate" and self.outcome != "skip"


@dataclass(frozen=True)
class JudgeCall:
    """One request to a judge's model, durable before any label made from it.

    key: hash of all that was asked (slate, order, rubric, words, model, sampling, sample). attempt: 0, 1, … for the
    same key; an attempt is never overwritten, so each that was billed stays on the books. reply: what came back, as
    JSON, or why nothing did. sent_as: the idempotency key of a request that no answer is known of; empty once there
    was one. cost: in dollars. seconds: of the request. While a call is unsettled, tokens and cost are the most that it
    can come to.
    """

    key: str
    annotator: str
    slate_id: str
    outcome: CallOutcome
    reply: str = ""
    attempt: int = 0
    sent_as: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        _require_choice("outcome", self.outcome, CallOutcome)


@dataclass(frozen=True)
class HumanRequest:
    """People are to answer a slate that a judge answered; they do not learn that it did.

    place: where it stands in the queue; lower comes first, and all of these before what nobody asked for.
    propensity: the chance by which it was drawn, for the reason "audit"; None for what was picked for what it is, which
    no estimate may take for a sample.
    """

    slate_id: str
    judge: str
    reason: RequestReason
    place: float
    propensity: float | None = None

    def __post_init__(self) -> None:
        _require_choice("reason", self.reason, RequestReason)
        _require(math.isfinite(self.place), f"a place is finite, not {self.place}")
        drawn = self.propensity is not None and 0 < self.propensity <= 1
        _require(drawn == (self.reason == "audit"), "a propensity in (0, 1] belongs to what is drawn for an audit")


@dataclass(frozen=True)
class Spending:
    """What judges have spent in a project: settled calls as they were billed, unsettled ones at their most."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Tokens in both directions."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Spending) -> Spending:
        tokens = self.prompt_tokens + other.prompt_tokens, self.completion_tokens + other.completion_tokens
        return Spending(self.calls + other.calls, *tokens, self.cost + other.cost)


@dataclass(frozen=True)
class UsualCall:
    """The mean of so many answered calls of a judge: tokens of question and reply, and seconds."""

    calls: int
    prompt_tokens: float
    completion_tokens: float
    seconds: float


@dataclass(frozen=True)
class Preference:
    """Candidate `i` of a slate against candidate `j`: `p` = P(i better), 0.5 = tie.

    margin: the lead that the loss asks of i over j, signed towards the preferred side.
    weight: factor on this pair in the loss. flip_rate: the ε of its annotator.
    """

    slate_id: str
    i: int
    j: int
    p: float
    margin: float = 0.0
    weight: float = 1.0
    flip_rate: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.i < self.j, "a preference names two candidates with i < j")
        _require(0 <= self.p <= 1, f"p lies in [0, 1], not {self.p}")


@dataclass(frozen=True)
class LabeledSlate:
    """A slate with the labels that stand and the preferences that they expand to."""

    slate: Slate
    labels: tuple[Label, ...]
    preferences: tuple[Preference, ...]


def pairs(k: int) -> list[tuple[int, int]]:
    """All C(k, 2) pairs i < j, in lexicographic order: the pair convention everywhere."""
    return list(combinations(range(k), 2))
