"""The qualifying round: whether a new labeler agrees with the known answers before they are given anything else.

Nothing here reads or writes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from labeling.records import pairs


@dataclass(frozen=True)
class Qualifying:
    """Where somebody stands: `done` items of `of`; `agreed` is the share of pairs right, `least` the one wanted."""

    done: int
    of: int
    agreed: float
    least: float

    @property
    def over(self) -> bool:
        """Whether all items were answered."""
        return self.done >= self.of

    @property
    def failed(self) -> bool:
        """Whether this person gets no more slates."""
        return self.over and self.agreed < self.least


def agreement(answers: Iterable[tuple[Sequence[int] | None, Sequence[int]]]) -> float:
    """The share of pairs that the given ranks order (or tie) as the known ranks do, over all (given, known).

    An answer that ranks nothing agrees with nothing. Without answers it is 0.
    """
    same = total = 0
    for given, known in answers:
        for i, j in pairs(len(known)):
            total += 1
            same += given is not None and _side(given, i, j) == _side(known, i, j)
    return same / total if total else 0.0


def _side(ranks: Sequence[int], i: int, j: int) -> int:
    return (ranks[j] > ranks[i]) - (ranks[j] < ranks[i])
