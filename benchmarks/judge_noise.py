"""A judge with planted faults: is it measured as what it is, and does training on what was measured help?

    python benchmarks/judge_noise.py measure [SEEDS]     # 100 projects: planted values against their intervals
    python benchmarks/judge_noise.py train JUDGE [SEEDS] # planted, graded or coin; 10 projects: held-out gold by arm
    python benchmarks/judge_noise.py winrates [RUNS]     # 2,000 draws each: do intervals of win rates cover?
    python benchmarks/judge_noise.py table

Each project holds SLATES pairs of answers with FEATURES numbers each, drawn anew, and a length. Gold is a hidden linear
function of the numbers and knows nothing of length. The judge `planted` is asked in both orders, and each verdict is
drawn: at 0.1 the answer shown first, at 0.2 the longer one, at 0.2 a coin, else the better one. `graded` gives chances
of A and B instead, which are too sure, and swayed by noise, length and place. `coin`, the control, tosses a coin.
Labels come about as those of any judge (`judges.orders.combine`), people answer its audit (`prefloop judge --audit`)
and are always right, and everything else is what the product does. `measure` counts how often 95 % intervals hold the
planted values; that of the accuracy of the judge's labels follows from the others.

`train` fits the reward model of the tests (an ensemble of small networks on the numbers and the length, with the one
Bradley–Terry loss), and says in which share of UNSEEN other pairs it puts the better answer first. Arms differ in the
preferences alone: `people` (the audit and nothing else), `naive` (all labels as they are), `flip_rate` (the product's
default: one flip rate for the judge, as its audit shows it), `temperature` and `isotonic` (the setting `calibration`),
`isotonic_target` (the calibrated probability as the target of the loss, as soft labels are often used), and `gold` (the
truth of every pair).

`winrates` draws judged slates of two policies, a judge that is right at 0.8 and else wrong, and at 0.15 names the first
policy whatever is true, and an audit; it says how often 95 % intervals of the judge, of people and of both together
hold the true win rate, and how wide they are. Results: benchmarks/results/judge_noise-*.json.
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

# ruff: noqa: E402 - the packages lie beside this folder
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from judges.asking_people import audit
from judges.batch import make_label
from judges.calibration import calibrate, truth_of
from judges.orders import combine
from judges.reply import Reply, kept
from labeling.agreement import answers_of
from labeling.intervals import Interval, bootstrap
from labeling.prediction_powered import power_tuned
from labeling.preferences import expand_all
from labeling.quality import reliabilities
from labeling.records import Annotator, Candidate, JudgeCall, Label, Message, Preference, Prompt, Slate
from labeling.store import Store
from rlhf.control.segment_model import SegmentModel
from rlhf.control.segment_training import SegmentFit, fit_segments, gather

SLATES, AUDIT, UNSEEN = 400, 0.15, 2000
FEATURES = 8
UPDATES = 300
JUDGE, PERSON = Annotator("judge:planted", "judge"), Annotator("human:person", "human")
WIN_RATES = ((1000, 0.05, 0.55), (1000, 0.1, 0.5), (500, 0.2, 0.8), (2000, 0.02, 0.9), (5000, 0.1, 0.6))
ARMS = ("people", "naive", "flip_rate", "temperature", "isotonic", "isotonic_target", "gold")


@dataclass(frozen=True)
class Planted:
    """Shares of a judge's verdicts that follow the first place, the length and a coin; the rest is right.

    graded: it gives chances instead, of logit 3·(lead + length·(lead in length) + noise·N(0, 1)) + place.
    """

    place: float
    length: float
    noise: float
    graded: bool = False

    @property
    def truth(self) -> float:
        return 1 - self.place - self.length - self.noise

    def verdict(self, chance: np.random.Generator, longer: int, better: int) -> int:
        """+1 for the answer shown first, −1 for the second; longer, better: likewise."""
        kind = chance.choice(4, p=[self.place, self.length, self.noise, self.truth])
        return (1, longer, int(chance.choice([1, -1])), better)[kind]


JUDGES = {
    "planted": Planted(0.1, 0.2, 0.2),
    "graded": Planted(0.5, 0.5, 1.0, graded=True),
    "coin": Planted(0.0, 0.0, 1.0),
}


@dataclass(frozen=True)
class World:
    """A project, its pairs' (2, FEATURES + 1) features by slate, and the hidden direction of gold."""

    store: Store
    features: Mapping[str, np.ndarray]
    direction: np.ndarray

    def better(self, slate: str) -> int:
        """+1 where the first answer is better, −1 where the second is."""
        first, second = self.features[slate] @ self.direction
        return 1 if first > second else -1


def pair(chance: np.random.Generator, name: str) -> tuple[Slate, np.ndarray]:
    """A pair and its features: numbers, and the length in units of its spread."""
    lengths = chance.integers(40, 400, 2)
    slate = Slate(
        Prompt((Message("user", name),)), tuple(Candidate(f"{n}" + "x" * int(k)) for n, k in enumerate(lengths))
    )
    return slate, np.column_stack([chance.normal(size=(2, FEATURES)), (lengths - 220) / 104]).astype(np.float32)


def make_world(folder: Path, seed: int, planted: Planted) -> World:
    """A project in which the judge answered everything, and people its audit."""
    chance = np.random.default_rng([seed, 0])
    store = Store(folder, create=True)
    direction = np.append(chance.normal(size=FEATURES), 0.0)
    made = [pair(chance, f"{seed} {n}") for n in range(SLATES)]
    world = World(store, {slate.id: features for slate, features in made}, direction)
    for annotator in (JUDGE, PERSON):
        store.add_annotator(annotator)
    with store.writing():
        store.add_slates(slate for slate, _ in made)
        for slate, features in made:
            judge(world, slate, features, planted, chance)
        requests = list(audit(JUDGE.id, AUDIT, store))
        store.request_people(requests)
        for request in requests:
            ranks = (1, 2) if world.better(request.slate_id) > 0 else (2, 1)
            store.add_labels([Label(request.slate_id, PERSON.id, "ranked", f"person {request.slate_id}", ranks)])
    return world


def judge(world: World, slate: Slate, features: np.ndarray, planted: Planted, chance: np.random.Generator) -> None:
    """The judge's two replies in its ledger, and its label from them."""
    lead = float((features[0] - features[1]) @ world.direction) / 4 + planted.noise * chance.normal()
    longer, better = int(np.sign(features[0, -1] - features[1, -1])), world.better(slate.id)
    replies = []
    for order, side in (((0, 1), 1), ((1, 0), -1)):
        if planted.graded:
            logit = 3 * side * (lead + planted.length * float(features[0, -1] - features[1, -1])) + planted.place
            a = 1 / (1 + np.exp(-logit))
            reply = Reply(order, "[[A]]" if a > 0.5 else "[[B]]", chances={"A": a, "B": 1 - a, "TIE": 0.0})
        else:
            says = planted.verdict(chance, side * longer, side * better)
            reply = Reply(order, "[[A]]" if says > 0 else "[[B]]")
        call = JudgeCall(f"{slate.id} {order}", JUDGE.id, slate.id, "unsettled")
        world.store.reserve_call(call)
        world.store.settle_call(JudgeCall(call.key, JUDGE.id, slate.id, "label", kept([reply])))
        replies.append(reply)
    world.store.add_labels([make_label(JUDGE, slate, combine(replies, 0.0), None)])


# Measuring


def accuracy_of_labels(planted: Planted) -> float:
    """The share of right ones among a judge's decisive labels: both verdicts name the same answer.

    By symmetry take the first answer to be better. It is named by a verdict when it stands first with probability
    place + noise/2 + truth + length·[longer], when it stands second with place left out.
    """
    right = wrong = 0.0
    for longer in (0.0, 1.0):
        named = planted.noise / 2 + planted.truth + planted.length * longer
        right += (planted.place + named) * named
        wrong += (1 - planted.place - named) * (1 - named)
    return right / (right + wrong)


def measure(seeds: Sequence[int], planted: Planted = JUDGES["planted"]) -> dict[str, Any]:
    """How often each planted value lies within its interval, and the mean of what was measured."""
    true = {"place": planted.place, "length": planted.length, "truth": planted.truth, "noise": planted.noise}
    true |= {"accuracy": accuracy_of_labels(planted)}
    true |= {"flip_rate": 2 * (1 - true["accuracy"])}
    found: dict[str, list[Interval]] = {name: [] for name in true}
    for world in worlds(seeds, planted):
        for name, interval in measured(world.store).items():
            found[name].append(interval)
    rows = {}
    for name, value in true.items():
        inside = [i.low <= value <= i.high for i in found[name]]
        means = bootstrap([i.mean for i in found[name]])
        rows[name] = {"planted": value, "measured": means, "inside": float(np.mean(inside))}
    return rows


def measured(store: Store) -> dict[str, Interval]:
    """What the product says of the judge, by its audit."""
    labels, audits = store.labels(), store.audits()
    people = truth_of(answers_of(label for label in labels if label.annotator == PERSON.id), {})
    bias = calibrate(
        JUDGE.id, store, {pair: side for pair, side in people.items() if pair.slate_id in audits[JUDGE.id]}
    ).bias
    r = reliabilities(labels, store.annotators(), {}, audits)[JUDGE.id]
    accuracy = Interval(r.accuracy, r.low, r.high)
    flips = Interval(r.flip_rate, 2 * (1 - r.high), 2 * (1 - r.low))
    shares = {name: getattr(bias, name) for name in ("place", "length", "truth", "noise")}
    return {**shares, "accuracy": accuracy, "flip_rate": flips}


def worlds(seeds: Sequence[int], planted: Planted) -> Iterator[World]:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            yield make_world(Path(folder) / "project", seed, planted)


# Training


def preferences(world: World, arm: str) -> dict[str, Sequence[Preference]]:
    """What each slate teaches in an arm."""
    store = world.store
    if arm == "gold":
        return {id: [Preference(id, 0, 1, float(world.better(id) > 0))] for id in world.features}
    if arm == "isotonic_target":
        calibrated = preferences(world, "isotonic")
        return {id: [as_target(p) for p in given] for id, given in calibrated.items()}
    if arm in ("flip_rate", "temperature", "isotonic"):
        store.set_settings({"calibration": "none" if arm == "flip_rate" else arm})
        return {labeled.slate.id: labeled.preferences for labeled in store.labeled_slates()}
    labels: dict[str, list[Label]] = {}
    for label in store.labels():
        if arm == "naive" or label.annotator == PERSON.id:
            labels.setdefault(label.slate_id, []).append(label)
    return {id: expand_all(given, store.annotators()) for id, given in labels.items()}


def as_target(p: Preference) -> Preference:
    """The probability that a preference with a flip rate amounts to, as the target of the loss."""
    return replace(p, p=(1 - p.flip_rate) * p.p + p.flip_rate / 2, flip_rate=0.0)


def held_out_accuracy(world: World, arm: str, seed: int) -> float:
    """Share of unseen pairs in which the reward model of an arm puts the better answer first."""
    taught = preferences(world, arm)
    data = gather([(id, list(world.features[id][:, None]), given) for id, given in taught.items()])
    torch.manual_seed(seed)
    model = SegmentModel(FEATURES + 1, 3, 16).eval()
    model.load_state_dict(fit_segments(model, data, (0.01,) * 3, SegmentFit(UPDATES, 3e-3, 32, seed, 1)).state)
    chance = np.random.default_rng([seed, 1])
    unseen = np.stack([pair(chance, f"unseen {n}")[1] for n in range(UNSEEN)])  # (UNSEEN, 2, FEATURES + 1)
    steps = torch.from_numpy(unseen.reshape(2 * UNSEEN, 1, -1))
    with torch.no_grad():
        scores = model.scores(steps, torch.ones(steps.shape[:2], dtype=torch.bool)).mean(0).numpy().reshape(UNSEEN, 2)
    gold = unseen @ world.direction
    return float(((scores[:, 0] > scores[:, 1]) == (gold[:, 0] > gold[:, 1])).mean())


def train(name: str, seeds: Sequence[int], arms: Sequence[str] = ARMS) -> dict[str, list[float]]:
    """Held-out accuracy of each arm, by seed."""
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    for seed, world in zip(seeds, worlds(seeds, JUDGES[name]), strict=True):
        for arm in arms:
            found[arm].append(held_out_accuracy(world, arm, seed))
    return found


# Win rates


def win_rates(runs: int) -> list[dict[str, Any]]:
    """Coverage and mean width of the three intervals in each setting of (judged slates, propensity, win rate)."""
    rows = []
    for judged, propensity, rate in WIN_RATES:
        found: dict[str, list[Interval]] = {"judge": [], "people": [], "both": []}
        for run in range(runs):
            chance = np.random.default_rng([run, judged])
            y = (chance.random(judged) < rate).astype(float)
            f = np.where(chance.random(judged) < 0.8, y, 1 - y)
            f = np.where(chance.random(judged) < 0.15, 1.0, f)
            weight = np.where(chance.random(judged) < propensity, 1 / propensity, 0.0)
            found["judge"].append(power_tuned(f, f, np.ones(judged))[0])
            found["people"].append(power_tuned(np.zeros(judged), y, weight)[0])
            found["both"].append(power_tuned(f, y, weight)[0])
        row: dict[str, Any] = {"judged": judged, "propensity": propensity, "rate": rate}
        for name, intervals in found.items():
            row[f"{name} covers"] = float(np.mean([i.low <= rate <= i.high for i in intervals]))
            row[f"{name} width"] = float(np.mean([i.high - i.low for i in intervals]))
        rows.append(row)
    return rows


# Results


def keep(name: str, result: Any) -> None:
    head = {"date": str(date.today()), "python": platform.python_version(), "torch": version("torch")}
    path = HERE / "results" / f"judge_noise-{name}.json"
    path.write_text(json.dumps(head | {"result": result}, indent=1) + "\n", encoding="utf-8")


def told(i: Sequence[float], signed: bool = False) -> str:
    shown = "{:+.3f} [{:+.3f}, {:+.3f}]" if signed else "{:.3f} [{:.3f}, {:.3f}]"
    return shown.format(*i)


def table() -> None:
    def read(name: str) -> Any:
        return json.loads((HERE / "results" / f"judge_noise-{name}.json").read_text())["result"]

    print("| value | planted | measured, mean over projects | planted value within its interval |")
    print("|---|---|---|---|")
    for name, row in read("measure").items():
        print(f"| {name} | {row['planted']:.3f} | {told(row['measured'])} | {row['inside']:.0%} |")
    print("\n| judged | audit | win rate | judge covers, width | people cover, width | both cover, width |")
    print("|---|---|---|---|---|---|")
    for row in read("winrates"):
        cells = " | ".join(f"{row[f'{by} covers']:.1%}, {row[f'{by} width']:.3f}" for by in ("judge", "people", "both"))
        print(f"| {row['judged']:,} | {row['propensity']:.0%} | {row['rate']} | {cells} |")
    for name in JUDGES:
        found = read(f"train-{name}")
        print(f"\n| {name} judge: arm | seeds | held-out accuracy | more than naive | more than people |")
        print("|---|---|---|---|---|")
        for arm, values in found.items():
            more = [told(bootstrap(np.subtract(values, found[other])), True) for other in ("naive", "people")]
            print(f"| `{arm}` | {len(values)} | {told(bootstrap(values))} | {more[0]} | {more[1]} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    match sys.argv[1:]:
        case ["measure", *seeds]:
            keep("measure", measure(range(int(seeds[0]) if seeds else 100)))
        case ["train", judge_name, *seeds]:
            keep(f"train-{judge_name}", train(judge_name, range(int(seeds[0]) if seeds else 10)))
        case ["winrates", *runs]:
            keep("winrates", win_rates(int(runs[0]) if runs else 2000))
        case ["table"]:
            table()
        case _:
            sys.exit(__doc__)
