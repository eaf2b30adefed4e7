"""What is known of a run: its events folded into one frozen value that figures, tables and the report read.

Folding is incremental (`fold(view, new_events)`), so a page that refreshes reads only what is new. An iteration
that is done again after a resume replaces what it said before.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from labeling.store import HumanLabel, RunEvent

STALE_SECONDS = 60
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Phase:
    """The last that was heard of one phase; `reported` is when (Unix seconds)."""

    name: str
    iteration: int
    running: bool
    done: int
    total: int
    seconds: float
    note: str
    reported: float


@dataclass(frozen=True)
class RunView:
    """One run as told by its events; figures are kept by iteration.

    about: data of the newest "run" event. phases: those of the current iteration, in the order of their start.
    """

    run: str
    seq: int = 0
    reported: float = 0.0
    about: Figures = field(default_factory=dict)
    iteration: int = 0
    iteration_started: float = 0.0
    phases: Mapping[str, Phase] = field(default_factory=dict)
    fits: Mapping[int, Figures] = field(default_factory=dict)
    updates: Mapping[int, Figures] = field(default_factory=dict)
    evaluations: Mapping[int, Figures] = field(default_factory=dict)
    iterations: Mapping[int, Figures] = field(default_factory=dict)
    end: Figures | None = None

    @property
    def current(self) -> Phase | None:
        """The phase under way."""
        return next((phase for phase in reversed(list(self.phases.values())) if phase.running), None)


@dataclass(frozen=True)
class Point:
    """A figure of one iteration with its interval."""

    x: int
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Change:
    """A figure at the first and at the newest iteration that have it."""

    first: Point
    last: Point

    @property
    def verdict(self) -> str:
        """`above` or `below` when the two 95 % intervals do not touch, else `unclear` (a conservative test)."""
        a, b = self.first, self.last
        if a.x == b.x or a.low is None or a.high is None or b.low is None or b.high is None:
            return "unclear"
        return "above" if b.low > a.high else "below" if b.high < a.low else "unclear"


def number(data: Figures | None, key: str) -> float | None:
    """The finite number `data[key]`; None where it is missing, null, NaN or no number at all."""
    value = (data or {}).get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def mapping(data: Figures | None, key: str) -> Figures:
    """The mapping `data[key]`, or an empty one."""
    value = (data or {}).get(key)
    return value if isinstance(value, Mapping) else {}


def fold(view: RunView, events: Iterable[RunEvent]) -> RunView:
    """Return `view` with later events of its run taken in, oldest first."""
    tables: dict[str, dict[int, Figures]] = {
        "fit": dict(view.fits),
        "update": dict(view.updates),
        "evaluation": dict(view.evaluations),
        "iteration": dict(view.iterations),
    }
    for event in events:
        view = replace(view, seq=event.seq, reported=event.created)
        if event.kind in tables:
            tables[event.kind][event.iteration] = event.data
        elif event.kind == "phase":
            view = _with_phase(view, event)
        elif event.kind == "run":
            view = replace(view, about=event.data, phases={}, end=None)
        elif event.kind == "end":
            view = replace(view, end=event.data)
    return replace(
        view,
        fits=tables["fit"],
        updates=tables["update"],
        evaluations=tables["evaluation"],
        iterations=tables["iteration"],
    )


def _with_phase(view: RunView, event: RunEvent) -> RunView:
    name, state = str(event.data.get("phase", "")), event.data.get("state")
    seconds = number(event.data, "seconds") or 0.0
    fresh = event.iteration != view.iteration or not view.phases
    phases = {} if fresh else {k: v for k, v in view.phases.items() if state != "start" or k != name}
    phases[name] = Phase(
        name=name,
        iteration=event.iteration,
        running=state != "end",
        done=int(number(event.data, "done") or 0),
        total=int(number(event.data, "total") or 0),
        seconds=seconds,
        note=str(event.data.get("note") or ""),
        reported=event.created,
    )
    return replace(
        view,
        phases=phases,
        iteration=event.iteration,
        iteration_started=event.created - seconds if fresh else view.iteration_started,
    )


def series(rows: Mapping[int, Figures], key: str, low: str = "", high: str = "") -> list[Point]:
    """The figure `key` of every iteration that has it, with the interval where `low` and `high` name one."""
    found = []
    for x in sorted(rows):
        y = number(rows[x], key)
        if y is not None:
            found.append(Point(x, y, number(rows[x], low), number(rows[x], high)))
    return found


def change(points: Sequence[Point]) -> Change | None:
    """First and newest of `points`, if there are any."""
    return Change(points[0], points[-1]) if points else None


def planned_iterations(view: RunView) -> int:
    """How many iterations the run was asked for, or as many as were seen."""
    return max(int(number(view.about, "iterations") or 0), view.iteration)


def seconds_left(view: RunView, now: float) -> float | None:
    """What remains of the run, at the mean pace of its last three iterations; None before the first is done."""
    recent = [number(view.iterations[i], "seconds") for i in sorted(view.iterations)][-3:]
    known = [s for s in recent if s]
    if not known or view.end is not None:
        return None
    spent = now - view.iteration_started if view.iteration not in view.iterations else 0.0
    open_iterations = planned_iterations(view) - len([i for i in view.iterations if i > 0])
    return max(0.0, open_iterations * sum(known) / len(known) - max(0.0, spent))


def is_stale(view: RunView, now: float) -> bool:
    """Whether a run that has not ended has been silent for too long."""
    return view.end is None and now - view.reported > STALE_SECONDS


# What people's labels have become


LabelState = Literal["learned", "waiting", "checking", "empty", "elsewhere"]


@dataclass(frozen=True)
class Tally:
    """Standing labels of people, by what became of them (see `state_of`), and how many entered with which fit."""

    given: int
    by_state: Mapping[LabelState, int]
    by_fit: Mapping[int, int]


def state_of(label: HumanLabel) -> LabelState:
    """What became of a person's label.

    learned: a fit of the run was given it. waiting: the next fit will be. checking: it is about a held-out prompt
    and so measures the reward model. empty: it holds no preference. elsewhere: its slate is not of this run.
    """
    if label.first_fit is not None:
        return "learned"
    if label.outcome != "ranked":
        return "empty"
    if not label.ours:
        return "elsewhere"
    return "checking" if label.split == "heldout" else "waiting"


def tally(labels: Sequence[HumanLabel]) -> Tally:
    """Count people's labels by what became of them."""
    fits = Counter(label.first_fit for label in labels if label.first_fit is not None)
    return Tally(len(labels), Counter(map(state_of, labels)), fits)
