"""Rules for giving slates to people: who may see what, in which order, and what an answer means.

Candidates are shown in a random order, which the lease records. A person ranks *places* (left, right, …); a
label ranks *candidates*; the recorded order turns one into the other. Nothing here reads or writes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal

from labeling.records import MAX_CANDIDATES

Mode = Literal["pairs", "rankings"]
SIZES: dict[Mode, tuple[int, int]] = {"pairs": (2, 2), "rankings": (3, MAX_CANDIDATES)}
LEASE_SECONDS = 15 * 60.0  # long enough to read nine long answers, short enough that a closed tab blocks nobody


def human_id(name: str) -> str:
    """The annotator id of a person: its own namespace, so that nobody can label as a judge or an oracle."""
    return f"human:{name}"


def display_order(k: int, random: Random) -> tuple[int, ...]:
    """Draw a uniformly random order of k candidates: order[place] is the candidate shown there."""
    return tuple(random.sample(range(k), k))


def ranks_of_candidates(ranks_of_places: Sequence[int], order: Sequence[int]) -> tuple[int, ...]:
    """Turn ranks given to places into ranks of candidates. Raises ValueError when the lengths differ."""
    rank_of = dict(zip(order, ranks_of_places, strict=True))
    return tuple(rank_of[candidate] for candidate in range(len(order)))
