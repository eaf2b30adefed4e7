"""Does data/runs/hopper-backflip.toml teach a backflip? A simulated annotator stands in for the person.

    python benchmarks/backflip.py run ARM SEED [KEY=VALUE …]   one run; writes benchmarks/results/backflip-ARM-SEED.json
    python benchmarks/backflip.py table                        what the finished runs say, as Markdown

Nobody clicked anything here. The annotator is a formula (`liking`) on what the Hopper observes: it likes backward turns
in the air, then a leg that is up, and a landing on the foot; a tenth of its answers is wrong. ARM `preferred` learns
from its answers; `random` is the control, whose answers are all drawn by chance. KEY=VALUE overrides the run file,
which is otherwise used as it is. Figures are of 20 episodes without exploration, on seeds that nothing was learned or
chosen on, before training and after.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RUN_FILE = ROOT / "data" / "runs" / "hopper-backflip.toml"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "rlhf")]

EPISODES = 20
CLEAR = 0.02  # metres between the leg's lowest point and the ground from which it counts as in the air
WHOLE_TURN = 0.75  # turns in the air from which a landing is that of a flip
TEMPERATURE = 0.02  # of the annotator: differences far above it are always seen


def clearance(seen: np.ndarray) -> np.ndarray:
    """(T,) metres from the ground to the lowest point of the Hopper, from (T, ≥5) observations; see hopper.xml.

    Its capsules: torso (half length 0.2, radius 0.05), thigh (0.45, 0.05), leg (0.5, 0.04), foot (from 0.13 behind to
    0.26 before the ankle, 0.06). The torso turns about +y, the joints about −y.
    """
    height, torso = seen[:, 0], seen[:, 1]
    thigh, leg, foot = (torso - seen[:, 2:n].sum(1) for n in (3, 4, 5))
    hip = height - 0.2 * np.cos(torso)
    knee = hip - 0.45 * np.cos(thigh)
    ankle = knee - 0.5 * np.cos(leg)
    lowest = [height + 0.2 * np.cos(torso) - 0.05, hip - 0.05, knee - 0.05, ankle - 0.04]
    return np.min([*lowest, ankle + 0.13 * np.sin(foot) - 0.06, ankle - 0.26 * np.sin(foot) - 0.06], axis=0)


def backward_turns(seen: np.ndarray) -> tuple[float, int]:
    """(turns, flips) of (T, 11) observations.

    turns: net backward turns in the air, `−Σ Δangle / 2π` over steps that begin and end in the air. flips: flights of
    at least three quarters of a turn after which the leg still stands with its torso up when it has touched the ground.
    """
    air = clearance(seen) > CLEAR
    back = -np.diff(np.unwrap(seen[:, 1])) / (2 * np.pi) * (air[1:] & air[:-1])
    flips, flown = 0, 0.0
    for t, turned in enumerate(back):
        if air[t + 1]:
            flown += float(turned)
        else:
            flips += flown >= WHOLE_TURN and stands(seen[t + 1])
            flown = 0.0
    return float(back.sum()), flips


def stands(seen: np.ndarray) -> bool:
    """Whether the torso is within 45° of upright, and higher than a leg that lies or sits."""
    return bool(np.cos(seen[1]) > 0.7 and seen[0] > 0.7)


def liking(seen: np.ndarray) -> float:
    """What the simulated annotator thinks of a clip: turns + 0.25 · mean height in metres + 0.5 if it lands one."""
    turns, flips = backward_turns(seen)
    return turns + 0.25 * float(seen[:, 0].mean()) + 0.5 * min(flips, 1)


def run(arm: str, seed: int, overrides: list[str]) -> None:
    """One run in memory, measured before and after."""
    from control_world import ControlWorld, run_agent

    from labeling.segments import Segment
    from rlhf.control.agent import make_agent, play
    from rlhf.control.control_config import ControlConfig, spec
    from rlhf.control.control_subject import cut_features
    from rlhf.control.environments import make
    from rlhf.control.segment_model import SegmentModel
    from rlhf.run_file import load_any_run

    class Annotated(ControlWorld):
        """The score that the annotator compares is its liking, not the environment's reward."""

        def add_segments(self, segments: Iterable[Segment]) -> int:
            return super().add_segments(replace(s, gold=liking(s.steps)) for s in segments)

    began = time.monotonic()
    config = load_any_run(RUN_FILE, (f"seed={seed}", *overrides))
    assert isinstance(config, ControlConfig)
    world = Annotated(seed, TEMPERATURE, random_labels=arm == "random")

    def measured(agent: Any) -> dict[str, list[float]]:
        episodes = play(agent, spec(config.environment), EPISODES, 10_000 + seed)
        found = [backward_turns(np.asarray(e.observations)) for e in episodes]
        return {"turns": [turns for turns, _ in found], "flips": [flips for _, flips in found]}

    features = cut_features(make(spec(config.environment)))
    before = measured(make_agent(config.agent, spec(config.environment), SegmentModel(features).eval(), seed))
    with tempfile.TemporaryDirectory() as folder:
        after = measured(run_agent(config, Path(folder), world).agent)
    result = {
        "arm": arm,
        "seed": seed,
        "overrides": overrides,
        "annotator": "simulated",
        "before": before,
        "after": after,
        "curve": [round(backward_turns(world.kept[e["clip"]].steps)[0], 3) for e in world.of_kind("evaluation")],
        "accuracy": [f["heldout_accuracy"] for f in world.of_kind("fit")],
        "labels": len(world.labeled),
        "environment_steps": world.of_kind("update")[-1]["environment_steps"],
        "settings": config.to_dict(),
        "seconds": time.monotonic() - began,
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "gymnasium", "stable-baselines3", "mujoco")}
        | {"python": platform.python_version()},
        "git": subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"backflip-{arm}-{seed}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{arm} {seed}: {_mean(before['turns']):.2f} turns before, {_mean(after['turns']):.2f} after", flush=True)


def table() -> str:
    """Turns and landed flips of an episode, before and after, for each run."""
    lines = [
        "| answers | seed | labels | steps | turns before | turns after (least, most) | landed flips after |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted(RESULTS.glob("backflip-*.json")):
        r = json.loads(path.read_text(encoding="utf-8"))
        turns, flips = r["after"]["turns"], _mean(r["after"]["flips"])
        cells = [
            r["arm"],
            r["seed"],
            r["labels"],
            f"{r['environment_steps']:,.0f}",
            f"{_mean(r['before']['turns']):.2f}",
        ]
        cells += [f"{_mean(turns):.2f} ({min(turns):.2f}, {max(turns):.2f})", f"{flips:.2f}"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    match sys.argv[1:]:
        case ["run", ("preferred" | "random") as arm, seed, *overrides]:
            run(arm, int(seed), overrides)
        case ["table"]:
            print(table())
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
