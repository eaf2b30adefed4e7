"""Rules for giving slates to people: who may see what, in which order, and what an answer means.

Candidates are shown in a random order, which the lease records. A person ranks *places* (left, right, …); a
label ranks *candidates*; the recorded order turns one into the other. Checks (items with a known answer, mirrored
repeats) come by a draw that hangs on person and place alone. Nothing here reads or writes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Literal

from labeling.records import MAX_CANDIDATES, content_id
from labeling.settings import Settings

Mode = Literal["pairs", "rankings"]
# What is new to everybody, or what people contradict each other on.
Queue = Literal["new", "disputed"]
SIZES: dict[Mode, tuple[int, int]] = {"pairs": (2, 2), "rankings": (3, MAX_CANDIDATES)}
LEASE_SECONDS = 15 * 60.0  # long enough to read nine long answers, short enough that a closed tab blocks nobody
AHEAD_SECONDS = 3 * 60.0  # what waits behind it goes to others sooner, if its person is not heard of any more
MOST_AHEAD = 20
FAIR_SHARE = 5  # of so many slates that a person could be given, one is held ahead for them
REPEAT_AFTER = 10  # answers between a slate and its repeat, so that it is judged again and not remembered


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


def draw(annotator: str, place: int, what: str) -> float:
    """A number in [0, 1), uniform over annotators and places, and always the same for the same ones."""
    return int(content_id("draw", annotator, place, what)[-12:], 16) / 16**12


def kind_of_next(annotator: str, place: int, settings: Settings) -> Literal["gold", "repeat", "new"]:
    """What comes in this place of all that an annotator is given: P(gold) = gold_rate, P(repeat) = repeat_rate."""
    drawn = draw(annotator, place, "kind")
    if drawn < settings.gold_rate:
        return "gold"
    return "repeat" if drawn < settings.gold_rate + settings.repeat_rate else "new"
