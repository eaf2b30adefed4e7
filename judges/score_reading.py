"""What a reply says about one candidate alone: its score on a scale, or a typed reason why there is none.

The last score in it counts. One that is not on the scale is a parse failure: it is never clipped.
"""

from __future__ import annotations

import re

from judges.verdict import ABSTAIN, Verdict, excerpt, read_statement

FLAGS = re.IGNORECASE | re.ASCII
SAID = r"[+-]?\d{1,6}(?:\.\d{1,6})?(?:\s*/\s*\d{1,6})?"
BRACKETED = re.compile(r"\[\[([^\[\]]{0,80})\]\](?!\s+if\b)")
JSON = re.compile(r"\"score\"\s*:\s*\"?([^\",}\s]{1,80})")
STATED = re.compile(
    rf"\b(?:score|rating|grade)(?: is)?[\s:*_\"'(]{{1,6}}({SAID}|ABSTAIN)(?=[\s*.,;)]*(?:\n|$))",
    FLAGS,
)
FIRST_LINE = re.compile(rf"[\s*_\"'.()]*({SAID}|ABSTAIN)[ \t*_\"'.()]*(?:\n|$)", FLAGS)
SCORE = re.compile(r"([+-]?\d{1,6}(?:\.\d{1,6})?)(?:\s*/\s*(\d{1,6}))?", re.ASCII)


def read_score(text: str, scale: tuple[int, int], finish_reason: str = "stop", refusal: str = "") -> Verdict:
    """Read the last score from a reply about one candidate; without one on the scale, say why as a typed outcome."""
    return read_statement(text, finish_reason, refusal, _last_score, lambda found: _read(found, scale))


def _last_score(text: str) -> re.Match[str] | None:
    """The last place where a score is stated, or else a first line that is nothing else; group 1 is what it says."""
    stated = [*BRACKETED.finditer(text), *JSON.finditer(text), *STATED.finditer(text)]
    return max(stated, key=lambda match: match.end(), default=FIRST_LINE.match(text))


def _read(found: re.Match[str], scale: tuple[int, int]) -> Verdict:
    said = found[1].strip()
    if said.upper() == ABSTAIN:
        return Verdict("abstain", reason="the judge abstained")
    number = SCORE.fullmatch(said)
    low, high = scale
    if number is None or not low <= float(number[1]) <= high or number[2] not in (None, str(high)):
        return Verdict("parse_failure", reason=f"the score {excerpt(said)} is not on the scale from {low} to {high}")
    whole = number[1].isdecimal()
    at = found.start(1) + found[1].index(number[1]) if whole else None
    return Verdict("label", letter_at=at, score=float(number[1]))
