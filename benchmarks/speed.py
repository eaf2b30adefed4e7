"""Training steps side by side with TRL: seconds and peak memory of the same work, in runs that alternate.

    python benchmarks/speed.py measure ROW TRL_PYTHON [ALTERNATIONS]
    python benchmarks/speed.py table

ROW: reward-4, reward-6, reward-9 (a step on one slate of 4, 6 or 9 answers), grpo, grpo-lora, ppo, grpo-long; with
`-plain` behind it, TRL runs without gradient checkpointing, which its trainers switch on by default. TRL_PYTHON is the
Python of an environment of TRL's own; PPO needs the last version that had it:

    python -m venv trl116 && trl116/bin/pip install torch==2.13.0 && trl116/bin/pip install trl==1.16.0 peft
    python -m venv trl112 && trl112/bin/pip install torch==2.13.0 && trl112/bin/pip install trl==1.12.0

Both sides take the embedded model in float32, the same random tokens, two threads and a process for each run; threads
wait as `prefloop loop` lets them and as libgomp does by itself. Nothing
ends a response early, so that both compute the same number of tokens. Where a run has several steps its
first is not counted: both sides make their moments in it, once. Ratios are medians over the alternations, with
their range: other work on the machine slows both sides of a pair. Processor seconds (of both threads) are told beside
the clock's: they feel other work less. Results: benchmarks/results/speed-*.json.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from loop_command import SPINS

HERE = Path(__file__).resolve().parent
END = 3  # a token that the model never writes

COLUMNS = ("kind", "length", "responses", "new_tokens", "steps", "lora", "aim", "memory")
# Length of a prompt, responses to each and their tokens, steps, LoRA rank; aims: times faster, share of TRL's memory.
ROWS: dict[str, dict[str, Any]] = {
    name: dict(zip(COLUMNS, row, strict=True))
    for name, row in {
        "reward-4": ("reward", 100, 4, 50, 3, 0, 5, 0.55),
        "reward-6": ("reward", 100, 6, 50, 2, 0, 11, 0.55),
        "reward-9": ("reward", 100, 9, 50, 2, 0, 15, 0.55),
        "grpo": ("grpo", 100, 8, 48, 2, 0, 3, 0.65),
        "grpo-lora": ("grpo", 100, 8, 48, 2, 8, 3, None),
        "ppo": ("ppo", 100, 4, 50, 2, 0, 3, 0.5),
        "grpo-long": ("grpo", 20, 4, 128, 1, 0, 1, None),
    }.items()
}
# Of the embedded model: parameters of its layers, and numbers in its head. A multiplication and an addition are two.
LAYERS, HEAD = 30 * (2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576), 49152 * 576


def make_job(row: str) -> dict[str, Any]:
    name = row.removesuffix("-plain")
    chance = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [chance.randrange(1000, 49000) for _ in range(count)]

    from rlhf.backbones import embedded_model

    job = {"row": row, "checkpointing": not row.endswith("-plain")} | ROWS[name]
    job |= {"model": str(embedded_model()), "threads": 2, "seed": 0, "end": END, "beta": 0.04}
    job |= {"learning_rate": 1e-5, "head_learning_rate": 1e-3, "token_budget": 600}
    if job["kind"] != "reward":
        return job | {"prompts": [tokens(job["length"]) for _ in range(4)]}
    import torch

    from rlhf.reward_training import rate_factor

    slates = [
        {"prompt": tokens(job["length"]), "candidates": [tokens(job["new_tokens"]) for _ in range(job["responses"])]}
        for _ in range(job["steps"])
    ]
    # The order that `fit` draws, and its learning rates.
    order = torch.randperm(len(slates), generator=torch.Generator().manual_seed(job["seed"])).tolist()
    return job | {
        "slates": slates,
        "order": order,
        "factors": [rate_factor(n, len(slates)) for n in range(len(slates))],
    }


def least_work(job: dict[str, Any]) -> dict[str, float]:
    """The floating-point operations of matrix products that each phase cannot do without, attention left out.

    Gradients cost two forwards, or one where the weights are frozen; their own forward is spared where the layers' was
    noted before, the head's always computed. The prompt is computed once a group.
    """
    prompts = 1 if job["kind"] == "reward" else 4
    p, n = prompts * job["length"], prompts * job["responses"] * job["new_tokens"]
    forward, scores = 2 * LAYERS * (p + n), 2 * HEAD * n
    gradients = 1 if job["lora"] else 2
    if job["kind"] == "reward":
        return {"update": 3 * forward}
    sampling = 2 * LAYERS * (p + n - prompts * job["responses"]) + scores
    if job["kind"] == "grpo":
        return {"sampling": sampling, "reference": forward + scores, "update": gradients * (forward + scores) + scores}
    return {
        "sampling": sampling,
        "scoring": forward,
        "reference": 2 * forward + scores,  # and the critic's values
        "update": gradients * (2 * forward + scores) + scores,
    }


def measure(row: str, trl_python: str, alternations: int) -> None:
    job = make_job(row)
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps(job))
        for n in range(alternations):
            pair: dict[str, Any] = {"load": os.getloadavg()[0]}
            sides = [("prefloop", sys.executable, {"GOMP_SPINCOUNT": SPINS}), ("trl", trl_python, {})]
            for side, python, waiting in sides if n % 2 == 0 else sides[::-1]:
                out = Path(folder) / f"{side}.json"
                command = [python, str(HERE / f"speed_{side}.py"), str(job_file), str(out)]
                subprocess.run(
                    command,
                    check=True,
                    stdout=subprocess.DEVNULL,
                    env={**os.environ, "OMP_NUM_THREADS": "2"} | waiting,
                )
                pair[side] = json.loads(out.read_text())
            runs.append(pair)
            print(f"{row} {n + 1}/{alternations}: {told(runs)}", flush=True)
            told_job = {key: value for key, value in job.items() if key not in ("slates", "prompts", "model")}
            result = {"row": row, "date": str(datetime.date.today()), "job": told_job, "runs": runs}
            (HERE / "results" / f"speed-{row}.json").write_text(json.dumps(result, indent=1) + "\n")


def a_step(run: dict[str, Any], unit: str = "seconds") -> float:
    steps = warm(run[unit])
    return sum(steps) / len(steps)


def warm(steps: list[Any]) -> list[Any]:
    """Those after the first, which makes moments and loads what both sides need once; all where there is only one."""
    return steps[1:] or steps


def figures(runs: list[dict[str, Any]]) -> dict[str, Any]:
    ratios = sorted(a_step(r["trl"]) / a_step(r["prefloop"]) for r in runs)
    cpu = sorted(a_step(r["trl"], "cpu_seconds") / a_step(r["prefloop"], "cpu_seconds") for r in runs)
    memory = [r["prefloop"]["peak_bytes"] / r["trl"]["peak_bytes"] for r in runs]
    found = {
        "prefloop": median(a_step(r["prefloop"]) for r in runs),
        "trl": median(a_step(r["trl"]) for r in runs),
        "ratio": median(ratios),
        "low": ratios[0],
        "high": ratios[-1],
        "cpu_ratio": median(cpu),
        "cpu_low": cpu[0],
        "cpu_high": cpu[-1],
        "gb": median(r["prefloop"]["peak_bytes"] for r in runs) / 1e9,
        "trl_gb": median(r["trl"]["peak_bytes"] for r in runs) / 1e9,
        "memory": median(memory),
    }
    if "losses" in runs[0]["prefloop"]:
        both = zip(runs[0]["prefloop"]["losses"], runs[0]["trl"]["losses"], strict=True)
        found["difference"] = max(abs(a - b) for a, b in both)
    if "logp_error" in runs[0]["prefloop"]:
        found["difference"] = max(r["prefloop"]["logp_error"] for r in runs)
    return found


def told(runs: list[dict[str, Any]]) -> str:
    return ", ".join(f"{key} {value:.3g}" for key, value in figures(runs).items())


def table() -> str:
    """The table of RESULTS.md: what was reached, and what share of the speed of bare matrix products."""
    heads = ("work", "Prefloop, s", "TRL, s", "times faster [range]", "by processor time", "aim")
    heads += ("peak, GB", "of TRL's", "aim", "differs by", "of the bound")
    lines = [heads, ("---",) * len(heads)]
    for row in [r + end for r in ROWS for end in ("", "-plain")]:
        path = HERE / "results" / f"speed-{row}.json"
        if not path.exists():
            continue
        result = json.loads(path.read_text())
        f, job = figures(result["runs"]), result["job"]
        line = (f"`{row}`", f"{f['prefloop']:.1f}", f"{f['trl']:.1f}")
        line += (f"**{f['ratio']:.1f}** [{f['low']:.1f}, {f['high']:.1f}]",)
        line += (f"{f['cpu_ratio']:.1f} [{f['cpu_low']:.1f}, {f['cpu_high']:.1f}]", f"≥ {job['aim']}")
        line += (f"{f['gb']:.1f} / {f['trl_gb']:.1f}", f"{f['memory']:.0%}")
        line += (f"≤ {job['memory']:.0%}" if job["memory"] else "", f"{f['difference']:.0e}", bounds(result))
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bounds(result: dict[str, Any]) -> str:
    """For each phase the share of its processor time that the least products take at the speed measured beside."""
    shares: dict[str, list[float]] = {}
    least = least_work(result["job"])
    for run in (r["prefloop"] for r in result["runs"]):
        took = {"update": a_step(run, "cpu_seconds")}
        if "phases" in run:
            took = {phase: median(p[phase] for p in warm(run["phases"])) for phase in least}
        for phase, work in least.items():
            shares.setdefault(phase, []).append(work / run["matmul_flops"] / took[phase])
    return ", ".join(f"{phase} {median(values):.0%}" for phase, values in shares.items())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["measure", row, trl_python, *count] if row.removesuffix("-plain") in ROWS:
            measure(row, trl_python, int(count[0]) if count else 3)
        case ["table"]:
            print(table())
        case _:
            sys.exit(__doc__)
