"""Work in a process of its own: its values and its refusals arrive, and when it breaks, nothing else does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from labeling.apart import apart
from labeling.records import UserError


def count_to(most: int, then: str = "") -> Iterator[Any]:
    for n in range(most):
        yield {"n": n, "text": "‮é\ud800", "none": None}
    if then == "refuse":
        raise UserError("not this file: take another")
    if then == "abort":
        os.abort()  # what a C++ exception that nobody can catch does
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "raise":
        raise RuntimeError("unforeseen")


def test_values_arrive_in_order() -> None:
    assert [v["n"] for v in apart(count_to, 1000, broken="broken")] == list(range(1000))
    assert list(apart(count_to, 1, broken="broken")) == [{"n": 0, "text": "‮é\ud800", "none": None}]


@pytest.mark.parametrize(
    ("then", "line"),
    [("refuse", "not this file: take another"), ("abort", "broken"), ("die", "broken"), ("raise", "broken")],
)
def test_what_breaks_is_one_line_after_what_came_before(then: str, line: str) -> None:
    values = apart(count_to, 3, then, broken="broken")
    assert [next(values)["n"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=f"^{line}$"):
        next(values)


def test_who_stops_listening_leaves_no_process() -> None:
    values = apart(count_to, 10**9, broken="broken")
    next(values)
    values.close()  # type: ignore[attr-defined]
