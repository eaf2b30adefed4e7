"""The settings of a project: how slates are given to people, and how their work is checked.

They belong to the project, not to a run: people label for all runs. `prefloop settings` shows and sets them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from labeling.records import UserError

MOST_CHECKS = 0.5  # the largest share of what a person is given for gold items, and for repeats
MOST_OVERLAP = 50


@dataclass(frozen=True)
class Settings:
    """What a project asks of its people. Raises UserError for a value that is out of range.

    overlap: how many people answer each slate. gold_rate: share of what a person is given that has a known answer.
    repeat_rate: share that this person answered before, mirrored. stale_iterations: a slate of a run is not given out
    any more once the run is so many iterations further; 0 = slates never grow stale.
    """

    overlap: int = 1
    gold_rate: float = 0.0
    repeat_rate: float = 0.0
    stale_iterations: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.overlap <= MOST_OVERLAP:
            raise UserError(f"overlap lies between 1 and {MOST_OVERLAP}, not {self.overlap}")
        for name in ("gold_rate", "repeat_rate"):
            rate = getattr(self, name)
            if not (math.isfinite(rate) and 0 <= rate <= MOST_CHECKS):
                raise UserError(f"{name} lies between 0 and {MOST_CHECKS}, not {rate}")
        if not 0 <= self.stale_iterations < 10**6:
            raise UserError(f"stale_iterations is a count from 0 (never) to 999999, not {self.stale_iterations}")


def parse_settings(given: Mapping[str, str]) -> Settings:
    """Settings from text by key; what is not given has its default. Raises UserError for what is no setting."""
    kinds: dict[str, type[int] | type[float]] = {name: type(value) for name, value in asdict(Settings()).items()}
    values: dict[str, int | float] = {}
    for key, text in given.items():
        if key not in kinds:
            raise UserError(f"there is no setting {key!r}: the settings are {', '.join(kinds)}")
        try:
            values[key] = kinds[key](text)
        except ValueError as error:
            wanted = "a whole number" if kinds[key] is int else "a number"
            raise UserError(f"{key} is {wanted}, not {text!r}") from error
    return Settings(**values)  # type: ignore[arg-type]


def parse_assignments(given: Sequence[str]) -> dict[str, str]:
    """Text by key from ["key=value", …]. Raises UserError for one without "="."""
    for text in given:
        if "=" not in text:
            raise UserError(f"{text!r} sets nothing: write KEY=VALUE")
    return {key.strip(): value.strip() for key, _, value in (text.partition("=") for text in given)}
