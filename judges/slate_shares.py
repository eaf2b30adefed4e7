"""Shares of cases that hang together by slate, such as the pairs of one ranking, with intervals over the slates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.intervals import Interval, wilson


@dataclass(frozen=True)
class SlateShare:
    """`part` of `whole` cases, which tell as much as `effective` cases that are independent of each other."""

    part: int
    whole: int
    effective: float

    @property
    def interval(self) -> Interval:
        """The share with its Wilson interval for so many independent cases; NaN without any case."""
        if not self.whole:
            return Interval(math.nan, math.nan, math.nan)
        return wilson(self.part / self.whole, self.effective)


def slate_share(by_slate: Sequence[tuple[int, int]]) -> SlateShare:
    """The share over slates, each with its part and its whole (m_s ≥ 1).

    With r_s of m_s cases on slate s and p = Σ r / Σ m, the variance of p over S slates is

        V = S / (S − 1) · Σ_s (r_s − p·m_s)² / (Σ m)²,    effective = p·(1 − p) / V

    (Kish 1965; in Wilson's interval as Korn & Graubard 1998 have it in theirs), at most Σ m. Where p is 0 or 1 nothing
    tells how the cases hang together: each slate counts as one.
    """
    if not by_slate:
        return SlateShare(0, 0, 0.0)
    r, m = np.array(by_slate, dtype=float).T
    slates, part, whole = len(m), r.sum(), m.sum()
    p = part / whole
    if slates == 1 or p in (0.0, 1.0):
        return SlateShare(int(part), int(whole), float(slates))
    variance = slates / (slates - 1) * ((r - p * m) ** 2).sum() / whole**2
    effective = whole if variance == 0 else min(whole, p * (1 - p) / variance)
    return SlateShare(int(part), int(whole), float(effective))
