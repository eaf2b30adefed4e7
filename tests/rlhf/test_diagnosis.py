"""Verdicts come from trends that 95 % confidence supports, not from one good iteration."""

from __future__ import annotations

import pytest

from rlhf.diagnosis import diagnose, trend

UP = [0.1, 0.22, 0.28, 0.41, 0.5]
DOWN = UP[::-1]
NOISE = [0.3, 0.1, 0.4, 0.2, 0.3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (UP, "up"),
        (DOWN, "down"),
        (NOISE, "flat"),
        # One jump: slope 0.2; residuals 0.2, 0, −0.2, −0.4, 0.4 give se = √(0.4/3/10) = 0.115; 0.2 < t(3)·se = 0.37.
        ([0.0, 0.0, 0.0, 0.0, 1.0], "flat"),
        ([0.1, 0.2, 0.3], "flat"),  # three points have one degree of freedom and say nothing
        ([None, *UP], "up"),
        ([0.5] * 6, "flat"),
    ],
)
def test_trend(values: list[float | None], expected: str) -> None:
    assert trend(values) == expected


@pytest.mark.parametrize(
    ("proxy", "gold_train", "gold_heldout", "verdict"),
    [
        (UP, DOWN, NOISE, "reward hacking"),
        (UP, UP, DOWN, "overfitting"),
        (UP, UP, UP, "learning"),
        (NOISE, UP, UP, "learning"),
        (DOWN, UP, UP, "not clear"),
        (UP, NOISE, NOISE, "not clear"),
    ],
)
def test_verdicts(proxy: list[float], gold_train: list[float], gold_heldout: list[float], verdict: str) -> None:
    rows = [
        {"proxy_train": a, "gold_train": b, "gold_heldout": c}
        for a, b, c in zip(proxy, gold_train, gold_heldout, strict=True)
    ]
    assert diagnose(rows).startswith(verdict)
