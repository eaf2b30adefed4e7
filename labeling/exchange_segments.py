"""What a clip shows as a JSON object, and back: so that labels of clips teach and can be watched in another project.

A clip from outside is done again by whoever looks at it: its environment is made and its actions are taken. So an
object is read as if an enemy had written it; nothing in it may name code to load.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from labeling.json_values import get, require_known
from labeling.records import UserError
from labeling.segments import Segment

KEYS = {"environment", "seed", "start", "actions", "actions_type", "steps", "gold", "ended"}
ENVIRONMENT_KEYS = {"id", "options", "encoder", "max_steps"}
ACTION_TYPES = ("float32", "float64", "int64", "int32", "uint8")
LONGEST_ENVIRONMENT = 4000  # characters
MOST_STEPS = 100_000  # of an episode from its reset to the clip's end


def segment_object(segment: Segment) -> dict[str, Any]:
    """A segment as an object that `read_segment` reads back the same, to the bit."""
    return {
        "environment": json.loads(segment.environment),
        "seed": segment.seed,
        "start": segment.start,
        "actions": _shortest(segment.actions),
        "actions_type": str(segment.actions.dtype),
        "steps": _shortest(segment.steps),
        "gold": segment.gold,
        "ended": segment.ended,
    }


def read_segment(o: Mapping[str, Any], clip: object) -> Segment:
    """The segment that an object holds; `clip` is the id of the clip that is to show it.

    Raises UserError, one line, for anything else than that: keys, types, sizes, numbers that are not finite, an
    environment that names a module to load, or another segment than that of the clip.
    """
    require_known(o, KEYS, "a segment")
    kind = get(o, "actions_type", str)
    if kind not in ACTION_TYPES:
        raise UserError(f"'actions_type' must be one of {', '.join(ACTION_TYPES)}, not {kind!r}")
    actions, steps = _array(o, "actions", kind), _array(o, "steps", "float32")
    seed, start = get(o, "seed", int), get(o, "start", int)
    if min(seed, start) < 0:
        raise UserError("'seed' and 'start' of a segment are not negative")
    if steps.ndim != 2 or len(actions) != start + len(steps):
        raise UserError(
            f"a segment has a row of 'steps' for each action from its 'start' on: {start} + {len(steps)} rows are not "
            f"{len(actions)} actions"
        )
    environment = _environment(get(o, "environment", dict))
    segment = Segment(environment, seed, start, actions, steps, get(o, "gold", float), get(o, "ended", bool))
    if segment.id != clip:
        raise UserError(f"the segment is not what the clip {clip!r} shows, but {segment.id}: export it again")
    return segment


def _environment(o: Mapping[str, Any]) -> str:
    """The environment in the one form that ids are made of: JSON with sorted keys."""
    require_known(o, ENVIRONMENT_KEYS, "an environment")
    name, most = get(o, "id", str), get(o, "max_steps", int, None)
    if not re.fullmatch(r"[\w./-]{1,100}", name):
        raise UserError(
            f"the environment {name!r} is not imported: only a plain Gymnasium id is, as module:Name would run "
            "that module's code"
        )
    if most is not None and most < 1:
        raise UserError(f"'max_steps' must be at least 1, not {most}")
    encoder = get(o, "encoder", str)
    if encoder not in ("none", "flatten", "pixels"):
        raise UserError(f"'encoder' must be none, flatten or pixels, not {encoder!r}")
    options = get(o, "options", dict)
    text = json.dumps({"id": name, "options": options, "encoder": encoder, "max_steps": most}, sort_keys=True)
    if len(text) > LONGEST_ENVIRONMENT:
        raise UserError(f"an environment has at most {LONGEST_ENVIRONMENT} characters, not {len(text)}")
    return text


def _array(o: Mapping[str, Any], key: str, kind: str) -> np.ndarray:
    """A list of numbers, or of lists of numbers of one length, as an array whose numbers are finite in its type."""
    rows = get(o, key, list)
    if not 0 < len(rows) <= MOST_STEPS:
        raise UserError(f"{key!r} has 1 to {MOST_STEPS} rows, not {len(rows)}")
    flat = not isinstance(rows[0], list)
    lines = [rows] if flat else rows
    width = len(lines[0])
    if not width or not all(isinstance(line, list) and len(line) == width for line in lines):
        raise UserError(f"{key!r} must hold rows of one length, and not none")
    whole = np.dtype(kind).kind in "iu"
    if not all(type(x) is int or (type(x) is float and not whole) for line in lines for x in line):
        raise UserError(f"{key!r} must hold {'whole ' if whole else ''}numbers")
    try:
        with np.errstate(over="ignore"):
            array = np.array(rows, dtype=np.int64 if whole else np.float64).astype(kind)
    except OverflowError as error:
        raise UserError(f"{key!r} holds a number that {kind} cannot hold") from error
    if not np.isfinite(array).all() or (whole and not np.array_equal(array, np.array(rows))):
        raise UserError(f"{key!r} holds a number that {kind} cannot hold")
    return array


def _shortest(array: np.ndarray) -> list[Any]:
    """The numbers with as few digits as bring back the same ones in the array's type."""
    return array.tolist() if array.dtype.kind in "iu" else array.astype(str).astype(np.float64).tolist()
