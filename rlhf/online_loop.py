"""The online loop: sample → ask → refit the reward model → improve the policy → evaluate → checkpoint, again.

What learns is a `Subject`: a language model (`rlhf.language_subject`) or an agent (`rlhf.control.control_subject`). The
loop knows neither of them, nor store, judges or browser: whoever runs it hands in `Surroundings`. Each iteration's
randomness has its own named streams, so a resumed run goes on exactly as an uninterrupted one would have.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from labeling.records import Candidate, Label, LabeledSlate, Prompt, Slate, UserError, pairs
from rlhf.checkpoints import latest_checkpoint, refuse_if_started, save_checkpoint
from rlhf.diagnosis import Verdicts, diagnose
from rlhf.random_streams import python_stream
from rlhf.reward_training import Accuracy
from rlhf.run_config import LabelConfig

GoldFn = Callable[[Sequence[tuple[Prompt, Candidate]]], Sequence[float | None]]
Progress = Callable[[int, int], None]
# Opens a phase of an iteration under its name with a note; what it gives is told how far the phase is.
Report = Callable[[str, str], Any]


@dataclass(frozen=True)
class Surroundings:
    """What a loop needs from outside, as functions.

    ask(iteration, slates): have new slates labelled by every active source and return all labelled slates of the
    run so far, those labelled by people meanwhile included. gold(pairs): independent scores, for watching only.
    emit(iteration, kind, data): report an event. fitted(iteration, client_keys): these labels entered a fit.
    annotator_kind(annotator id): human, judge or oracle. trust(annotator ids): what their labels counted for in what
    `ask` gave last, a record each.
    """

    ask: Callable[[int, Sequence[Slate]], Sequence[LabeledSlate]]
    gold: GoldFn
    emit: Callable[[int, str, Mapping[str, Any]], None]
    fitted: Callable[[int, Sequence[str]], None]
    annotator_kind: Callable[[str], str]
    trust: Callable[[Collection[str]], Sequence[Mapping[str, Any]]]


class Refits(Protocol):
    """What the loop reads of a reward model's settings: see `rlhf.run_config.RewardModelConfig`."""

    @property
    def refit(self) -> str:
        """ "every" or "first"."""

    @property
    def replay(self) -> float:
        """Slates fitted earlier that each new one is mixed with."""


class LoopConfig(Protocol):
    """What the loop reads of a run file, whoever learns."""

    @property
    def name(self) -> str:
        """Of the run."""

    @property
    def seed(self) -> int:
        """Of all its randomness."""

    @property
    def iterations(self) -> int:
        """Its length."""

    @property
    def keep_checkpoints(self) -> int:
        """How many of them stay."""

    @property
    def labels(self) -> LabelConfig:
        """What is asked, and who answers."""

    @property
    def reward_model(self) -> Refits:
        """How often the reward model is fitted, and on what."""

    @property
    def needs_labels(self) -> bool:
        """Whether what learns is rewarded by what labels say."""


@dataclass(frozen=True)
class Improved:
    """What an update did. figures: of the update. proxy, gold: mean scores of what was learned from."""

    figures: Mapping[str, float]
    proxy: float | None
    gold: float | None


class Subject(Protocol):
    """Whatever learns from comparisons. Its methods are called in this order, once in each iteration.

    fits_beside_updates: a refit may run while the policy is updated with the reward model before it.
    verdicts: what to call what the figures say about the run.
    """

    fits_beside_updates: bool
    verdicts: Verdicts

    def sample(self, iteration: int, asked: int, held: int, report: Report) -> None:
        """Make what this iteration asks about (`asked` slates, `held` of them held out) and learns from."""

    def slates(self, iteration: int, asked: int, held: int, reward_model: str) -> Sequence[Slate]:
        """That many slates to ask about, on either split. reward_model: its version, empty before the first fit."""

    def begin_fit(
        self, iteration: int, chosen: Sequence[LabeledSlate], afresh: bool, progress: Progress
    ) -> Callable[[], float]:
        """Refit the reward model on labelled slates; calling the result ends the fit and gives its train loss.

        afresh: from an untrained one, so that nothing of earlier fits is left.
        """

    def predict(self, labeled: Sequence[LabeledSlate]) -> Sequence[Sequence[float]]:
        """Raw scores of each slate's candidates by the reward model as it is."""

    def measure(self, held: Sequence[LabeledSlate]) -> Accuracy:
        """How the reward model does on labelled slates that it never learns from."""

    def improve(self, iteration: int, report: Report) -> Improved:
        """Update the policy on the predicted reward."""

    def evaluate(self, iteration: int, figures: Mapping[str, float], report: Report) -> Mapping[str, Any]:
        """The policy on what it never learns from, after an update with those figures: gold, proxy and more."""

    def state(self) -> dict[str, Any]:
        """All that was learned, for a checkpoint."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""

    def close(self) -> None:
        """Let go of processes and whatever else is held."""


@dataclass
class LoopState:
    """One run between two iterations.

    fits: refits so far. fitted: client_keys of all labels that a fit was given. history: the figures of each iteration.
    """

    iteration: int = 0
    fits: int = 0
    fitted: set[str] = field(default_factory=set)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Loop:
    """One run: what it was told, what surrounds it, what learns, and how far it has come."""

    config: LoopConfig
    around: Surroundings
    folder: Path
    subject: Subject
    state: LoopState

    @property
    def reward_version(self) -> str:
        """The name of the reward model as it is now; empty before the first fit."""
        return f"{self.config.name}/fit-{self.state.fits}" if self.state.fits else ""


def run_loop(
    config: LoopConfig,
    what: str,
    make_subject: Callable[[], Subject],
    around: Surroundings,
    folder: Path,
    resume: bool = False,
) -> LoopState:
    """Go through the iterations of a run that are left, each ending with a checkpoint in `folder`.

    what: the name of what `make_subject` loads. Raises UserError for a run that exists while `resume` is false, and all
    that the subject's methods raise.
    """
    if not resume:
        refuse_if_started(folder, config.name)
    report = partial(phase, around)
    with report(0, "load", what):
        subject, state = make_subject(), LoopState()
        found = latest_checkpoint(folder)
        if found is not None:
            state.iteration, data = found
            state.fits, state.fitted, state.history = data["fits"], set(data["fitted"]), data["history"]
            subject.restore(data)
    loop = Loop(config, around, folder, subject, state)
    if found is None:
        before = subject.evaluate(0, {}, partial(report, 0))
        state.history.append({"evaluation": before})
        around.emit(0, "evaluation", before)
    while state.iteration < config.iterations:
        _iterate(loop, state.iteration + 1)
    return state


@contextmanager
def phase(around: Surroundings, iteration: int, name: str, note: str = "") -> Iterator[Progress]:
    """Report the start, the progress (at most twice a second) and the end of a phase."""
    began = reported = time.monotonic()

    def report(state: str, done: int, total: int) -> None:
        seconds = time.monotonic() - began
        data = {"phase": name, "state": state, "done": done, "total": total, "seconds": seconds, "note": note}
        around.emit(iteration, "phase", data)

    def progress(done: int, total: int) -> None:
        nonlocal reported
        if time.monotonic() - reported >= 0.5:
            reported = time.monotonic()
            report("progress", done, total)

    report("start", 0, 1)
    yield progress
    report("end", 1, 1)


def _iterate(loop: Loop, iteration: int) -> None:
    """One iteration, from samples to checkpoint."""
    around, state, subject = loop.around, loop.state, loop.subject
    began = time.monotonic()
    report = partial(phase, around, iteration)
    asked, held = slate_counts(loop.config, iteration)
    subject.sample(iteration, asked, held, report)
    with report("label", "asking every active source"):
        slates = subject.slates(iteration, asked, held, loop.reward_version)
        labeled = around.ask(iteration, slates)

    end_fit = _begin_fit(loop, iteration, labeled, report)
    beside = subject.fits_beside_updates and state.fits > 0
    fitted = {} if beside else end_fit()
    improved = subject.improve(iteration, report)
    fitted = end_fit() if beside else fitted
    around.emit(iteration, "update", improved.figures)

    after = subject.evaluate(iteration, improved.figures, report)
    around.emit(iteration, "evaluation", after)
    row: dict[str, Any] = {
        "proxy_train": improved.proxy,
        "gold_train": improved.gold,
        "proxy_heldout": after["proxy"],
        "gold_heldout": after["gold"],
        **{key: after[key] for key in ("kl_per_sequence", "environment_steps") if key in after},
        "reward_model_accuracy": fitted["heldout_accuracy"],
        "labels": sum(len(s.labels) for s in labeled),
        "seconds": time.monotonic() - began,
    }
    state.history.append({"evaluation": after, "iteration": row})
    row["verdict"] = diagnose([h["iteration"] for h in state.history if "iteration" in h], subject.verdicts)
    state.iteration = iteration
    # Before the checkpoint: an iteration killed in between is done and told again; after it, it might never be told.
    around.emit(iteration, "iteration", row)
    with report("checkpoint", ""):
        kept = {"fits": state.fits, "fitted": sorted(state.fitted), "history": state.history}
        save_checkpoint(loop.folder, iteration, subject.state() | kept, loop.config.keep_checkpoints)


def slate_counts(config: LoopConfig, iteration: int) -> tuple[int, int]:
    """How many slates to ask about, on train and on held-out prompts; none once the reward model is frozen."""
    labels = config.labels
    if iteration > 1 and config.reward_model.refit == "first":
        return 0, 0
    asked = labels.asked(iteration, config.iterations)
    if iteration == 1:
        held = min(round(asked * labels.heldout_share), asked - 1)
        return asked - held, held
    # Rounded sums over the run, so that a small share of a few slates is still kept.
    before = sum(labels.asked(i, config.iterations) for i in range(1, iteration))
    held = round((before + asked) * labels.heldout_share) - round(before * labels.heldout_share)
    return asked - held, held


def _begin_fit(
    loop: Loop, iteration: int, labeled: Sequence[LabeledSlate], report: Report
) -> Callable[[], dict[str, Any]]:
    """Refit on every train slate with a label that no fit was given yet, beside a replay of others.

    Where labels that a fit was given no longer stand (revoked, taken back, overruled), an untrained reward model is
    fitted to all that do, and the figures say what that changed.

    Returns the function that ends the fit, measures it, reports it and gives its figures.
    """
    config, state, settings = loop.config, loop.state, loop.config.reward_model
    train = [s for s in labeled if s.slate.prompt.split == "train" and s.preferences]
    held = [s for s in labeled if s.slate.prompt.split == "heldout"]
    fresh = [s for s in train if any(label.client_key not in state.fitted for label in _used([s]))]
    withdrawn = state.fitted - {label.client_key for s in labeled for label in s.labels}
    if not train and (withdrawn or not state.fits) and config.needs_labels:
        raise UserError(
            "no label to fit the reward model on: label some slates in the browser and go on with --resume, set "
            "labels.wait_for_humans, or name a judge in labels.judges"
        )
    chosen: list[LabeledSlate] = []
    finish: Callable[[], float] | None = None
    before: Sequence[Sequence[float]] = ()
    accuracy = math.nan
    if train and (withdrawn or (fresh and (settings.refit == "every" or not state.fits))):
        old = [s for s in train if s not in fresh]
        everything = withdrawn or math.isinf(settings.replay)
        count = len(old) if everything else min(len(old), round(settings.replay * len(fresh)))
        replay = python_stream(config.seed, iteration, "replay").sample(old, count)
        chosen = [*fresh, *replay]
        with report("fit", f"{len(fresh)} new slates, {len(replay)} replayed") as progress:
            if withdrawn:
                before, accuracy = loop.subject.predict(chosen), loop.subject.measure(held).accuracy
            finish = loop.subject.begin_fit(iteration, chosen, bool(withdrawn), progress)

    def end() -> dict[str, Any]:
        loss = finish() if finish else None
        state.fits += finish is not None
        used = _used(chosen)
        new = [label for label in used if label.client_key not in state.fitted]
        state.fitted = state.fitted - withdrawn | {label.client_key for label in new}
        loop.around.fitted(iteration, [label.client_key for label in used])
        found = loop.subject.measure(held)
        figures = {
            "slates": len(chosen),
            "pairs": sum(len(s.preferences) for s in chosen),
            "labels_by_kind": _by_kind(loop, used),
            "new_labels_by_kind": _by_kind(loop, new),
            "trust": loop.around.trust({label.annotator for label in used}),
            "train_loss": loss,
            "heldout_accuracy": _finite(found.accuracy),
            "heldout_accuracy_low": _finite(found.low),
            "heldout_accuracy_high": _finite(found.high),
            "heldout_log_loss": _finite(found.log_loss),
            "heldout_ece": _finite(found.ece),
            "heldout_length_correlation": _finite(found.length_correlation),
            "heldout_pairs": found.pairs,
            "reward_model": loop.reward_version,
        }
        if withdrawn:
            moved = changed_pairs(before, loop.subject.predict(chosen))
            figures |= {"withdrawn_labels": len(withdrawn), "changed_pairs": _finite(moved)}
            figures |= {"heldout_accuracy_before": _finite(accuracy)}
        loop.around.emit(iteration, "fit", figures)
        return figures

    return end


def changed_pairs(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> float:
    """The share of pairs of candidates whose order by score is another than before; NaN without any pair."""
    changed = total = 0
    for old, new in zip(before, after, strict=True):
        for i, j in pairs(len(old)):
            total += 1
            changed += (old[i] > old[j]) != (new[i] > new[j])
    return changed / total if total else math.nan


def _used(slates: Sequence[LabeledSlate]) -> list[Label]:
    return [label for s in slates for label in s.labels if label.outcome == "ranked"]


def _by_kind(loop: Loop, labels: Sequence[Label]) -> dict[str, int]:
    counts = Counter(loop.around.annotator_kind(label.annotator) for label in labels)
    return {kind: counts[kind] for kind in ("human", "judge", "oracle")}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
