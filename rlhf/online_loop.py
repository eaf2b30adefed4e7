"""The online loop: sample → ask → refit the reward model → improve the policy → evaluate → checkpoint, again.

The loop knows neither store nor judges nor browser: whoever runs it hands in `Surroundings`. Each iteration's
randomness has its own named streams, so a resumed run goes on exactly as an uninterrupted one would have.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labeling.records import Label, LabeledSlate, Prompt, Slate, UserError
from rlhf.checkpoints import refuse_if_started
from rlhf.diagnosis import diagnose
from rlhf.loop_state import LoopState, add_learner, load, save, start
from rlhf.loop_steps import (
    Answers,
    GoldFn,
    answer,
    candidate_groups,
    draw_prompts,
    evaluate,
    make_slates,
    reward_scores,
    take,
)
from rlhf.policy_update import update
from rlhf.random_streams import python_stream, torch_stream
from rlhf.reward_head import fit_head
from rlhf.reward_model import normalise
from rlhf.reward_training import Example, Fit, encode_slate, fit, measure
from rlhf.rollout import assemble
from rlhf.run_config import RunConfig

REFERENCE_PROMPTS = 8  # the answers of the untouched policy to these set the reward model's zero and unit


@dataclass(frozen=True)
class Surroundings:
    """What a loop needs from outside, as functions.

    ask(iteration, slates): have new slates labelled by every active source and return all labelled slates of the
    run so far, those labelled by people meanwhile included. gold(pairs): independent scores, for watching only.
    emit(iteration, kind, data): report an event. fitted(iteration, client_keys): these labels entered a fit.
    annotator_kind(annotator id): human, judge or oracle.
    """

    ask: Callable[[int, Sequence[Slate]], Sequence[LabeledSlate]]
    gold: GoldFn
    emit: Callable[[int, str, Mapping[str, Any]], None]
    fitted: Callable[[int, Sequence[str]], None]
    annotator_kind: Callable[[str], str]


@dataclass(frozen=True)
class Loop:
    """One run: what it was told, what surrounds it, and what it has learned."""

    config: RunConfig
    around: Surroundings
    folder: Path
    train: tuple[Prompt, ...]
    heldout: tuple[Prompt, ...]
    state: LoopState

    @property
    def eval_prompts(self) -> list[Prompt]:
        """The held-out prompts of every evaluation."""
        return draw_prompts(self.heldout, 0, min(self.config.evaluation.prompts, len(self.heldout)), self.config.seed)

    @property
    def reward_version(self) -> str:
        """The name of the reward model as it is now; empty before the first fit."""
        return f"{self.config.name}/fit-{self.state.fits}" if self.state.fits else ""


def run_loop(
    config: RunConfig, prompts: Sequence[Prompt], around: Surroundings, folder: Path, resume: bool = False
) -> LoopState:
    """Go through the iterations of a run that are left, each ending with a checkpoint in `folder`.

    Raises UserError for a split without prompts, a run that exists while `resume` is false, and all that the steps
    raise.
    """
    splits = {split: tuple(p for p in prompts if p.split == split) for split in ("train", "heldout")}
    for split, found in splits.items():
        if not found:
            raise UserError(f"the project has no {split} prompts: `prefloop import FILE --split {split}` adds some")
    if not resume:
        refuse_if_started(folder, config.name)
    with phase(around, 0, "load", config.model.name):
        state = start(config, prompts)
        resumed = load(state, config.make_recipe(), folder)
    loop = Loop(config, around, folder, splits["train"], splits["heldout"], state)
    if not resumed:
        with phase(around, 0, "evaluate", "the untouched model") as progress:
            gold = around.gold
            before = evaluate(state.policy, None, loop.eval_prompts, gold, config, "policy-0", progress)
        state.history.append({"evaluation": before})
        around.emit(0, "evaluation", before)
    while state.iteration < config.iterations:
        _iterate(loop, state.iteration + 1)
    return state


@contextmanager
def phase(around: Surroundings, iteration: int, name: str, note: str = "") -> Iterator[Callable[[int, int], None]]:
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
    config, around, state = loop.config, loop.around, loop.state
    began, temperature = time.monotonic(), config.sampling.temperature
    answers, asked, held = _sample(loop, iteration)
    labeled = _ask(loop, iteration, asked, held)
    if not state.references:
        state.references = candidate_groups(state.backbone, take(answers, 0, REFERENCE_PROMPTS))
    fitted = _fit(loop, iteration, labeled)
    around.emit(iteration, "fit", fitted)

    recipe = config.make_recipe()
    with phase(around, iteration, "update", recipe.name) as progress:
        learner = add_learner(state, recipe)
        scores = reward_scores(state.reward_model, state.backbone, answers, config.token_budget)
        ids, sampled, budget = answers.prompt_ids, answers.sampled, config.token_budget
        rollout = assemble(state.policy, learner.critic, ids, sampled, scores, temperature, budget)
        stream = torch_stream(config.seed, iteration, "update")
        updated = update(learner, rollout, recipe, temperature, budget, stream, progress)
    around.emit(iteration, "update", updated)

    with phase(around, iteration, "evaluate", f"{len(loop.eval_prompts)} held-out prompts") as progress:
        version = f"policy-{iteration}"
        after = evaluate(
            state.policy, state.reward_model, loop.eval_prompts, around.gold, config, version, progress
        ) | {"entropy": updated["entropy"]}
    around.emit(iteration, "evaluation", after)

    golds = around.gold([(p, c) for p, cs in zip(answers.prompts, answers.candidates, strict=True) for c in cs])
    row: dict[str, Any] = {
        "proxy_train": updated["reward_mean"],
        "gold_train": _mean([g for g in golds if g is not None]),
        "proxy_heldout": after["proxy"],
        "gold_heldout": after["gold"],
        "kl_per_sequence": after["kl_per_sequence"],
        "reward_model_accuracy": fitted["heldout_accuracy"],
        "seconds": time.monotonic() - began,
    }
    state.history.append({"evaluation": after, "iteration": row})
    row["verdict"] = diagnose([h["iteration"] for h in state.history if "iteration" in h])
    state.iteration = iteration
    with phase(around, iteration, "checkpoint"):
        save(state, config, loop.folder)
    around.emit(iteration, "iteration", row)


def _sample(loop: Loop, iteration: int) -> tuple[Answers, Answers, Answers]:
    """Sample from the policy. Returns the answers to learn from, those to ask about, and held-out ones to ask about.

    Those to learn from come first among those to ask about; there are more of the latter only when more slates
    are wanted than prompts are sampled.
    """
    config, state = loop.config, loop.state
    slates, held_slates = _slate_counts(config, iteration)
    learn = config.sampling.prompts
    start_at = (iteration - 1) * learn
    train = draw_prompts(loop.train, start_at, max(learn, slates), config.seed)
    held = draw_prompts(loop.heldout, (iteration - 1) * held_slates, held_slates, config.seed)
    each = config.sampling.responses
    with phase(
        loop.around, iteration, "sample", f"{len(train) + len(held)} prompts, {each} responses each"
    ) as progress:
        stream = torch_stream(config.seed, iteration, "sample")
        both = answer(state.policy, [*train, *held], each, config, f"policy-{iteration - 1}", stream, progress)
    learned = take(both, 0, min(learn, len(train)))  # never a held-out prompt, however few train prompts there are
    return learned, take(both, 0, len(train)), take(both, len(train), len(both.prompts))


def _slate_counts(config: RunConfig, iteration: int) -> tuple[int, int]:
    """How many slates to ask about, on train and on held-out prompts; none once the reward model is frozen."""
    labels = config.labels
    if iteration > 1 and config.reward_model.refit == "first":
        return 0, 0
    asked = labels.first_slates if iteration == 1 and labels.first_slates else labels.slates
    held = min(round(asked * labels.heldout_share), asked - 1)
    return asked - held, held


def _ask(loop: Loop, iteration: int, asked: Answers, held: Answers) -> Sequence[LabeledSlate]:
    """Make slates and have them labelled. Returns every labelled slate of the run."""
    config, state = loop.config, loop.state
    slates: list[Slate] = []
    with phase(loop.around, iteration, "label", "asking every active source"):
        # Held-out slates first: people are given the newest, and those should be the ones that teach.
        for answers, count in zip((held, asked), reversed(_slate_counts(config, iteration)), strict=True):
            if count:
                foresee = state.fits > 0
                budget = config.token_budget
                scores = reward_scores(state.reward_model, state.backbone, answers, budget) if foresee else []
                slates += make_slates(answers, count, config, iteration, scores, loop.reward_version)
        return loop.around.ask(iteration, slates)


def _fit(loop: Loop, iteration: int, labeled: Sequence[LabeledSlate]) -> dict[str, Any]:
    """Refit on every train slate with a label that no fit was given yet, beside a replay of others; then measure."""
    config, state, settings = loop.config, loop.state, loop.config.reward_model
    train = [s for s in labeled if s.slate.prompt.split == "train" and s.preferences]
    held = [s for s in labeled if s.slate.prompt.split == "heldout"]
    fresh = [s for s in train if any(label.client_key not in state.fitted for label in _used([s]))]
    if not state.fits and not fresh:
        raise UserError(
            "no label to fit the reward model on: label some slates in the browser and go on with --resume, set "
            "labels.wait_for_humans, or name a judge in labels.judges"
        )
    chosen: list[LabeledSlate] = []
    losses: list[float] = []
    pad_id, budget = state.backbone.pad_id, config.token_budget
    if fresh and (settings.refit == "every" or not state.fits):
        old = [s for s in train if s not in fresh]
        replay = python_stream(config.seed, iteration, "replay").sample(
            old, min(len(old), round(settings.replay * len(fresh)))
        )
        chosen = [*fresh, *replay]
        examples = [encode_slate(state.backbone, s) for s in chosen]
        with phase(loop.around, iteration, "fit", f"{len(fresh)} new slates, {len(replay)} replayed") as progress:
            losses = _refit(loop, iteration, examples, progress)
            normalise(state.reward_model, state.references, pad_id, budget)
        state.fits += 1
    used = _used(chosen)
    new = [label for label in used if label.client_key not in state.fitted]
    state.fitted |= {label.client_key for label in new}
    loop.around.fitted(iteration, [label.client_key for label in used])
    found = measure(state.reward_model, [encode_slate(state.backbone, s) for s in held], pad_id, budget)
    return {
        "slates": len(chosen),
        "pairs": sum(len(s.preferences) for s in chosen),
        "labels_by_kind": _by_kind(loop, used),
        "new_labels_by_kind": _by_kind(loop, new),
        "train_loss": _mean(losses[len(losses) // 2 :]),
        "heldout_accuracy": _finite(found.accuracy),
        "heldout_accuracy_low": _finite(found.low),
        "heldout_accuracy_high": _finite(found.high),
        "heldout_log_loss": _finite(found.log_loss),
        "heldout_ece": _finite(found.ece),
        "heldout_length_correlation": _finite(found.length_correlation),
        "heldout_pairs": found.pairs,
        "reward_model": loop.reward_version,
    }


def _refit(
    loop: Loop, iteration: int, examples: Sequence[Example], progress: Callable[[int, int], None]
) -> list[float]:
    """Fit the head exactly, or the backbone with it by gradient steps. Returns the losses on the way."""
    settings, model, pad_id = loop.config.reward_model, loop.state.reward_model, loop.state.backbone.pad_id
    if settings.adaptation == "head":
        return fit_head(model, examples, settings.ridge, pad_id, loop.state.states)
    how = Fit(
        settings.epochs,
        settings.learning_rate,
        settings.head_learning_rate,
        settings.slates_per_step,
        centring=settings.centring,
        token_budget=loop.config.token_budget,
    )
    return fit(model, examples, how, pad_id, torch_stream(loop.config.seed, iteration, "fit"), progress)


def _used(slates: Sequence[LabeledSlate]) -> list[Label]:
    return [label for s in slates for label in s.labels if label.outcome == "ranked"]


def _by_kind(loop: Loop, labels: Sequence[Label]) -> dict[str, int]:
    counts = Counter(loop.around.annotator_kind(label.annotator) for label in labels)
    return {kind: counts[kind] for kind in ("human", "judge", "oracle")}


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
