"""How far a judge can be trusted by its newest labels, while it runs.

What is on disk of a label's replies is read every few seconds, of so many labels at most, and what was seen of each is
kept for so many slates: a run of any length and speed pays the same little for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import isnan
from typing import Protocol

from judges.calibration import Books, Calibration, Observation, observe, replies_by_slate, summed
from judges.slate_shares import SlateShare
from labeling.intervals import Interval
from labeling.records import Label, Slate

EVERY = 2.0  # seconds between two looks
MOST = 128  # labels that a look reads, the newest
KEPT = 1000  # slates that the figures are about, the newest


class LiveBooks(Books, Protocol):
    """Where judges' calls and slates are; the project's store is one."""

    def slates(self, *, ids: Sequence[str]) -> list[Slate]:
        """Slates by id."""


class Live:
    """The newest figures of one judge. words: what is known by now, empty before anything is."""

    def __init__(self, annotator: str, books: LiveBooks) -> None:
        self._annotator, self._books = annotator, books
        self._new: deque[Label] = deque(maxlen=MOST)
        self._seen: deque[Observation] = deque(maxlen=KEPT)
        self._looked: float | None = None
        self.words = ""

    def hear(self, label: Label, now: float) -> None:
        """A label is on disk; once in a while, look at the newest. now: in seconds."""
        self._new.append(label)
        self._looked = now if self._looked is None else self._looked
        if now - self._looked >= EVERY:
            self._looked = now
            self._look()

    def _look(self) -> None:
        labels = {label.slate_id: label for label in self._new}
        self._new.clear()
        replies = replies_by_slate(self._books.judge_calls(self._annotator, list(labels)))
        slates = self._books.slates(ids=list(labels))
        self._seen.extend(observe(slate, labels[slate.id], replies.get(slate.id, ())) for slate in slates)
        self.words = in_words(summed(self._seen), len(self._seen))


def in_words(c: Calibration, slates: int) -> str:
    """The figures that a run shows of so many slates, those that are known, with half their 95 % intervals."""
    first, length, lift = c.bias.place, c.bias.length, c.places.first
    parts = [
        *([] if isnan(first.mean) else [f"first place {_points(first)}", f"longer {_points(length)}"]),
        *([] if isnan(lift.mean) else [f"first place in rankings {_points(lift)}"]),
        *([f"both orders agree {_part(c.orders)}"] if c.orders.whole else []),
        *([f"all orders of a ranking agree {_part(c.rankings)}"] if c.rankings.whole else []),
        *([f"samples agree {_part(c.samples)}"] if c.samples.whole else []),
        *([f"the longer wins {_part(c.longer)}"] if c.longer.whole else []),
    ]
    return f"of the newest {slates:,} slates: {' · '.join(parts)}" if parts else ""


def _points(i: Interval) -> str:
    return f"{i.mean:+.0%} ± {max(i.high - i.mean, i.mean - i.low):.0%}"  # one side may be cut off at 100 %


def _part(share: SlateShare) -> str:
    return f"{share.part / share.whole:.0%}"
