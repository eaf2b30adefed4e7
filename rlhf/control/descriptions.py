"""A clip in words and numbers, for judges that cannot see: what happened in a segment, and never what it was worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from labeling.segments import Segment
from rlhf.control.dimensions import KNOWN, Dimensions

LONGEST = 2000
MOMENTS = 5
SAMPLED = 12  # dimensions told with values over time; the rest has its summary only
LEGEND = "Each line: values at {n} even moments (or first … last) | lowest, highest, mean."


def describe(segment: Segment, seconds_per_step: float | None) -> str:
    """Length, end, derived facts, and a line for each observed number and action, in at most 2,000 characters.

    seconds_per_step: of the environment's own clock, if it has one; without it nothing is told in seconds or metres
    travelled. Dimensions of well-known environments have names and units, others are numbered from 1.
    """
    config = json.loads(segment.environment)
    name, steps = str(config["id"]), np.asarray(segment.steps, dtype=np.float64)
    width = _action_width(segment)
    seen, done = steps[:, : steps.shape[1] - width], steps[:, steps.shape[1] - width :]
    known = KNOWN.get(name.rpartition("/")[2].partition("-v")[0], Dimensions(()))
    fits = config["encoder"] == "none" and len(known.observations) == seen.shape[1]
    known = known if fits else Dimensions(())
    columns = list(zip(_names(known.observations, "observation", seen.shape[1]), seen.T, strict=True))
    chosen = segment.actions.ndim == 1 and width > 0
    if not chosen:
        columns += zip(_names(known.actions, "action", width), done.T, strict=True)
    lines = [
        _length(name, len(steps), seconds_per_step),
        _end(segment.ended, known.end),
        *(known.facts(steps, seconds_per_step) if fits else []),
        *([_choices(_names(known.choices, "action", width), done)] if chosen else []),
        LEGEND.format(n=min(MOMENTS, len(steps))),
        *(_line(title, values, i < SAMPLED) for i, (title, values) in enumerate(columns[:LONGEST])),
    ]
    return _fitting(lines, len(columns[LONGEST:]))


def _action_width(segment: Segment) -> int:
    """How many of the last columns of the steps are the action: its vector, or its choice as one-hot."""
    if segment.actions.ndim == 2:
        return int(segment.actions.shape[1])
    done = segment.actions[segment.start :]
    for n in range(int(done.max()) + 1, segment.steps.shape[1]):
        if np.array_equal(segment.steps[:, -n:], np.eye(n, dtype=np.float32)[done]):
            return n
    return 0  # choices that are not counted from 0: told as numbers that were observed


def _names(known: tuple[str, ...], kind: str, count: int) -> list[str]:
    return list(known) if len(known) == count else [f"{kind} {i + 1}" for i in range(count)]


def _length(name: str, steps: int, seconds: float | None) -> str:
    lasts = f" ({steps * seconds:.2f} s)" if seconds else ""
    return f"A clip of {name[:60]}: {steps} step{'s' if steps > 1 else ''}{lasts}."


def _end(ended: bool, meaning: str) -> str:
    if not ended:
        return "The episode did not terminate in it."
    return "The episode ended with its last step" + (f": {meaning}." if meaning else ".")


def _choices(names: list[str], done: np.ndarray) -> str:
    """`Actions: push left 40 %, push right 60 %.`: the share of the steps in which each was chosen."""
    shares = (f"{name} {100 * share:.0f} %" for name, share in zip(names, done.mean(0), strict=True))
    return f"Actions: {', '.join(shares)}."


def _line(title: str, values: np.ndarray, sampled: bool) -> str:
    moments = np.linspace(0, len(values) - 1, min(MOMENTS, len(values))).round().astype(int) if sampled else [0, -1]
    over_time = (" " if sampled else " … ").join(_number(values[i]) for i in moments)
    summary = ", ".join(map(_number, (values.min(), values.max(), values.mean())))
    return f"{title}: {over_time} | {summary}"


def _number(value: float) -> str:
    """Three significant digits, and no minus before a zero."""
    text = f"{value:.3g}"
    return "0" if float(text) == 0 else text


def _fitting(lines: Sequence[str], others: int) -> str:
    """As many lines as fit, and how many do not; `others` are those that nobody wrote, as they never could."""
    text = "\n".join(lines)
    if len(text) <= LONGEST and not others:
        return text
    note = "… and {} more."
    kept = sum(end <= LONGEST - len(note) - 3 for end in accumulate(len(line) + 1 for line in lines))
    return "\n".join([*lines[:kept], note.format(len(lines) - kept + others)])
