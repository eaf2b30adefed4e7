"""Fitting the reward model to labelled slates, and measuring it on slates whose prompts it never saw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labeling.intervals import bootstrap
from labeling.records import LabeledSlate, Preference
from rlhf.backbones import Backbone, device_of, encode_messages, encode_response
from rlhf.bradley_terry import pair_targets, preference_losses, slate_loss
from rlhf.gradients import lay_out_gradients
from rlhf.kept_memory import keep_memory
from rlhf.packing import Group, micro_batches, pack
from rlhf.resting_adamw import RestingAdamW
from rlhf.reward_model import ScoreModel, score_groups


@dataclass(frozen=True)
class Example:
    """One slate as tokens, with its preferences."""

    group: Group
    preferences: tuple[Preference, ...]


@dataclass(frozen=True)
class Fit:
    """How a reward model is fitted: AdamW with linear warm-up over a tenth of the steps and linear decay to 0."""

    epochs: int = 1
    learning_rate: float = 1e-4
    head_learning_rate: float = 1e-3
    slates_per_step: int = 4
    weight_decay: float = 0.0
    centring: float = 0.0
    max_grad_norm: float = 1.0
    token_budget: int = 2048


@dataclass(frozen=True)
class Accuracy:
    """How well scores predict labels: pairs with a winner, log-loss in nats, expected calibration error.

    accuracy has a 95 % bootstrap interval over slates (pairs of one slate are not independent).
    length_correlation: Pearson, between a candidate's score and its tokens. Figures are NaN without pairs.
    """

    pairs: int
    accuracy: float
    low: float
    high: float
    log_loss: float
    ece: float
    length_correlation: float


def encode_slate(backbone: Backbone, labeled: LabeledSlate) -> Example:
    """Tokenise a slate; a response too long for the context loses its end, a prompt too long its beginning."""
    slate = labeled.slate
    prompt = encode_messages(backbone, [{"role": m.role, "content": m.content} for m in slate.prompt.messages])
    responses = [encode_response(backbone, c.text, c.finished) for c in slate.candidates]
    longest = min(max(map(len, responses)), backbone.context // 2)
    prompt = prompt[-(backbone.context - longest) :]
    return Example(Group(tuple(prompt), tuple(tuple(r[:longest]) for r in responses)), labeled.preferences)


def fit(
    model: ScoreModel,
    examples: Sequence[Example],
    settings: Fit,
    pad_id: int,
    generator: torch.Generator,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:
    """Fit the model by the Bradley-Terry loss, one batch element per slate. Returns the loss of each step.

    A step's slates are cut into micro-batches of `token_budget` tokens; the cut changes nothing but memory.
    """
    keep_memory()
    examples = [e for e in examples if e.preferences]
    trained = [p for p in model.decoder.parameters() if p.requires_grad]
    optimizers = [RestingAdamW(model.head.parameters(), settings.head_learning_rate, settings.weight_decay)]
    if trained:
        optimizers.append(RestingAdamW(trained, settings.learning_rate, settings.weight_decay))
    per_epoch = -(-len(examples) // settings.slates_per_step)
    total = settings.epochs * per_epoch
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: rate_factor(step, total)) for o in optimizers]
    losses: list[float] = []
    for _ in range(settings.epochs):
        order = torch.randperm(len(examples), generator=generator).tolist()
        for start in range(0, len(order), settings.slates_per_step):
            step = [examples[i] for i in order[start : start + settings.slates_per_step]]
            batches = list(micro_batches([e.group for e in step], settings.token_budget))
            lay_out_gradients(model, len(batches))
            loss = 0.0
            for batch in batches:
                chosen = [step[i] for i in batch]
                part = _loss(model, chosen, settings.centring, pad_id) * (len(chosen) / len(step))
                part.backward()
                loss += part.item()
            torch.nn.utils.clip_grad_norm_([*trained, *model.head.parameters()], settings.max_grad_norm)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            losses.append(loss)
            on_step(len(losses), total)
    return losses


def rate_factor(step: int, total: int) -> float:
    """The share of the learning rate at a step: linear warm-up over a tenth of the steps, then linear decay to 0."""
    warmup = max(1, total // 10)
    return min((step + 1) / warmup, (total - step) / max(1, total - warmup + 1), 1.0)


def _loss(model: ScoreModel, examples: Sequence[Example], centring: float, pad_id: int) -> Tensor:
    packed = pack([e.group for e in examples], pad_id, device_of(model))
    targets = pair_targets([(len(e.group.candidates), e.preferences) for e in examples], packed.tokens.device)
    return slate_loss(model.raw_scores(packed), targets, centring)


def measure(model: ScoreModel, examples: Sequence[Example], pad_id: int, token_budget: int) -> Accuracy:
    """Score labelled slates and compare with their preferences; ties count for log-loss and calibration only."""
    examples = [e for e in examples if e.preferences]
    if not examples:
        return compare(torch.zeros(0), examples)
    # Bradley-Terry probabilities live on the raw scale, not on the one that the policy is rewarded with.
    scores = score_groups(model, [e.group for e in examples], pad_id, token_budget) * model.std + model.mean
    return compare(scores.cpu(), examples)


def compare(scores: Tensor, examples: Sequence[Example]) -> Accuracy:
    """How well (N,) raw scores of the examples' candidates, in order, predict their preferences."""
    lengths = [len(c) for e in examples for c in e.group.candidates]
    return compare_scores(scores, [(len(e.group.candidates), e.preferences) for e in examples], lengths)


def compare_scores(
    scores: Tensor, slates: Sequence[tuple[int, Sequence[Preference]]], lengths: Sequence[int]
) -> Accuracy:
    """How well (N,) raw scores predict the preferences of slates given as (K, preferences)."""
    if not slates:
        nan = float("nan")
        return Accuracy(0, nan, nan, nan, nan, nan, nan)
    targets = pair_targets(slates)
    difference = scores[targets.i] - scores[targets.j]
    lead = difference.numpy()
    p = targets.p.numpy()
    slate = targets.slate.numpy()
    decided = p != 0.5
    right = np.where(lead == 0, 0.5, ((lead > 0) == (p > 0.5)).astype(float)) * decided
    hits = np.bincount(slate, right, len(slates))
    counts = np.bincount(slate, decided, len(slates))
    used = counts > 0
    interval = bootstrap(hits[used] / counts[used], counts[used])
    return Accuracy(
        pairs=int(decided.sum()),
        accuracy=interval.mean,
        low=interval.low,
        high=interval.high,
        log_loss=float(preference_losses(scores, targets).mean()),
        ece=expected_calibration_error(difference.sigmoid().numpy(), p),
        length_correlation=_correlation(scores.numpy(), np.array(lengths, dtype=float)),
    )


def expected_calibration_error(predicted: np.ndarray, observed: np.ndarray, bins: int = 10) -> float:
    """`Σ_b (n_b/n)·|mean predicted − mean observed|` over equal bins of the predicted probability.

    Each pair is counted from both sides, so that the order in which a pair is named does not matter.
    """
    predicted, observed = np.concatenate([predicted, 1 - predicted]), np.concatenate([observed, 1 - observed])
    where = np.minimum((predicted * bins).astype(int), bins - 1)
    gaps = np.bincount(where, predicted, bins) - np.bincount(where, observed, bins)
    return float(np.abs(gaps).sum() / len(predicted))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
