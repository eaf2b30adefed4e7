"""What a rollout asks of the update: shaped rewards, advantages, the critic's returns, figures of it all."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from rlhf.advantages import Estimate, Signals, group_centered
from rlhf.auxiliary import positive_weights
from rlhf.divergences import k1
from rlhf.masked import last_token, masked_mean
from rlhf.recipes import Recipe
from rlhf.rollout import Rollout
from rlhf.shaping import RunningUnit, token_rewards


@dataclass(frozen=True)
class Targets:
    """estimate: advantages and returns. better: (N,) bool, responses above the mean of their group.

    kl_per_sequence, kl_per_token: of the sampling policy against the reference, in nats.
    """

    estimate: Estimate
    better: Tensor
    kl_per_sequence: float
    kl_per_token: float


def shaped(rollout: Rollout, recipe: Recipe, unit: RunningUnit) -> Rollout:
    """The rollout with its scores as the recipe wants them: penalised, in running units, clipped.

    unit: of running scores; those of this batch are taken in. The greedy responses' scores get the same unit and bound,
    and no penalty, as their lengths are not known. What shaping did to an outcome is done to a response's last step, so
    that its steps still sum to its score.
    """
    scores, baseline = recipe.score(rollout.scores, rollout.mask.sum(1), rollout.longest), rollout.baseline
    if recipe.running_scores:
        unit.take(scores)
        scores = unit.express(scores)
        baseline = None if baseline is None else unit.express(baseline)
    bound = recipe.score_clip
    scores = scores.clamp(-bound, bound)
    baseline = None if baseline is None else baseline.clamp(-bound, bound)
    steps = rollout.step_scores
    if steps is not None:
        steps = steps + (scores - rollout.scores)[:, None] * last_token(rollout.mask)
    return replace(rollout, scores=scores, baseline=baseline, step_scores=steps)


def make_targets(rollout: Rollout, recipe: Recipe, beta: float) -> Targets:
    """Estimate the advantages of a rollout with shaped scores, over the whole batch. beta: of the KL in the reward."""
    mask = rollout.mask
    given, steps = _given_rewards(rollout), rollout.step_scores
    ends = None if steps is None else ~steps.isnan()
    rewards = token_rewards(given, rollout.old_logp, rollout.ref_logp, mask, beta)
    signals = Signals(rewards, mask, rollout.group, rollout.count, rollout.values, rollout.baseline, ends)
    kl = k1(rollout.old_logp, rollout.ref_logp) * mask
    outcomes = Signals(given, mask, rollout.group, rollout.count)
    return Targets(
        recipe.advantage(signals),
        (group_centered(outcomes).advantages > 0).any(1),
        kl.sum(1).mean().item(),
        masked_mean(kl, mask).item(),
    )


def _given_rewards(rollout: Rollout) -> Tensor:
    """(N, T) rewards before any KL penalty: those of the steps at their ends, or the outcome at the last token."""
    if rollout.step_scores is not None:
        return rollout.step_scores.nan_to_num(0.0)
    return rollout.scores[:, None] * last_token(rollout.mask)


def likelihood_weights(rollout: Rollout, targets: Targets, recipe: Recipe, rows: Tensor) -> Tensor | None:
    """(R, T) weights of `logp` on the step's responses `rows`, beside the surrogate; None if there is no such term."""
    if recipe.positive is None:
        return None
    return positive_weights(targets.better[rows], rollout.mask[rows], rollout.count[rows], recipe.positive.mu)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """`1 − Var(R − V)/Var(R)` over the masked tokens; 0 when the returns do not vary."""
    spread = returns[mask].var(unbiased=False)
    return 0.0 if spread == 0 else (1 - (returns - values)[mask].var(unbiased=False) / spread).item()


def monte_carlo_returns(rollout: Rollout) -> Tensor:
    """(N, T) shaped rewards-to-go without discount and without KL penalty: what a critic is pretrained on (VAPO)."""
    return (_given_rewards(rollout) * rollout.mask).flip(1).cumsum(1).flip(1) * rollout.mask


def empty_figures(missing: int, unused: int) -> dict[str, float]:
    """What is reported of an update that had nothing to learn from."""
    return {"steps": 0.0, "missing_rewards": float(missing), "unused_samples": float(unused)}


def rollout_figures(rollout: Rollout, targets: Targets) -> dict[str, float]:
    """Figures of a batch that no optimiser step changes."""
    return {
        "kl_per_sequence": targets.kl_per_sequence,
        "kl_per_token": targets.kl_per_token,
        "missing_rewards": float(rollout.missing),
        "unused_samples": float(rollout.unused),
        "length": rollout.mask.sum(1).float().mean().item(),
        "sampling_entropy": -masked_mean(rollout.old_logp, rollout.mask).item(),
    }
