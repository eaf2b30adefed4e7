"""What a judge's reply says: a weak order of the shown candidates, or a typed reason why there is none.

A reply is hostile text. The last verdict in it counts, and one that cannot be read is a parse failure: never a
tie, never a default side. What a model thinks before it replies is no verdict, and neither is the beginning of a reply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from labeling.records import CallOutcome

LETTERS = "ABCDEFGHI"
# What is an answer of its kind; anything else is a failure, and asked again on the next run.
VERDICTS: frozenset[str] = frozenset({"label", "tie"})
FINAL_CALLS: frozenset[str] = VERDICTS | {"abstain", "injected"}
FINAL_LABELS: frozenset[str] = frozenset({"ranked", "abstain", "injected"})
TIE, ABSTAIN = "TIE", "ABSTAIN"
EXCERPT = 100
THINKS = "think|thinking|reasoning|thought"  # names of the marks between which models think
THOUGHT = re.compile(rf"<(?:{THINKS})>", re.IGNORECASE)
THOUGHT_END = re.compile(rf"</(?:{THINKS})>", re.IGNORECASE)
# What a reply was asked to be, as a whole. One that the limit on tokens cut off counts only in this form: behind a
# verdict among other words, or a letter alone, may have stood what takes it back.
COMPLETE = re.compile(r"\[\[[^\[\]]{1,80}\]\]|\{[^{}]{1,200}\}")

BRACKETED = re.compile(r"\[\[([^\[\]]{0,80})\]\](?!\s+if\b)")  # "[[A]] if …" only repeats the question
JSON = re.compile(r"\"verdict\"\s*:\s*\"([^\"\\]{0,80})\"")
STATED = re.compile(
    r"\b(?:verdict|winner|final answer|better (?:answer|response|clip|one)|better is|ranking)(?: is)?[\s:*_\"'(]{1,6}"
    r"((?:(?:answer|response|clip) )?(?:(?-i:[A-I](?:\s*[>=]\s*[A-I])*)|TIE|ABSTAIN)(?=[\s*.,;)]*(?:\n|$)))",
    re.IGNORECASE,
)
FIRST_LINE = re.compile(
    r"[\s*_\"'.()]*((?:(?:answer|response|clip) )?(?:[A-I](?:\s*[>=]\s*[A-I])*|TIE|ABSTAIN))[ \t*_\"'.()]*(?:\n|$)",
    re.IGNORECASE,
)
NAMED = re.compile(r"(?:answer|response|clip) ", re.IGNORECASE)
RANKING = re.compile(r"[A-I](?:[>=][A-I])*")
REFUSAL = re.compile(
    r"\W*(?:(?:i['’]?m|i am) (?:very )?sorry|sorry|i (?:can['’]?t|cannot|can not|won['’]?t|will not)"
    r"|(?:i['’]?m|i am) (?:unable|not able)|as an ai)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Verdict:
    """What one reply says. ranks: (K,) of the shown places, 1 = best, ties share the mean; only of a label or tie.

    letter_at: where in the reply the verdict's first letter or digit stands, to look up its token's log-probabilities.
    score: of a single candidate (see `judges.scores`), in place of ranks.
    """

    outcome: CallOutcome
    ranks: tuple[float, ...] = ()
    reason: str = ""
    letter_at: int | None = None
    score: float | None = None


def read_verdict(text: str, k: int, finish_reason: str = "stop", refusal: str = "") -> Verdict:
    """Read the last verdict about k shown candidates from a reply; without one, say why as a typed outcome."""
    return read_statement(text, finish_reason, refusal, _last_statement, lambda found: _read_statement(found, k))


def read_statement(
    text: str,
    finish_reason: str,
    refusal: str,
    find: Callable[[str], re.Match[str] | None],
    read: Callable[[re.Match[str]], Verdict],
) -> Verdict:
    """Find what a reply states behind its thoughts, and read it; without a statement, say why as a typed outcome."""
    if refusal or finish_reason == "content_filter":
        return Verdict("refused", reason=excerpt(refusal) if refusal else "stopped by the endpoint's content filter")
    thought = max((end.end() for end in THOUGHT_END.finditer(text)), default=0)
    text = " " * thought + text[thought:]
    cut_off = finish_reason == "length" and COMPLETE.fullmatch(text.strip()) is None
    if cut_off or THOUGHT.search(text):
        return Verdict("truncated", reason=f"no verdict before the end of the reply: {excerpt(text, end=True)}")
    found = find(text)
    if found is not None:
        return read(found)
    if REFUSAL.match(text):
        return Verdict("refused", reason=excerpt(text))
    return Verdict("parse_failure", reason=f"no verdict in the reply: {excerpt(text)}" if text.strip() else "no text")


def stated_json(text: str) -> str | None:
    """The verdict that a reply states as JSON, None when it is anything else."""
    try:
        said = json.loads(text)
    except ValueError:
        return None
    verdict = said.get("verdict") if isinstance(said, dict) else None
    return verdict if isinstance(verdict, str) else None


def _last_statement(text: str) -> re.Match[str] | None:
    """The last place where a verdict is stated, or else a first line that is nothing else; group 1 is what it says."""
    stated = [*BRACKETED.finditer(text), *JSON.finditer(text), *STATED.finditer(text)]
    return max(stated, key=lambda match: match.end(), default=FIRST_LINE.match(text))


def _read_statement(found: re.Match[str], k: int) -> Verdict:
    statement = "".join(NAMED.sub("", found[1]).split()).upper()
    if statement == ABSTAIN:
        return Verdict("abstain", reason="the judge abstained")
    if statement == TIE and k == 2:
        return Verdict("tie", (1.5, 1.5), letter_at=found.start(1) + found[1].upper().index(TIE))
    if k == 2 and statement in ("A", "B"):
        ranks = (1.0, 2.0) if statement == "A" else (2.0, 1.0)
        return Verdict("label", ranks, letter_at=found.start(1) + found[1].upper().rindex(statement))
    if RANKING.fullmatch(statement) is None or sorted(re.findall("[A-I]", statement)) != list(LETTERS[:k]):
        wanted = "A, B or a tie" if k == 2 else f"each of {LETTERS[0]} to {LETTERS[k - 1]} once"
        return Verdict("parse_failure", reason=f"the verdict {excerpt(found[1])} does not name {wanted}")
    order = _ranks(statement.split(">"), k)
    return Verdict("label" if len(set(order)) > 1 else "tie", order)


def _ranks(groups: list[str], k: int) -> tuple[float, ...]:
    """Ranks of the places 0..k-1 from groups like ["B", "A=C"], best first; a tied group shares its mean rank."""
    ranks, above = [0.0] * k, 0
    for group in groups:
        members = group.split("=")
        for letter in members:
            ranks[LETTERS.index(letter)] = above + (len(members) + 1) / 2
        above += len(members)
    return tuple(ranks)


def excerpt(text: str, end: bool = False) -> str:
    """The start (or end) of a hostile text, quoted, on one line of printable characters."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    if len(line) > EXCERPT:
        line = f"…{line[-EXCERPT:]}" if end else f"{line[:EXCERPT]}…"
    return f"“{line}”"
