"""Majority vote (TTRL, arXiv 2504.16084): the answer that most samples give stands in for the truth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

Extractor = Callable[[str], str | None]
# A minus counts where it does not join two things (3-4, x-4); commas where they group thousands (not 1,2,3).
NUMBER = re.compile(r"(?:(?<![\w)\]}])[-−])?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)")
CHOICE = re.compile(r"(?<![^\W_])([A-E])(?![^\W_])")


def last_number(text: str) -> str | None:
    """The last number, in one spelling and exactly: `1,250.0` and `1250` agree, and so do `−3` and `-3.00`."""
    found = NUMBER.findall(text)
    if not found:
        return None
    value = Decimal(found[-1].replace(",", "").replace("−", "-"))
    plain = format(value, "f") if value else "0"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}`, with balanced braces."""
    begin = text.rfind("\\boxed{")
    if begin < 0:
        return None
    depth, start = 0, begin + len("\\boxed{")
    for end in range(start - 1, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return "".join(text[start:end].split()) or None
    return None


def choice(text: str) -> str | None:
    """The last capital letter from A to E that stands alone, as in a test with choices."""
    found = CHOICE.findall(text)
    return found[-1] if found else None


def last_line(text: str) -> str | None:
    """The last line with something in it; case and spacing do not matter."""
    lines = [" ".join(line.casefold().split()) for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), None)


EXTRACTORS: Mapping[str, Extractor] = {f.__name__: f for f in (last_number, boxed, choice, last_line)}


def vote(answers: Sequence[str | None]) -> tuple[str | None, float]:
    """The most frequent answer (of equally frequent ones the first), and its share of all samples.

    A sample without an answer has no vote; (None, 0) if none has.
    """
    counts = Counter(a for a in answers if a is not None)
    if not counts:
        return None, 0.0
    winner, votes = counts.most_common(1)[0]  # in order of first appearance among equals
    return winner, votes / len(answers)
