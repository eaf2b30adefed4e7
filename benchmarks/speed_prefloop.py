"""Prefloop's side of `speed.py`: does the job in a file, and writes what it took.

    python benchmarks/speed_prefloop.py JOB.json OUT.json

Started by `speed.py`, once for each measurement, so that the peak of memory is of this work alone.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.nn.functional import linear

from labeling.records import Preference
from rlhf.backbones import load_backbone
from rlhf.packing import Group
from rlhf.reward_model import make_reward_model
from rlhf.reward_training import Example, Fit, fit

Job = dict[str, Any]


def run(job: Job) -> dict[str, Any]:
    torch.set_num_threads(job["threads"])
    speed = matmul_speed()
    found = reward_training(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found | {"peak_bytes": peak, "matmul_flops": speed, "versions": {"torch": torch.__version__}}


def matmul_speed() -> float:
    """Floating-point operations of a processor second in products of this model's shape: the median of ten."""
    x, weight = torch.randn(512, 576), torch.randn(1536, 576)
    times = []
    for _ in range(10):
        start = time.process_time()
        for _ in range(10):
            linear(x, weight)
        times.append(time.process_time() - start)
    return 10 * 2 * x.shape[0] * weight.numel() / sorted(times)[5]


def reward_training(job: Job) -> dict[str, Any]:
    """One slate a step; its first candidate is the best, and so on."""
    model = make_reward_model(load_backbone(job["model"]), "full", 8)  # and the policy is let go
    examples = []
    for slate in job["slates"]:
        k = len(slate["candidates"])
        preferences = tuple(Preference("", i, j, 1.0) for i in range(k) for j in range(i + 1, k))
        examples.append(Example(Group(tuple(slate["prompt"]), tuple(map(tuple, slate["candidates"]))), preferences))
    settings = Fit(1, job["learning_rate"], job["head_learning_rate"], 1, token_budget=job["token_budget"])
    times = [clock()]
    losses = fit(
        model, examples, settings, 0, torch.Generator().manual_seed(job["seed"]), lambda *_: times.append(clock())
    )
    return since(times) | {"losses": losses}


def clock() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(times: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
    """Seconds, and processor seconds of all threads, of each step."""
    steps = list(pairwise(times))
    return {"seconds": [b[0] - a[0] for a, b in steps], "cpu_seconds": [b[1] - a[1] for a, b in steps]}


if __name__ == "__main__":
    job_file, out_file = map(Path, sys.argv[1:])
    out_file.write_text(json.dumps(run(json.loads(job_file.read_text()))))
