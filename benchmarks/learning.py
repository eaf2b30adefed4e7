"""Does the policy get better? SmolLM2 on the shipped prompts, taught by a simulated annotator's labels alone.

    python benchmarks/learning.py run ARM SEED      one run; writes benchmarks/results/learning-ARM-SEED.json
    python benchmarks/learning.py table             what the finished runs say, as Markdown

Arms: `ppo` and `grpo` refit the reward model in every iteration; `ppo_frozen` and `grpo_frozen` collect the same
number of labels before the first iteration and freeze it; `grpo_random` is grpo with coin-toss labels, the control
that must not learn. Gold is the rubric "brief" (a short answer that comes to its end), which labels come from (with
Bradley-Terry noise) and which reward model and policy never see; it is measured on all held-out prompts, before and
after, paired by prompt.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
ITERATIONS, SLATES = 5, 8
# Small enough for two cores: what a run of the shipped file does in more iterations, with more of everything.
BUDGET = (
    f"iterations={ITERATIONS}",
    f"labels.slates={SLATES}",
    "sampling.prompts=6",
    "evaluation.prompts=8",
)
UPFRONT = ("reward_model.refit=first", f"labels.first_slates={ITERATIONS * SLATES}")
# An arm is a shipped run file and what it changes there: its name says all of it.
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ppo": ("ppo", ()),
    "grpo": ("grpo", ()),
    "ppo_frozen": ("ppo", UPFRONT),
    "grpo_frozen": ("grpo", UPFRONT),
    "grpo_random": ("grpo", ("labels.oracle.random_labels=true",)),
}


def run(arm: str, seed: int) -> None:
    """One run in memory; evaluated on every held-out prompt before and after."""
    sys.path.insert(0, str(ROOT))
    from judges.rubric import load_rubric, score
    from labeling.exchange_reading import read_file
    from labeling.oracle import oracle_label
    from labeling.preferences import expand_all
    from labeling.records import Annotator, LabeledSlate, Slate
    from rlhf.language_subject import LanguageSubject, make_language_subject
    from rlhf.loop_steps import evaluate
    from rlhf.online_loop import Surroundings, run_loop
    from rlhf.run_config import load_run

    recipe, changes = ARMS[arm]
    overrides = (f"name={arm}-{seed}", f"seed={seed}", *BUDGET, *changes)
    config = load_run(ROOT / "data" / "runs" / f"{recipe}.toml", overrides)
    rubric = load_rubric(config.evaluation.gold, ROOT / "data" / "rubrics")
    prompts = [
        replace(entry.prompt, split=entry.split or "train")
        for _, entry in read_file(ROOT / "data" / "prompts.jsonl").entries
    ]
    heldout = [p for p in prompts if p.split == "heldout"]
    oracle, labeled = Annotator("oracle", "oracle"), dict[str, LabeledSlate]()
    told = config.labels.oracle
    assert told is not None
    iterations: list[Mapping[str, Any]] = []
    began = time.monotonic()

    def gold(pairs: Sequence[tuple[Any, Any]]) -> list[float | None]:
        return [score(rubric, prompt, candidate) for prompt, candidate in pairs]

    def ask(iteration: int, slates: Sequence[Slate]) -> list[LabeledSlate]:
        for slate in slates:
            scores = [g or 0.0 for g in gold([(slate.prompt, c) for c in slate.candidates])]
            label = oracle_label(slate, scores, oracle, seed, told.temperature, random_labels=told.random_labels)
            labeled[slate.id] = LabeledSlate(slate, (label,), expand_all([label], {oracle.id: oracle}))
        return list(labeled.values())

    def emit(iteration: int, kind: str, data: Mapping[str, Any]) -> None:
        if kind in ("iteration", "fit", "update"):
            iterations.append({"iteration": iteration, "kind": kind, **data})
        if kind == "iteration":
            print(f"{arm}-{seed} {iteration}/{ITERATIONS} {json.dumps(data)}", flush=True)

    around = Surroundings(ask, gold, emit, lambda *_: None, lambda _: "oracle", lambda _: ())
    made: list[LanguageSubject] = []

    def make() -> LanguageSubject:
        made.append(make_language_subject(config, prompts, gold))
        return made[-1]

    before = evaluate(make().policy, None, heldout, gold, config, "policy-0")
    print(f"{arm}-{seed} before: {before['gold']:.4f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        run_loop(config, config.model.name, make, around, Path(folder))
        after = evaluate(made[-1].policy, made[-1].reward_model, heldout, gold, config, "policy-last")
    print(f"{arm}-{seed} after: {after['gold']:.4f}", flush=True)
    kept = ("gold_by_prompt", "gold", "kl_per_sequence", "length", "finished", "distinct_2", "proxy")
    result = {
        "arm": arm,
        "seed": seed,
        "overrides": overrides,
        "before": {key: before[key] for key in kept},
        "after": {key: after[key] for key in kept},
        "labels": len(labeled),
        "iterations": iterations,
        "seconds": time.monotonic() - began,
        "date": date.today().isoformat(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")}
        | {"python": platform.python_version()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"learning-{arm}-{seed}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def table() -> None:
    """Gold before and after by arm: means over prompts and seeds, 95 % bootstrap intervals over prompts."""
    sys.path.insert(0, str(ROOT))
    from labeling.intervals import bootstrap

    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(RESULTS.glob("learning-*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        runs[result["arm"]].append(result)

    def by_prompt(results: list[dict[str, Any]], when: str) -> list[float]:
        rows = [r[when]["gold_by_prompt"] for r in results]
        return [sum(column) / len(column) for column in zip(*rows, strict=True)]

    def shown(values: list[float], sign: str = "") -> str:
        mean, low, high = bootstrap(values)
        return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

    print("| arm | seeds | labels per run | gold before | gold after | gain | finished | words kept distinct | KL |")
    print("|---|---|---|---|---|---|---|---|---|")
    after: dict[str, list[float]] = {}
    drawn: list[tuple[str, tuple[float, float, float], tuple[float, float, float]]] = []
    for arm in (a for a in ARMS if a in runs):
        results = runs[arm]
        first, last = by_prompt(results, "before"), by_prompt(results, "after")
        after[arm] = last
        drawn.append((f"{arm} ({len(results)} seed{'s' * (len(results) > 1)})", bootstrap(first), bootstrap(last)))
        gain = [b - a for a, b in zip(first, last, strict=True)]

        def mean(key: str, when: str, results: list[dict[str, Any]] = results) -> float:
            return sum(r[when][key] for r in results) / len(results)

        finished = f"{mean('finished', 'before'):.2f} → {mean('finished', 'after'):.2f}"
        distinct = f"{mean('distinct_2', 'before'):.2f} → {mean('distinct_2', 'after'):.2f}"
        cells = [arm, len(results), results[0]["labels"], shown(first), shown(last), shown(gain, "+")]
        print(
            "| " + " | ".join(map(str, [*cells, finished, distinct, f"{mean('kl_per_sequence', 'after'):.1f}"])) + " |"
        )
    (ROOT / "benchmarks" / "pictures").mkdir(exist_ok=True)
    (ROOT / "benchmarks" / "pictures" / "learning.svg").write_text(picture(drawn), encoding="utf-8")
    for recipe in ("ppo", "grpo"):
        if recipe in after and f"{recipe}_frozen" in after:
            difference = [a - b for a, b in zip(after[recipe], after[f"{recipe}_frozen"], strict=True)]
            print(f"\n{recipe}: alternating refits − frozen reward model, gold after: {shown(difference, '+')}")


def picture(arms: list[tuple[str, tuple[float, float, float], tuple[float, float, float]]]) -> str:
    """Gold before (grey) and after (blue) with their intervals, a row for each arm, as an SVG."""
    row, left, width = 46, 190, 460
    height = row * len(arms) + 56
    ends = [v for _, *both in arms for interval in both for v in interval]
    low, high = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20

    def x(value: float) -> float:
        return left + width * (value - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 30} {height}" font-family="sans-serif" '
        f'font-size="14" fill="#334155"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for n in range(round((high - low) / 0.05) + 1):
        at = low + 0.05 * n
        parts.append(f'<path d="M{x(at):.1f} 34V{height - 10}" stroke="#e2e8f0"/>')
        parts.append(f'<text x="{x(at):.1f}" y="24" text-anchor="middle">{at:.2f}</text>')
    for n, (name, before, after) in enumerate(arms):
        middle = 56 + row * n
        parts.append(f'<text x="{left - 14}" y="{middle + 5}" text-anchor="end">{name}</text>')
        for (mean, below, above), y, colour in ((before, middle - 8, "#94a3b8"), (after, middle + 8, "#4f46e5")):
            parts.append(f'<path d="M{x(below):.1f} {y}H{x(above):.1f}" stroke="{colour}" stroke-width="3"/>')
            parts.append(f'<circle cx="{x(mean):.1f}" cy="{y}" r="6" fill="{colour}"/>')
    return "\n".join(parts) + "</svg>\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="one run")
    one.add_argument("arm", choices=ARMS)
    one.add_argument("seed", type=int)
    commands.add_parser("table", help="what the finished runs say")
    options = parser.parse_args()
    if options.command == "run":
        run(options.arm, options.seed)
    else:
        table()


if __name__ == "__main__":
    main()
