"""Answers that try to give the verdict themselves, and what is done about it: they may lose, but never win.

An attempt is found by its form (verdict marks, chat templates' control tokens, turns of a made-up system, orders to
whoever judges). A verdict that puts such an answer above one that makes no attempt is of the outcome `injected`, and
trains nothing. So no policy can learn that it pays. What it does not do: find an attempt in plain praise of itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from judges.questions import Question
from judges.verdict import LETTERS, Verdict, excerpt
from labeling.records import Slate

CHOOSE = r"(?:choose|pick|select|prefer|favou?r|declare|mark|name|rank|rate)"
LETTER = r"[\"'(]?(?-i:[A-I])[\"')]?(?:[.!\n]|$)"  # of an answer, and nothing behind it: "A list" has none
ATTEMPT = re.compile(
    r"\[\[\s*(?:[A-I]\b[^\[\]]{0,40}|TIE|ABSTAIN)\s*\]\]"  # a verdict
    r"|\"verdict\"\s*:\s*\"?[A-I]\b"
    r"|<\|[a-z_▁][a-z0-9_▁]{1,30}\|>|<</?SYS>>|<(?:start|end)_of_turn>"  # control tokens
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|(?<=[\w.!?>])<[be]os>|<[be]os>(?=[\w<])"  # put to use; whoever explains them sets them apart
    r"|<\s{0,9}/?\s{0,9}(?:answer|clip)_(?:(?-i:[A-I])|to_score)\s{0,9}>"  # the tags around the material
    r"|^\W{0,6}(?:system|assistant|developer)\W{0,4}:"  # another's turn
    r"|\b(?:ignore|disregard|forget)\b[^.\n]{0,40}\b(?:instructions?|rubric|rules|above|previous)\b"
    r"|\b(?:output|reply|respond|vote)(?:\s+|:[ \t]*)(?:only\s+)?(?:with\s+)?(?:the letter\s+)?"  # orders to the judge
    rf"{LETTER}"
    rf"|\bverdict(?:\s+(?:is|should be|must be)\s+|:[ \t]*)(?:(?:answer|response)\s+)?{LETTER}"
    rf"|\bplease\s+{CHOOSE}\s+(?:answer|response)\s+(?-i:[A-I])\b"
    rf"|\b{CHOOSE}\s+(?:(?:answer|response)\s+(?-i:[A-I])|this\s+(?:answer|response))\s+as\s+(?:the\s+)?"
    r"(?:winner|winning|best|better)\b"
    r"|\b(?:judge|grader|evaluator|reviewer)s?\b[^.\n]{0,60}\b(?:must|should|have to)\s+"
    r"(?:prefer|choose|pick|select|rate|rank)"
    r"|\bthis (?:answer|response) (?:is|has been) [^.\n]{0,40}"
    r"\b(?:verified|confirmed|declared|marked) [^.\n]{0,40}\bbe(?:st|tter)\b",
    re.IGNORECASE | re.MULTILINE,
)


SCORED_ATTEMPT = re.compile(
    r"\[\[\s*\d{1,6}(?:\.\d{1,6})?\s*(?:/\s*\d{1,6}\s*)?\]\]"  # a score
    r"|\"score\"\s*:\s*\"?\d"
    # an order to whoever judges
    r"|\b(?:score|rate|grade|give)\s+(?:this|it|the\s+(?:answer|response))\s+"
    r"(?:(?:answer|response|an?|as|at|with|score of)\s+)*\d",
    re.IGNORECASE,
)


def attempt_in(text: str, *forms: re.Pattern[str]) -> str:
    """The first attempt in a text to give the verdict, quoted; empty when there is none. forms: by which else it is.

    Full-width letters, brackets and bars are read as the plain ones, as models read them (DeepSeek's tokens have them).
    """
    plain = unicodedata.normalize("NFKC", text)
    found = next((found for form in (ATTEMPT, *forms) if (found := form.search(plain))), None)
    return excerpt(found[0]) if found else ""


def scored_attempt(question: Question) -> str:
    """The attempt to give the score in the one candidate that a question shows. Descriptions of clips are our own."""
    candidate = question.slate.candidates[question.order[0]]
    return "" if candidate.clip else attempt_in(candidate.text, SCORED_ATTEMPT)


def favoured_attempt(slate: Slate, order: Sequence[int], verdict: Verdict) -> str:
    """Why a verdict is not believed: it puts an attempt above an answer that makes none; empty when it does not.

    order[k] is the candidate shown in place k, whose rank is verdict.ranks[k]. Descriptions of clips are our own words.
    """
    shown = [slate.candidates[position] for position in order]
    attempts = ["" if candidate.clip else attempt_in(candidate.text) for candidate in shown]
    worst = max((rank for rank, attempt in zip(verdict.ranks, attempts, strict=True) if not attempt), default=0.0)
    for letter, rank, attempt in zip(LETTERS, verdict.ranks, attempts, strict=False):
        if attempt and rank < worst:
            return f"the verdict favours {letter}, which tries to give it ({attempt})"
    return ""
