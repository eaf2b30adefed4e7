"""Runs of learning that differ in nothing but a seed, two at a time: each computes on one core."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def side_by_side(seeds: Sequence[int], run: Callable[[int], T]) -> list[T]:
    """`run(seed)` for each seed, in order. `run` is a function of a module, or a partial of one."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(run, seeds))
