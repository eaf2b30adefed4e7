"""Where the steps of a response end: in its text, and among its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

Splitter = Callable[[str], list[int]]


def _ends(pattern: re.Pattern[str], text: str) -> list[int]:
    """Offsets behind each separator that ends a step with something in it, and behind the last step."""
    ends: list[int] = []
    for end in [*(m.end() for m in pattern.finditer(text)), len(text)]:
        begin = ends[-1] if ends else 0
        if text[begin:end].strip():
            ends.append(end)
        elif ends:
            ends[-1] = end  # blank space belongs to the step before it
    return ends


SPLITTERS: Mapping[str, Splitter] = {
    "lines": partial(_ends, re.compile(r"\n+")),
    "paragraphs": partial(_ends, re.compile(r"\n\s*\n")),
    "sentences": partial(_ends, re.compile(r"[.!?…]+[\"'”’)\]]*(?:\s+|$)|[。！？]+[”’」』）)]*\s*")),
}


def token_ends(ids: Sequence[int], decode: Callable[[list[int]], str], split: Splitter) -> list[int]:
    """The index of the last token of each step: the first token with which the step's text is complete.

    The last token of the response (its end-of-sequence token, if it has one) always ends the last step. Steps that one
    token ends together count as one.
    """
    ends: list[int] = []
    text = decode(list(ids))
    for offset in split(text)[:-1]:
        low, high = 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            # Compared, not counted: a character cut off in the middle of its bytes is decoded to one, too.
            if decode(list(ids[:middle])).startswith(text[:offset]):
                high = middle
            else:
                low = middle + 1
        ends.append(low - 1)
    return sorted({*(e for e in ends if e < len(ids) - 1), len(ids) - 1})
