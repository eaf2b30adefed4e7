"""The reward model on real human comparisons, beside "the longer one wins" and TRL's RewardTrainer.

    python benchmarks/human_comparisons.py --data FILE.jsonl.gz [--trl --trl-python PYTHON]

FILE is imported as it is (HH-RLHF's rows, or any other pairs that `prefloop import` reads) into a store of its own,
which splits it by how a conversation opens: no prompt and no opening message is in both parts, and the test part is
the same conversations whatever --train asks for. With --validate the test part stays unread: training and measuring
share the train part, again split by openings; this is for choosing settings.

Both arms get the same pairs in the same order, shortened before either sees them, and the same start (the backbone
and a head of zeros), steps, optimiser, learning rates and schedule; all weights are trained, in float32. They run at
the same time with one thread each, so that whatever else the machine does slows both. They differ in what they are:
Prefloop reads a slate as one row, the prompt once, and scores at the end-of-turn token; TRL reads two sequences and
scores at the line break that follows this token in the chat template.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

# ruff: noqa: E402 - torch reads its threads when it is imported, and the packages lie beside this folder
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch

from labeling.exchange import EVEN, import_file, leads
from labeling.exchange_lines import pair_line
from labeling.intervals import Interval, bootstrap
from labeling.jsonl import write_objects
from labeling.records import LabeledSlate, Preference, UserError
from labeling.store import Store
from rlhf.backbones import EMBEDDED, Backbone, encode_messages, encode_response, load_backbone
from rlhf.random_streams import stream_seed, torch_stream
from rlhf.reward_model import make_reward_model, score_groups
from rlhf.reward_training import Accuracy, Example, Fit, compare, encode_slate, fit, rate_factor

TEST_SHARE = 0.4
VALIDATION_SHARE = 0.3
COLUMNS = (
    "accuracy [95 % CI]",
    "log-loss",
    "ECE",
    "r(score, length)",
    "tokens trained on",
    "CPU s to train",
    "CPU s to score",
    "wall s",
    "peak GB",
)
LINE_BREAK = 1  # the token that chat templates put behind the end of a turn, which TRL's sequences have


@dataclass(frozen=True)
class Plan:
    """What is run. context: the most tokens of a prompt and its longer response."""

    data: Path
    model: str = EMBEDDED
    train: int = 500
    test: int = 400
    validate: bool = False
    context: int = 256
    fit: Fit = field(default_factory=lambda: Fit(learning_rate=3e-5, head_learning_rate=1e-3, slates_per_step=4))
    seed: int = 0
    trl_python: str | None = None


@dataclass(frozen=True)
class Parts:
    """The pairs of both parts. left_out: how many lines or pairs were not used, by reason."""

    train: tuple[LabeledSlate, ...]
    test: tuple[LabeledSlate, ...]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Arm:
    """What came of one way to predict the test pairs. leads: (P,) score of the chosen minus that of the rejected."""

    accuracy: Accuracy
    leads: tuple[float, ...]
    tokens: int = 0
    training: float = 0.0
    scoring: float = 0.0
    wall: float = 0.0
    peak_bytes: int = 0


def read_parts(plan: Plan, backbone: Backbone) -> Parts:
    """Import the file, split it by openings, shorten its dialogues and draw both parts."""
    left_out: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as project:
        store = Store(project, create=True)
        report = import_file(store, plan.data, heldout_share=TEST_SHARE)
        left_out.update(reason for _, reason in report.skipped)
        pools = [store.labeled_slates(split="train"), [] if plan.validate else store.labeled_slates(split="heldout")]
    decided = [list(_decided(pool, left_out)) for pool in pools]
    if plan.validate:
        decided = _cut(decided[0], plan.seed)
    train, test = (
        _draw(pool, wanted, part, plan, backbone, left_out)
        for pool, wanted, part in zip(decided, (plan.train, plan.test), ("train", "test"), strict=True)
    )
    # Whole steps only, so that epochs written one after another make the same steps in both arms.
    whole = len(train) - len(train) % plan.fit.slates_per_step
    if not whole or not test:
        raise UserError(f"{plan.data}: too few usable pairs ({len(train)} to train on, {len(test)} to test on)")
    return Parts(train[:whole], test, dict(left_out))


def opening(labeled: LabeledSlate) -> str:
    """How the conversation begins: pairs with the same opening are never on both sides of a split."""
    return next((m.content for m in labeled.slate.prompt.messages if m.role == "user"), "")


def _decided(pool: Sequence[LabeledSlate], left_out: Counter[str]) -> Iterator[LabeledSlate]:
    """Slates as one winner and one loser each, which is all that the other trainer can read."""
    for labeled in pool:
        lead = sum(lead for _, _, lead in leads(labeled))
        if len(labeled.slate.candidates) > 2:
            left_out["more than two candidates"] += 1
        elif abs(lead) <= EVEN:
            left_out["nobody came out ahead"] += 1
        else:
            yield replace(labeled, preferences=(Preference(labeled.slate.id, 0, 1, float(lead > 0)),))


def _cut(pool: Sequence[LabeledSlate], seed: int) -> list[list[LabeledSlate]]:
    openings = sorted({opening(labeled) for labeled in pool})
    random.Random(stream_seed(seed, "validation")).shuffle(openings)
    held = set(openings[: round(len(openings) * VALIDATION_SHARE)])
    return [[labeled for labeled in pool if (opening(labeled) in held) == side] for side in (False, True)]


def _draw(
    pool: Sequence[LabeledSlate], wanted: int, part: str, plan: Plan, backbone: Backbone, left_out: Counter[str]
) -> tuple[LabeledSlate, ...]:
    """The first `wanted` pairs of a seeded shuffle that fit into the context."""
    shuffled = sorted(pool, key=lambda labeled: labeled.slate.id)
    random.Random(stream_seed(plan.seed, part)).shuffle(shuffled)
    drawn: list[LabeledSlate] = []
    for labeled in shuffled:
        if len(drawn) == wanted:
            break
        short = shorten(labeled, backbone, min(plan.context, backbone.context))
        if short is None:
            left_out["too long even without its earlier turns"] += 1
        else:
            drawn.append(short)
    return tuple(drawn)


def shorten(labeled: LabeledSlate, backbone: Backbone, context: int) -> LabeledSlate | None:
    """Leave out as many of the oldest turns as must go; None if the last message and a response are too long alone."""
    prompt = labeled.slate.prompt
    longest = max(len(encode_response(backbone, c.text, c.finished)) for c in labeled.slate.candidates)
    for start, message in enumerate(prompt.messages):
        if message.role == "user":
            kept = prompt.messages[start:]
            told = encode_messages(backbone, [{"role": m.role, "content": m.content} for m in kept])
            if len(told) + longest + LINE_BREAK <= context:
                return replace(labeled, slate=replace(labeled.slate, prompt=replace(prompt, messages=kept)))
    return None


def train_prefloop(plan: Plan, backbone: Backbone, train: Sequence[Example], test: Sequence[Example]) -> Arm:
    """Fit Prefloop's reward model and score the test pairs."""
    model = make_reward_model(backbone, "full", lora_rank=0)
    with stopwatch() as training:
        fit(model, train, plan.fit, backbone.pad_id, torch_stream(plan.seed, "order"), _progress)
    with stopwatch() as scoring:
        scores = score_groups(model, [e.group for e in test], backbone.pad_id, plan.fit.token_budget)
    return arm_of(
        scores,
        test,
        tokens=plan.fit.epochs * sum(e.group.tokens for e in train),
        training=training["cpu_seconds"],
        scoring=scoring["cpu_seconds"],
        wall=training["seconds"] + scoring["seconds"],
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def arm_of(scores: torch.Tensor, examples: Sequence[Example], **costs: Any) -> Arm:
    """An arm from (2P,) scores of the examples' candidates."""
    by_pair = scores.reshape(-1, 2)
    lead = [float((pair[0] - pair[1]) * _sign(e)) for pair, e in zip(by_pair, examples, strict=True)]
    return Arm(compare(scores, examples), tuple(lead), **costs)


def _sign(example: Example) -> int:
    return 1 if example.preferences[0].p > 0.5 else -1


def longer_wins(examples: Sequence[Example]) -> Arm:
    """The rule that knows nothing: a response's score is its length in tokens."""
    return arm_of(torch.tensor([float(len(c)) for e in examples for c in e.group.candidates]), examples)


def write_job(folder: Path, plan: Plan, parts: Parts) -> None:
    """What the other trainer needs to do the same: pairs in the order in which `fit` sees them, and settings."""
    generator = torch_stream(plan.seed, "order")
    orders = [torch.randperm(len(parts.train), generator=generator).tolist() for _ in range(plan.fit.epochs)]
    steps = plan.fit.epochs * len(parts.train) // plan.fit.slates_per_step
    write_objects(folder / "train.jsonl", [_chosen_rejected(parts.train[i]) for order in orders for i in order])
    write_objects(folder / "test.jsonl", map(_chosen_rejected, parts.test))
    job = {
        "pairs_per_step": plan.fit.slates_per_step,
        "learning_rate": plan.fit.learning_rate,
        "head_learning_rate": plan.fit.head_learning_rate,
        "weight_decay": plan.fit.weight_decay,
        "max_grad_norm": plan.fit.max_grad_norm,
        "centring": plan.fit.centring,
        "schedule": [rate_factor(step, steps) for step in range(steps)],
        "seed": plan.seed,
    }
    (folder / "job.json").write_text(json.dumps(job))


def _chosen_rejected(labeled: LabeledSlate) -> dict[str, Any]:
    one, other = labeled.slate.candidates
    won = labeled.preferences[0].p > 0.5
    return pair_line(labeled.slate.prompt, *((one, other) if won else (other, one)))


@contextmanager
def trl_running(plan: Plan, backbone: Backbone, parts: Parts) -> Iterator[Any]:
    """Start TRL's arm in its own process; yields a function that waits for its result."""
    if plan.trl_python is None:
        yield lambda: None
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_job(folder, plan, parts)
        backbone.model.save_pretrained(folder / "model")
        backbone.tokenizer.save_pretrained(folder / "model")
        script = str(Path(__file__).with_name("human_comparisons_trl.py"))
        with (folder / "log").open("w+") as log:
            process = subprocess.Popen([plan.trl_python, script, name], stdout=log, stderr=subprocess.STDOUT)

            def result() -> dict[str, Any]:
                if process.wait():
                    log.seek(0)
                    reason = (log.read().strip().splitlines() or ["no reason given"])[-1]
                    raise UserError(f"{plan.trl_python}: TRL's arm failed: {reason}; it needs trl, torch, transformers")
                return json.loads((folder / "scores.json").read_text())

            try:
                yield result
            finally:
                process.kill()
                process.wait()


def read_trl(found: dict[str, Any], examples: Sequence[Example]) -> Arm:
    """TRL's scores, [chosen, rejected] of each pair, put back into the order of the candidates."""
    ordered = [pair if _sign(e) > 0 else pair[::-1] for pair, e in zip(found["scores"], examples, strict=True)]
    return arm_of(
        torch.tensor(ordered).reshape(-1),
        examples,
        tokens=found["tokens"],
        training=found["training"]["cpu_seconds"],
        scoring=found["scoring"]["cpu_seconds"],
        wall=found["training"]["seconds"] + found["scoring"]["seconds"],
        peak_bytes=found["peak_bytes"],
    )


@contextmanager
def stopwatch() -> Iterator[dict[str, float]]:
    taken: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield taken
    taken |= {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def _progress(done: int, total: int) -> None:
    if done % max(1, total // 20) == 0:
        print(f"step {done} of {total}", file=sys.stderr, flush=True)


def difference(one: Arm, other: Arm) -> Interval:
    """How much more often `one` is right than `other`, paired by test pair."""
    hits = [[0.5 * ((lead > 0) + (lead >= 0)) for lead in arm.leads] for arm in (one, other)]
    return bootstrap([a - b for a, b in zip(*hits, strict=True)])


def run(plan: Plan) -> tuple[Parts, dict[str, Arm]]:
    """Run all arms. Raises UserError for what the user can mend."""
    backbone = load_backbone(plan.model, plan.seed)
    parts = read_parts(plan, backbone)
    train, test = ([encode_slate(backbone, labeled) for labeled in part] for part in (parts.train, parts.test))
    with trl_running(plan, backbone, parts) as trl_result:
        arms = {"Prefloop": train_prefloop(plan, backbone, train, test)}
        if found := trl_result():
            arms[f"TRL {found['version']}"] = read_trl(found, test)
    return parts, {**arms, "longer wins": longer_wins(test)}


def report(plan: Plan, parts: Parts, arms: dict[str, Arm]) -> Iterator[str]:
    """The figures as lines of Markdown."""
    part = "validation (cut from the train part)" if plan.validate else "test"
    yield f"{len(parts.train)} pairs to train on, {len(parts.test)} pairs of {part}; seed {plan.seed}; {plan.fit}"
    yield "; ".join(f"left out: {n} × {why}" for why, n in parts.left_out.items())
    packages = ("torch", "transformers", "peft")
    yield f"Python {platform.python_version()}, {', '.join(f'{p} {version(p)}' for p in packages)}\n"
    yield "| | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (len(COLUMNS) + 1) + "|"
    for name, arm in arms.items():
        a = arm.accuracy
        right = f"{a.accuracy:.1%} [{a.low:.1%}, {a.high:.1%}]"
        if not arm.tokens:
            yield f"| {name} | {right} | | | {a.length_correlation:.2f} | | | | | |"
            continue
        costs = f"{arm.tokens} | {arm.training:.0f} | {arm.scoring:.0f} | {arm.wall:.0f} | {arm.peak_bytes / 1e9:.2f}"
        yield f"| {name} | {right} | {a.log_loss:.3f} | {a.ece:.3f} | {a.length_correlation:.2f} | {costs} |"
    ours, *others = arms.items()
    for name, arm in others:
        gap = difference(ours[1], arm)
        yield f"\n{ours[0]} − {name}: {gap.mean:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}], paired"
        if arm.tokens:
            ratios = {
                "tokens": arm.tokens / ours[1].tokens,
                "CPU seconds to train": arm.training / ours[1].training,
                "CPU seconds to score": arm.scoring / ours[1].scoring,
                "peak memory": arm.peak_bytes / ours[1].peak_bytes,
            }
            yield f"{name} / {ours[0]}: " + ", ".join(f"{what} {ratio:.2f}" for what, ratio in ratios.items())


def read_plan(arguments: Sequence[str] | None) -> Plan:
    """The command line as a plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    default = Plan(Path())
    parser.add_argument("--data", type=Path, required=True, help="pairs, .jsonl or .jsonl.gz, such as HH-RLHF's rows")
    parser.add_argument("--model", default=default.model)
    parser.add_argument("--train", type=int, default=default.train, help="pairs to train on")
    parser.add_argument("--test", type=int, default=default.test, help="pairs to measure on")
    parser.add_argument("--epochs", type=int, default=default.fit.epochs)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--context", type=int, default=default.context, help="tokens of a prompt and its response")
    parser.add_argument("--learning-rate", type=float, default=default.fit.learning_rate)
    parser.add_argument("--head-learning-rate", type=float, default=default.fit.head_learning_rate)
    parser.add_argument("--slates-per-step", type=int, default=default.fit.slates_per_step)
    parser.add_argument("--validate", action="store_true", help="measure on a part of the train part, not on the test")
    parser.add_argument("--trl", action="store_true", help="also run TRL's RewardTrainer")
    parser.add_argument("--trl-python", default=sys.executable, help="the Python that has trl")
    told = vars(parser.parse_args(arguments))
    trl_python = told.pop("trl_python")
    named = {name: told.pop(name) for name in ("epochs", "learning_rate", "head_learning_rate", "slates_per_step")}
    wanted = trl_python if told.pop("trl") else None
    return Plan(**told, fit=replace(default.fit, **named), trl_python=wanted)


def main(arguments: Sequence[str] | None = None) -> None:
    plan = read_plan(arguments)
    try:
        for line in report(plan, *run(plan)):
            print(line)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
