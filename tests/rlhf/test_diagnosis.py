"""The verdict follows trends that 95 % confidence supports, and says so when there are none."""

import math

import pytest

from labeling.intervals import bootstrap
from rlhf.diagnosis import AGENT, LANGUAGE, Verdicts, diagnose, trend

UP, DOWN, FLAT = [0.1, 0.22, 0.29, 0.41, 0.5], [0.5, 0.39, 0.31, 0.2, 0.1], [0.3, 0.1, 0.4, 0.2, 0.3]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (UP, "up"),
        (DOWN, "down"),
        (FLAT, "flat"),
        (UP[:3], "flat"),  # three points say nothing
        ([*UP[:2], None, *UP[2:]], "up"),
        # Slope 0.1, residuals 0.1·(1, −1, −1, 1)·…: y = 0, 0.4, 0.2, 0.6 has slope 0.16, residual sum 0.072,
        # se = sqrt(0.036/5) = 0.085, and 4.30·0.085 = 0.36 > 0.16.
        ([0.0, 0.4, 0.2, 0.6], "flat"),
        # y = 0, 0.1, 0.21, 0.3: slope 0.101, residual sum 0.00010, se = sqrt(0.000045/5) = 0.003; 4.30·0.003 < 0.101.
        ([0.0, 0.1, 0.21, 0.3], "up"),
    ],
)
def test_trend(values: list, expected: str) -> None:
    assert trend(values) == expected


@pytest.mark.parametrize(
    ("proxy", "gold_train", "gold_heldout", "verdict"),
    [
        (UP, DOWN, FLAT, "reward hacking"),
        (UP, DOWN, UP, "reward hacking"),
        (UP, UP, DOWN, "overfitting"),
        (UP, UP, UP, "learning"),
        (FLAT, UP, UP, "learning"),
        (DOWN, UP, UP, "not clear yet"),
        (UP, FLAT, FLAT, "not clear yet"),
        (UP[:2], UP[:2], UP[:2], "not clear yet"),
    ],
)
def test_verdicts(proxy: list, gold_train: list, gold_heldout: list, verdict: str) -> None:
    for says in (LANGUAGE, AGENT):
        assert told(says, proxy, gold_train, gold_heldout).startswith(verdict)


def told(says: Verdicts, proxy: list, gold_train: list, gold_heldout: list) -> str:
    rows = [
        {"proxy_train": p, "gold_train": t, "gold_heldout": h}
        for p, t, h in zip(proxy, gold_train, gold_heldout, strict=True)
    ]
    return diagnose(rows, says)


def test_an_agent_has_returns_and_neither_prompts_nor_gold() -> None:
    findings = [told(AGENT, *trends) for trends in ((UP, DOWN, FLAT), (UP, UP, DOWN), (UP, UP, UP))]
    assert all("true return" in line for line in findings)
    assert not any(word in line for line in findings for word in ("gold", "prompt", "proxy"))


@pytest.mark.parametrize(("proxy", "trend"), [(UP, "rises"), (DOWN, "falls"), (FLAT, "has no trend")])
def test_without_gold_only_people_can_tell(proxy: list, trend: str) -> None:
    nothing = [None] * len(proxy)
    assert told(AGENT, proxy, nothing, nothing).startswith(f"only people can tell: the predicted reward {trend}")


def test_the_bootstrap_interval_of_a_mean() -> None:
    found = bootstrap([0.0, 1.0] * 50)
    # Standard error 0.5/√100 = 0.05, so about 0.5 ± 0.098.
    assert found.mean == 0.5
    assert found.low == pytest.approx(0.402, abs=0.02)
    assert found.high == pytest.approx(0.598, abs=0.02)
    assert bootstrap([1.0, 0.0], weights=[3.0, 1.0]).mean == 0.75
    assert math.isnan(bootstrap([]).mean)
