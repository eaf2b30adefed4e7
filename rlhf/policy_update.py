"""The policy update: it asks the recipe for its stages and knows no recipe's name.

One batch of samples is passed over `epochs` times in `minibatches` optimiser steps (see `rlhf.optimiser_step`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from rlhf.auxiliary import Likelihood
from rlhf.kept_memory import keep_memory
from rlhf.noted_forward import forget
from rlhf.optimiser_step import Learner, Setting, critic_values, fit_values, make_step, share, take_step
from rlhf.recipes import Recipe
from rlhf.resting_adamw import RestingAdamW
from rlhf.rollout import Rollout
from rlhf.shaping import adapt_beta
from rlhf.targets import explained_variance, make_targets, monte_carlo_returns, rollout_figures, shaped


def update(
    learner: Learner,
    rollout: Rollout,
    recipe: Recipe,
    setting: Setting,
    generator: torch.Generator,
    likelihoods: Sequence[Likelihood] = (),
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Improve the policy (and the critic) on one rollout. Returns the metrics, means over optimiser steps.

    likelihoods: responses outside the rollout whose log-probability is to rise; every pass goes over them once.
    kl_per_sequence and kl_per_token are of the sampling policy against the reference (nats); sampling_mismatch is
    `mean|noted old_logp − logp|` before the first step; moved_kl is k3 of the updated against the sampling policy; clip
    fractions and ratios are of tokens, the ratios as they were before any clip, and their ends those of all steps.
    """
    keep_memory()
    for optimizer in (learner.policy_optimizer, learner.critic_optimizer):
        if isinstance(optimizer, RestingAdamW):
            optimizer.rest()
    rollout = shaped(rollout, recipe, learner.unit)
    if recipe.critic is not None and recipe.critic.pretraining_passes and not learner.updates:
        rollout = _pretrain_critic(learner, rollout, recipe, setting, generator, on_step)
    targets = make_targets(rollout, recipe, learner.beta)
    steps: list[dict[str, float]] = []
    parts = min(recipe.minibatches, len(rollout.groups))
    for _ in range(recipe.epochs):
        order = torch.randperm(len(rollout.groups), generator=generator)
        extra = [torch.randperm(len(term.groups), generator=generator).tensor_split(parts) for term in likelihoods]
        for n, part in enumerate(order.tensor_split(parts)):
            noise = torch.rand(rollout.mask.shape, generator=generator)
            step = make_step(rollout, targets, recipe, part.tolist(), noise)
            beside = [share(term, split[n].tolist(), parts) for term, split in zip(likelihoods, extra, strict=True)]
            steps.append(take_step(learner, rollout, targets, recipe, setting, step, beside))
            forget([*rollout.noted, *rollout.values_noted])  # the weights are others now
            on_step(len(steps), recipe.epochs * parts)
    learner.updates += 1
    metrics = {key: sum(s[key] for s in steps) / len(steps) for key in steps[0]}
    metrics |= {"ratio_max": max(s["ratio_max"] for s in steps), "ratio_min": min(s["ratio_min"] for s in steps)}
    metrics["sampling_mismatch"] = steps[0]["mismatch"] if rollout.mismatch is None else rollout.mismatch
    del metrics["mismatch"]
    metrics |= rollout_figures(rollout, targets) | {"steps": len(steps)}
    metrics |= {"beta": learner.beta} if recipe.reward_kl else {}
    metrics |= {"loss_beta": learner.loss_beta} if recipe.loss_kl else {}
    if rollout.values is not None and targets.estimate.returns is not None:
        metrics["explained_variance"] = explained_variance(rollout.values, targets.estimate.returns, rollout.mask)
    kl, samples = targets.kl_per_sequence, len(rollout.scores)
    if recipe.reward_kl is not None and recipe.reward_kl.target is not None:
        learner.beta = adapt_beta(learner.beta, kl, recipe.reward_kl.target, samples, recipe.reward_kl.horizon)
    if recipe.loss_kl is not None and recipe.loss_kl.target is not None:
        learner.loss_beta = adapt_beta(learner.loss_beta, kl, recipe.loss_kl.target, samples, recipe.loss_kl.horizon)
    return metrics


def _pretrain_critic(
    learner: Learner,
    rollout: Rollout,
    recipe: Recipe,
    setting: Setting,
    generator: torch.Generator,
    on_step: Callable[[int, int], None],
) -> Rollout:
    """Fit the critic to Monte Carlo returns of the untouched policy (VAPO); returns the rollout with its new values."""
    assert learner.critic is not None
    assert recipe.critic is not None
    returns = monte_carlo_returns(rollout)
    parts, passes = min(recipe.minibatches, len(rollout.groups)), recipe.critic.pretraining_passes
    for n in range(passes):
        for part in torch.randperm(len(rollout.groups), generator=generator).tensor_split(parts):
            # Unclipped: a clip around the values of the start would stop them on their way to the returns.
            fit_values(learner, rollout, returns, recipe, setting, part.tolist(), math.inf)
        on_step(n + 1, passes)
    return replace(rollout, values=critic_values(learner, rollout, setting))
