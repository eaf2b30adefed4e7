"""Runs of learning that differ in nothing but a seed, two at a time: each computes on one core."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def side_by_side(*groups: tuple[Sequence[int], Callable[[int], T]]) -> list[list[T]]:
    """For each group of seeds and a function, `run(seed)` of each seed, in order.

    `run` is a function of a module, or a partial of one. To begin a process takes seconds, so all groups share two.
    """
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        begun = [[pool.submit(run, seed) for seed in seeds] for seeds, run in groups]
        return [[done.result() for done in group] for group in begun]
