"""One optimiser step: the prompts of a step, cut into micro-batches by tokens.

Every weight is taken over the step's whole batch, so the cut changes nothing but memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from labeling.records import UserError
from rlhf.auxiliary import Likelihood, clipped_value_loss
from rlhf.divergences import k3
from rlhf.gradients import lay_out_gradients
from rlhf.logprobs import token_logprobs
from rlhf.noted_forward import Noted, joined
from rlhf.packing import Packed, micro_batches, pack
from rlhf.policy import Policy
from rlhf.recipes import Recipe
from rlhf.resting_adamw import RestingAdamW
from rlhf.reward_model import ScoreModel
from rlhf.rollout import Rollout, candidate_rows, first_candidates
from rlhf.shaping import RunningUnit
from rlhf.surrogates import Tokens, WholeStep
from rlhf.targets import Targets, likelihood_weights

FIGURES = (
    "policy_loss",
    "value_loss",
    "loss_kl",
    "entropy",
    "clip_fraction",
    "clip_fraction_high",
    "clip_fraction_low",
    "ratio_mean",
    "mismatch",
    "moved_kl",
)


@dataclass
class Learner:
    """What changes while a policy learns: policy and critic with their optimisers, the coefficients, units of scores.

    beta: of the KL penalty inside the reward. loss_beta: of the one in the loss. updates: rollouts learned from.
    """

    policy: Policy
    critic: ScoreModel | None
    policy_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer | None
    beta: float
    loss_beta: float
    unit: RunningUnit = field(default_factory=RunningUnit)
    updates: int = 0


def make_learner(policy: Policy, critic: ScoreModel | None, recipe: Recipe) -> Learner:
    """A learner with fresh AdamW optimisers. Raises ValueError when the recipe's critic is missing or unasked for."""
    if (critic is None) != (recipe.critic is None):
        raise ValueError(f"recipe {recipe.name!r} {'needs a' if recipe.critic else 'has no'} critic")
    critic_optimizer = None
    if critic is not None and recipe.critic is not None:
        learned = [p for p in critic.parameters() if p.requires_grad]
        critic_optimizer = RestingAdamW(learned, recipe.critic.critic_learning_rate)
    optimizer = RestingAdamW(policy.trained().values(), recipe.learning_rate)
    beta, loss_beta = (kl.beta if kl else 0.0 for kl in (recipe.reward_kl, recipe.loss_kl))
    return Learner(policy, critic, optimizer, critic_optimizer, beta, loss_beta)


@dataclass(frozen=True)
class Setting:
    """What an update is told beside the recipe: the temperature that was sampled at, and padded tokens per forward."""

    temperature: float
    token_budget: int


@dataclass(frozen=True)
class Step:
    """What an optimiser step is about. chosen: numbers of its prompts. rows: (R,) of its responses in the rollout.

    weights: (N, T) of the surrogate, 0 outside the step. likelihood: (N, T) of `logp`, or None. tokens: how many the
    step counts, repeated responses as often as they enter. noise: (N, T) uniform in [0, 1).
    """

    chosen: list[int]
    rows: Tensor
    weights: Tensor
    likelihood: Tensor | None
    tokens: float
    noise: Tensor


def make_step(rollout: Rollout, targets: Targets, recipe: Recipe, chosen: list[int], noise: Tensor) -> Step:
    """Take every weight over the whole step."""
    rows = candidate_rows(first_candidates(rollout.groups), chosen)
    mask, count = rollout.mask[rows], rollout.count[rows]
    weights = torch.zeros(rollout.mask.shape)
    weights[rows] = recipe.aggregation(mask, count, rollout.longest)
    beside, likelihood = likelihood_weights(rollout, targets, recipe, rows), None
    if beside is not None:
        likelihood = torch.zeros(rollout.mask.shape)
        likelihood[rows] = beside
    return Step(chosen, rows, weights, likelihood, (mask * count[:, None]).sum().item(), noise)


@dataclass(frozen=True)
class Batch:
    """Some prompts of a step, laid out for one forward. rows: (n,) of their responses in the rollout.

    noted, values_noted: what is kept of forwards of the policy and of the critic over all of it, or None.
    """

    packed: Packed
    rows: Tensor
    noted: Noted | None
    values_noted: Noted | None

    def cut(self, x: Tensor) -> Tensor:
        """(n, t) of a (N, T) tensor of the rollout, on the device of the forward."""
        return x[self.rows, : self.packed.mask.shape[1]].to(self.packed.mask.device)


def batches(policy: Policy, rollout: Rollout, chosen: Sequence[int], token_budget: int) -> list[Batch]:
    """The chosen prompts as micro-batches of at most `token_budget` padded tokens."""
    first = first_candidates(rollout.groups)
    device = next(policy.model.parameters()).device
    cut = micro_batches([rollout.groups[i] for i in chosen], token_budget)
    return [
        Batch(
            pack([rollout.groups[i] for i in part], policy.backbone.pad_id, device),
            candidate_rows(first, part),
            joined([rollout.noted[i] for i in part]),
            joined([rollout.values_noted[i] for i in part]),
        )
        for part in ([chosen[i] for i in numbers] for numbers in cut)
    ]


def share(term: Likelihood, chosen: list[int], parts: int) -> Likelihood:
    """The groups of a likelihood term that one of `parts` steps takes, weighted so that the steps' mean is the term."""
    groups = tuple(term.groups[i] for i in chosen)
    return replace(term, groups=groups, weights=tuple(parts * term.weights[i] for i in chosen))


def take_step(
    learner: Learner,
    rollout: Rollout,
    targets: Targets,
    recipe: Recipe,
    setting: Setting,
    step: Step,
    beside: Sequence[Likelihood] = (),
) -> dict[str, float]:
    """Accumulate the gradients of all micro-batches and terms, step policy and critic. Returns the step's figures."""
    policy, estimate = learner.policy, targets.estimate
    parts = batches(policy, rollout, step.chosen, setting.token_budget)
    whole = whole_step(learner, rollout, targets, recipe, setting, step, parts) if recipe.needs("step") else None
    sums = dict.fromkeys(FIGURES, 0.0) | {"ratio_max": 0.0, "ratio_min": torch.inf}
    lay_out_gradients(policy.model, len(parts) + len(beside))
    place = torch.zeros(len(rollout.mask), dtype=torch.long)
    place[step.rows] = torch.arange(len(step.rows))
    for part in parts:
        mask, old_logp, w = part.cut(rollout.mask), part.cut(rollout.old_logp), part.cut(step.weights)
        advantages = part.cut(estimate.advantages)
        learn_entropy = recipe.entropy_bonus > 0
        logp, entropy = token_logprobs(
            policy.model, part.packed, setting.temperature, entropy_gradient=learn_entropy, noted=part.noted
        )
        ratio = recipe.ratio(logp, old_logp, mask)
        surrogate = recipe.surrogate(Tokens(logp, ratio, advantages, mask, whole, place[part.rows]))
        objective = (w * surrogate.objective).sum()
        if step.likelihood is not None:
            objective = objective + (part.cut(step.likelihood) * logp).sum()
        if learn_entropy:
            objective = objective + recipe.entropy_bonus * (w * entropy).sum()
        loss = -objective
        if recipe.loss_kl is not None:
            divergence = (w * recipe.loss_kl.estimator(logp, part.cut(rollout.ref_logp))).sum()
            loss = loss + learner.loss_beta * divergence
            sums["loss_kl"] += divergence.item()
        loss.backward()
        sums["policy_loss"] += loss.item()
        with torch.no_grad():
            counted = mask * part.cut(rollout.count[:, None].expand_as(rollout.mask)) / max(step.tokens, 1)
            sums["entropy"] += (entropy * counted).sum().item()
            clipped = surrogate.clipped * counted
            sums["clip_fraction"] += clipped.sum().item()
            sums["clip_fraction_high"] += clipped[ratio > 1].sum().item()
            sums["clip_fraction_low"] += clipped[ratio < 1].sum().item()
            sums["ratio_mean"] += (ratio * counted).sum().item()
            sums["ratio_max"] = max(sums["ratio_max"], ratio[mask].max().item())
            sums["ratio_min"] = min(sums["ratio_min"], ratio[mask].min().item())
            sums["mismatch"] += ((logp - old_logp).abs() * counted).sum().item()
            sums["moved_kl"] += (k3(old_logp, logp) * counted).sum().item()
    for term in beside:
        sums[f"{term.name}_nll"] = _raise_likelihood(policy, term, setting)
    sums["grad_norm"] = _apply(learner.policy_optimizer, list(policy.trained().values()), recipe.max_grad_norm)
    if recipe.critic is not None and estimate.returns is not None:
        clip = recipe.critic.value_clip
        sums |= fit_values(learner, rollout, estimate.returns, recipe, setting, step.chosen, clip)
    return sums


@torch.no_grad()
def whole_step(
    learner: Learner,
    rollout: Rollout,
    targets: Targets,
    recipe: Recipe,
    setting: Setting,
    step: Step,
    parts: Sequence[Batch],
) -> WholeStep:
    """The step's tokens under the policy as it is now: one more forward, for surrogates that look at all of them."""
    logp = torch.zeros(rollout.mask.shape)
    for part in parts:
        width = part.packed.mask.shape[1]
        found, _ = token_logprobs(learner.policy.model, part.packed, setting.temperature, noted=part.noted)
        logp[part.rows, :width] = found.cpu()
    logp, mask = logp[step.rows], rollout.mask[step.rows] & (rollout.count[step.rows] > 0)[:, None]
    ratio = recipe.ratio(logp, rollout.old_logp[step.rows], mask)
    advantages, noise = targets.estimate.advantages[step.rows], step.noise[step.rows]
    device = parts[0].packed.mask.device
    return WholeStep(*(x.to(device) for x in (logp, ratio, advantages, mask, noise)))


def _raise_likelihood(policy: Policy, term: Likelihood, setting: Setting) -> float:
    """Add the gradient of `−Σ w·logp` over a term's groups. Returns that sum."""
    total = 0.0
    device = next(policy.model.parameters()).device
    for part in micro_batches(term.groups, setting.token_budget):
        packed = pack([term.groups[i] for i in part], policy.backbone.pad_id, device)
        weights = torch.zeros(packed.mask.shape)
        n = 0
        for w in (term.weights[i] for i in part):
            weights[n : n + len(w), : w.shape[1]] = w
            n += len(w)
        logp, _ = token_logprobs(policy.model, packed, term.temperature or setting.temperature)
        loss = -(weights.to(device) * logp).sum()
        loss.backward()
        total += loss.item()
    return total


def fit_values(
    learner: Learner,
    rollout: Rollout,
    returns: Tensor,
    recipe: Recipe,
    setting: Setting,
    chosen: Sequence[int],
    value_clip: float,
) -> dict[str, float]:
    """One step of the critic towards the returns, a mean over the tokens of the chosen prompts."""
    critic, optimizer = learner.critic, learner.critic_optimizer
    assert critic is not None
    assert optimizer is not None
    assert rollout.values is not None
    rows = candidate_rows(first_candidates(rollout.groups), chosen)
    counts = rollout.mask * rollout.count[:, None]
    tokens = counts[rows].sum().item()
    total = 0.0
    parts = batches(learner.policy, rollout, chosen, setting.token_budget)
    lay_out_gradients(critic, len(parts))
    for part in parts:
        values = critic.values(part.packed, part.values_noted)
        losses = clipped_value_loss(values, part.cut(rollout.values), part.cut(returns), value_clip)
        loss = (losses * part.cut(counts)).sum() / tokens
        loss.backward()
        total += loss.item()
    learned = [p for p in critic.parameters() if p.requires_grad]
    return {"value_loss": total, "value_grad_norm": _apply(optimizer, learned, recipe.max_grad_norm)}


@torch.no_grad()
def critic_values(learner: Learner, rollout: Rollout, setting: Setting) -> Tensor:
    """(N, T) what the critic says now."""
    assert learner.critic is not None
    values = torch.zeros(rollout.mask.shape)
    for part in batches(learner.policy, rollout, range(len(rollout.groups)), setting.token_budget):
        values[part.rows, : part.packed.mask.shape[1]] = learner.critic.values(part.packed).cpu()
    return values


def _apply(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float) -> float:
    """Clip the gradient, step, clear. Returns the norm before the clip. Raises UserError where that is no number."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
    if not math.isfinite(norm):
        raise UserError(f"the update has a gradient of size {norm}: lower learning_rate or max_grad_norm in [recipe]")
    optimizer.step()
    torch.autograd.graph.increment_version(parameters)  # a fused step does not, and notes of forwards go by it
    optimizer.zero_grad(set_to_none=True)
    return norm
