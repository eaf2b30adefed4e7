"""The settings of a project: what people are asked, how slates are given to them, and how their work is checked.

They belong to the project, not to a run: people label for all runs. `prefloop settings` shows and sets them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from labeling.records import UserError

MOST_CHECKS = 0.5  # the largest share of what a person is given for gold items, and for repeats
MOST_OVERLAP = 50
MOST_CRITERIA = 8
CALIBRATIONS = ("none", "temperature", "isotonic")
LONGEST_GUIDELINES = 20_000  # characters


@dataclass(frozen=True)
class Settings:
    """What a project asks of its people. Raises UserError for a value that is out of range.

    overlap: how many people answer each slate. gold_rate: share of what a person is given that has a known answer.
    repeat_rate: share that this person answered before, mirrored. stale_iterations: a slate of a run is not given out
    any more once the run is so many iterations further; 0 = slates never grow stale.
    strength: whether a pair asks how much better. criteria: single criteria, a word each, by which a pair may be
    compared too. guidelines: Markdown that tells people how to decide, with examples.
    qualifying: so many items with a known answer come first to a new labeler. qualifying_share: who agrees with less
    than this share of their pairs gets no more slates. calibration: what a judge's labels are worth in training, once
    people answered enough of the same slates: "none" is one flip rate for all of them; "temperature" and "isotonic"
    fit its probabilities to what people say (see `labeling.soft_labels`), and each pair has its own.
    """

    overlap: int = 1
    gold_rate: float = 0.0
    repeat_rate: float = 0.0
    stale_iterations: int = 0
    strength: bool = False
    criteria: tuple[str, ...] = ()
    guidelines: str = ""
    qualifying: int = 0
    qualifying_share: float = 0.7
    calibration: str = "none"

    def __post_init__(self) -> None:
        if not 1 <= self.overlap <= MOST_OVERLAP:
            raise UserError(f"overlap lies between 1 and {MOST_OVERLAP}, not {self.overlap}")
        for name in ("gold_rate", "repeat_rate"):
            rate = getattr(self, name)
            if not (math.isfinite(rate) and 0 <= rate <= MOST_CHECKS):
                raise UserError(f"{name} lies between 0 and {MOST_CHECKS}, not {rate}")
        if not 0 <= self.stale_iterations < 10**6:
            raise UserError(f"stale_iterations is a count from 0 (never) to 999999, not {self.stale_iterations}")
        words = all(re.fullmatch(r"[\w-]{1,40}", word) for word in self.criteria)
        if not words or len({*self.criteria}) != len(self.criteria) or len(self.criteria) > MOST_CRITERIA:
            raise UserError(
                f"criteria are at most {MOST_CRITERIA} different words of at most 40 letters, with commas between, "
                f"not {', '.join(self.criteria)!r}"
            )
        if len(self.guidelines) > LONGEST_GUIDELINES:
            raise UserError(f"guidelines have at most {LONGEST_GUIDELINES} characters, not {len(self.guidelines)}")
        if not 0 <= self.qualifying <= 1000:
            raise UserError(f"qualifying is a count of items from 0 (none) to 1000, not {self.qualifying}")
        if self.calibration not in CALIBRATIONS:
            raise UserError(f"calibration is one of {', '.join(CALIBRATIONS)}, not {self.calibration!r}")
        if not (math.isfinite(self.qualifying_share) and 0 <= self.qualifying_share <= 1):
            raise UserError(f"qualifying_share lies between 0 and 1, not {self.qualifying_share}")


def parse_settings(given: Mapping[str, str]) -> Settings:
    """Settings from text by key; what is not given has its default. Raises UserError for what is no setting."""
    kinds = {field.name: type(field.default) for field in fields(Settings)}
    values: dict[str, Any] = {}
    for key, text in given.items():
        if key not in kinds:
            raise UserError(f"there is no setting {key!r}: the settings are {', '.join(kinds)}")
        wanted, parse = KINDS[kinds[key]]
        try:
            values[key] = parse(text)
        except (ValueError, KeyError) as error:
            raise UserError(f"{key} is {wanted}, not {text!r}") from error
    return Settings(**values)


# What text each kind of setting is written as.
KINDS: dict[type, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number", int),
    float: ("a number", float),
    bool: ("yes or no", lambda text: {"yes": True, "no": False}[text]),
    str: ("text", str),
    tuple: ("words with commas between", lambda text: tuple(word.strip() for word in text.split(",") if word.strip())),
}


def in_lines(settings: Settings) -> list[str]:
    """The settings as they are set, a line each; of the guidelines, their size alone."""
    shown = {
        **vars(settings),
        "strength": "yes" if settings.strength else "no",
        "criteria": ",".join(settings.criteria),
        "guidelines": f"({len(settings.guidelines)} characters)" if settings.guidelines else "",
    }
    return [f"{key} = {value}".rstrip() for key, value in shown.items()]


def read_guidelines(path: Path) -> str:
    """The text of a Markdown file. Raises UserError when there is none, or it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"guidelines names a Markdown file, and {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"guidelines: {path} is not UTF-8 text: save it as UTF-8") from error


def parse_assignments(given: Sequence[str]) -> dict[str, str]:
    """Text by key from ["key=value", …]. Raises UserError for one without "="."""
    for text in given:
        if "=" not in text:
            raise UserError(f"{text!r} sets nothing: write KEY=VALUE")
    return {key.strip(): value.strip() for key, _, value in (text.partition("=") for text in given)}
