"""The policy update: it asks the recipe for its stages and knows no recipe's name.

One batch of samples is passed over `epochs` times in `minibatches` optimiser steps; a step's prompts are cut
into micro-batches by tokens, with every weight taken over the step's whole batch, so the cut changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf.advantages import Estimate, Signals
from rlhf.auxiliary import clipped_value_loss
from rlhf.divergences import k1, k3
from rlhf.logprobs import token_logprobs
from rlhf.masked import masked_mean
from rlhf.packing import micro_batches, pack
from rlhf.policy import Policy
from rlhf.recipes import Recipe
from rlhf.reward_model import ScoreModel
from rlhf.rollout import Rollout, candidate_rows, first_candidates
from rlhf.shaping import adapt_beta, token_rewards


@dataclass
class Learner:
    """What changes while a policy learns: policy and critic with their optimisers, and the coefficient β."""

    policy: Policy
    critic: ScoreModel | None
    policy_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer | None
    beta: float


def make_learner(policy: Policy, critic: ScoreModel | None, recipe: Recipe) -> Learner:
    """A learner with fresh AdamW optimisers. Raises ValueError when the recipe's critic is missing or unasked for."""
    if (critic is None) != (recipe.critic is None):
        raise ValueError(f"recipe {recipe.name!r} {'needs a' if recipe.critic else 'has no'} critic")
    critic_optimizer = None
    if critic is not None and recipe.critic is not None:
        learned = [p for p in critic.parameters() if p.requires_grad]
        critic_optimizer = torch.optim.AdamW(learned, lr=recipe.critic.learning_rate, weight_decay=0.0)
    optimizer = torch.optim.AdamW(policy.trained().values(), lr=recipe.learning_rate, weight_decay=0.0)
    return Learner(policy, critic, optimizer, critic_optimizer, recipe.reward_kl.beta if recipe.reward_kl else 0.0)


@dataclass(frozen=True)
class Targets:
    """What a rollout asks of the update: advantages, and the critic's returns."""

    estimate: Estimate
    kl_per_sequence: float
    kl_per_token: float
    zero_groups: float


def make_targets(rollout: Rollout, recipe: Recipe, beta: float) -> Targets:
    """Shape the rewards and estimate the advantages over the whole batch."""
    rewards = token_rewards(rollout.scores, rollout.old_logp, rollout.ref_logp, rollout.mask, beta)
    signals = Signals(rollout.scores, rewards, rollout.values, rollout.group, rollout.mask)
    kl = k1(rollout.old_logp, rollout.ref_logp) * rollout.mask
    spread = [rollout.scores[rollout.group == g] for g in range(len(rollout.groups))]
    return Targets(
        recipe.advantage(signals),
        kl.sum(1).mean().item(),
        masked_mean(kl, rollout.mask).item(),
        sum(bool((s == s[0]).all()) for s in spread) / len(spread),
    )


def update(
    learner: Learner,
    rollout: Rollout,
    recipe: Recipe,
    temperature: float,
    token_budget: int,
    generator: torch.Generator,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Improve the policy (and the critic) on one rollout. Returns the metrics, averaged over optimiser steps.

    kl_per_sequence and kl_per_token are of the sampling policy against the reference (nats); sampling_mismatch is
    `mean|old_logp − logp|` before the first step; moved_kl is k3 of the updated against the sampling policy.
    """
    targets = make_targets(rollout, recipe, learner.beta)
    steps: list[dict[str, float]] = []
    total = recipe.epochs * min(recipe.minibatches, len(rollout.groups))
    for _ in range(recipe.epochs):
        order = torch.randperm(len(rollout.groups), generator=generator)
        for part in order.tensor_split(min(recipe.minibatches, len(rollout.groups))):
            steps.append(_step(learner, rollout, targets.estimate, recipe, temperature, token_budget, part.tolist()))
            on_step(len(steps), total)
    metrics = {key: sum(s[key] for s in steps) / len(steps) for key in steps[0]}
    metrics |= {
        "steps": len(steps),
        "reward_mean": rollout.scores.mean().item(),
        "reward_std": rollout.scores.std().item() if len(rollout.scores) > 1 else 0.0,
        "kl_per_sequence": targets.kl_per_sequence,
        "kl_per_token": targets.kl_per_token,
        "beta": learner.beta if recipe.reward_kl else recipe.loss_kl.beta if recipe.loss_kl else 0.0,
        "sampling_mismatch": steps[0]["mismatch"],
        "zero_std_groups": targets.zero_groups,
        "missing_rewards": rollout.missing,
        "length": rollout.mask.sum(1).float().mean().item(),
    }
    del metrics["mismatch"]
    if rollout.values is not None and targets.estimate.returns is not None:
        metrics["explained_variance"] = explained_variance(rollout.values, targets.estimate.returns, rollout.mask)
    if recipe.reward_kl is not None and recipe.reward_kl.target is not None:
        kl = recipe.reward_kl
        learner.beta = adapt_beta(
            learner.beta, targets.kl_per_sequence, recipe.reward_kl.target, len(rollout.scores), kl.horizon
        )
    return metrics


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """`1 − Var(R − V)/Var(R)` over the masked tokens; 0 when the returns do not vary."""
    spread = returns[mask].var(unbiased=False)
    return 0.0 if spread == 0 else (1 - (returns - values)[mask].var(unbiased=False) / spread).item()


def _step(
    learner: Learner,
    rollout: Rollout,
    estimate: Estimate,
    recipe: Recipe,
    temperature: float,
    token_budget: int,
    chosen: list[int],
) -> dict[str, float]:
    """One optimiser step on the prompts `chosen`."""
    policy, critic = learner.policy, learner.critic
    first = first_candidates(rollout.groups)
    weights = torch.zeros(rollout.mask.shape)
    rows = candidate_rows(first, chosen)
    weights[rows] = recipe.aggregation(rollout.mask[rows])
    tokens = rollout.mask[rows].sum().item()
    sums: dict[str, float] = dict.fromkeys(
        ("policy_loss", "value_loss", "entropy", "clip_fraction", "ratio_max", "mismatch", "moved_kl", "loss_kl"), 0.0
    )
    device = next(policy.model.parameters()).device
    groups = [rollout.groups[i] for i in chosen]
    for batch in micro_batches(groups, token_budget):
        packed = pack([groups[i] for i in batch], policy.backbone.pad_id, device)
        n, t = candidate_rows(first, [chosen[i] for i in batch]), packed.mask.shape[1]

        def cut(x: Tensor, n: Tensor = n, t: int = t) -> Tensor:
            return x[n, :t].to(device)

        mask, old_logp, w = cut(rollout.mask), cut(rollout.old_logp), cut(weights)
        logp, entropy = token_logprobs(policy.model, packed, temperature)
        ratio = recipe.ratio(logp, old_logp, mask)
        surrogate = recipe.surrogate(ratio, cut(estimate.advantages))
        loss = -(w * surrogate.objective).sum()
        if recipe.loss_kl is not None:
            divergence = (w * recipe.loss_kl.estimator(logp, cut(rollout.ref_logp))).sum()
            loss = loss + recipe.loss_kl.beta * divergence
            sums["loss_kl"] += divergence.item()
        loss.backward()
        sums["policy_loss"] += loss.item()
        if critic is not None and recipe.critic is not None:
            assert rollout.values is not None
            assert estimate.returns is not None
            per_token = clipped_value_loss(
                critic.values(packed), cut(rollout.values), cut(estimate.returns), recipe.critic.value_clip
            )
            value_loss = (per_token * mask).sum() / tokens
            value_loss.backward()
            sums["value_loss"] += value_loss.item()
        with torch.no_grad():
            sums["entropy"] += (entropy * mask).sum().item() / tokens
            sums["clip_fraction"] += (surrogate.clipped & mask).sum().item() / tokens
            sums["ratio_max"] = max(sums["ratio_max"], ratio[mask].max().item())
            sums["mismatch"] += ((logp - old_logp).abs() * mask).sum().item() / tokens
            sums["moved_kl"] += (k3(old_logp, logp) * mask).sum().item() / tokens
    sums["grad_norm"] = _apply(learner.policy_optimizer, list(policy.trained().values()), recipe.max_grad_norm)
    if critic is not None and learner.critic_optimizer is not None:
        learned = [p for p in critic.parameters() if p.requires_grad]
        sums["value_grad_norm"] = _apply(learner.critic_optimizer, learned, recipe.max_grad_norm)
    return sums


def _apply(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], max_norm: float) -> float:
    """Clip the gradient, step, clear. Returns the norm before the clip."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm).item()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
