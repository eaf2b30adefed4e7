"""Recipes: named values that say how the policy is updated. A variant is `dataclasses.replace` of another.

The update knows no recipe's name; it asks the value. Defaults are the paper's unless a comment says why not; passes and
learning rates, on which papers differ by model, are ours. `rlhf.recipe_options` changes a recipe by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from rlhf import advantages, aggregation, filters, ratios, rewards, shaping, surrogates
from rlhf.auxiliary import PositiveTerm, PretrainingTerm, TemperedTerm
from rlhf.divergences import Estimator, k1, k2, k3

Need = Literal["critic", "greedy", "step"]


@dataclass(frozen=True)
class RewardKL:
    """KL penalty inside the token rewards. With a target (nats per sequence) β adapts to it over `horizon` samples."""

    beta: float = 0.05
    target: float | None = None
    horizon: int = 10_000


@dataclass(frozen=True)
class LossKL:
    """KL penalty as a term of the loss: β times the estimator, aggregated like the surrogate. target: see RewardKL."""

    beta: float = 0.04
    estimator: Estimator = k3
    target: float | None = None
    horizon: int = 10_000


@dataclass(frozen=True)
class CriticSettings:
    """A critic beside the policy: the value clip ε_v, its learning rate, and its passes before the first update.

    pretraining_passes: over the first rollout, towards Monte Carlo returns of the untouched policy (VAPO).
    """

    value_clip: float = 0.2
    critic_learning_rate: float = 1e-4
    pretraining_passes: int = 0


@dataclass(frozen=True)
class Recipe:
    """One way to update a policy: its stages, its terms beside the surrogate, and how often it passes over a batch.

    differs: what sets it apart, in a few words. attempts: how often samples may be drawn until the filter has left
    enough prompts. running_scores: scores in units of all scores so far. score_clip: bound of a score's size.
    epochs: passes over each batch of samples. minibatches: optimiser steps in each pass.
    """

    name: str
    paper: str
    differs: str
    reward: rewards.RewardFn = rewards.outcome
    score: shaping.ScoreFn = shaping.as_scored
    samples: filters.FilterFn = filters.all_samples
    advantage: advantages.AdvantageFn = advantages.group_standardized
    ratio: ratios.RatioFn = ratios.token_ratio
    surrogate: surrogates.SurrogateFn = surrogates.clipped
    aggregation: aggregation.AggregationFn = aggregation.token_mean
    reward_kl: RewardKL | None = None
    loss_kl: LossKL | None = None
    critic: CriticSettings | None = None
    pretraining: PretrainingTerm | None = None
    positive: PositiveTerm | None = None
    tempered: TemperedTerm | None = None
    entropy_bonus: float = 0.0
    running_scores: bool = False
    score_clip: float = math.inf
    attempts: int = 1
    epochs: int = 2
    minibatches: int = 2
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0

    def needs(self, what: Need) -> bool:
        """Whether one of the stages needs a critic, greedy responses or the whole step."""
        return any(what in NEEDS.get(stage_function(getattr(self, kind)), ()) for kind in STAGES)


# What can stand in each stage, by name.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Any], ...]] = {
    "reward": (rewards.outcome, rewards.step_rewards, rewards.majority_vote),
    "score": (shaping.as_scored, shaping.overlong_penalised),
    "samples": (
        filters.all_samples,
        filters.mixed_outcome_groups,
        filters.best_and_random,
        filters.best_worst,
        filters.best_weighted,
    ),
    "advantage": (
        advantages.gae,
        advantages.length_adaptive_gae,
        advantages.group_standardized,
        advantages.group_centered,
        advantages.process_standardized,
        advantages.leave_one_out,
        advantages.greedy_baseline,
        advantages.batch_standardized,
        advantages.group_baseline_standardized,
    ),
    "ratio": (ratios.token_ratio, ratios.sequence_ratio, ratios.product_ratio),
    "surrogate": (
        surrogates.clipped,
        surrogates.dual_clipped,
        surrogates.reinforce,
        surrogates.detached_weight,
        surrogates.flipped,
        surrogates.covariance_masked,
    ),
    "aggregation": (
        aggregation.sequence_mean,
        aggregation.token_mean,
        aggregation.fixed_length,
        aggregation.sequence_sum,
    ),
}
STAGES: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    kind: {f.__name__: f for f in functions} for kind, functions in _FUNCTIONS.items()
}
ESTIMATORS: Mapping[str, Estimator] = {f.__name__: f for f in (k1, k2, k3)}
# Stages that need more than every rollout has.
NEEDS: Mapping[Callable[..., Any], tuple[Need, ...]] = {
    advantages.gae: ("critic",),
    advantages.length_adaptive_gae: ("critic",),
    advantages.greedy_baseline: ("greedy",),
    surrogates.covariance_masked: ("step",),
}


def stage_function(stage: Callable[..., Any]) -> Callable[..., Any]:
    """The function of a stage, whatever constants are bound to it."""
    return stage.func if isinstance(stage, partial) else stage


PPO = Recipe(
    name="ppo",
    paper="1707.06347, 2203.02155",
    differs="a critic judges each token; adaptive KL penalty inside the reward",
    advantage=advantages.gae,
    reward_kl=RewardKL(target=6.0),
    critic=CriticSettings(),
)
REINFORCE_PP = Recipe(
    name="reinforce_pp",
    paper="2501.03262",
    differs="no critic: rewards-to-go with the KL penalty inside, whitened over the whole batch",
    advantage=advantages.batch_standardized,
    reward_kl=RewardKL(beta=0.01),
)
GRPO = Recipe(
    name="grpo",
    paper="2402.03300",
    differs="no critic: a response is compared with the others to its prompt",
    aggregation=aggregation.sequence_mean,
    loss_kl=LossKL(beta=0.04),
)
# What the later group methods share: token mean, no KL, Clip-Higher where the paper has it.
GROUP = replace(GRPO, aggregation=aggregation.token_mean, loss_kl=None)
CLIP_HIGHER = partial(surrogates.clipped, eps_low=0.2, eps_high=0.28)

RECIPES: Mapping[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        PPO,
        replace(
            PPO,
            name="ppo_ptx",
            paper="2203.02155",
            differs="ppo, and the likelihood of pretraining text, so that it is not unlearned",
            pretraining=PretrainingTerm(),
        ),
        replace(
            PPO,
            name="ppo_dual_clip",
            paper="1912.09729",
            differs="ppo, and a bound on what a bad token with an exploded ratio may do",
            surrogate=surrogates.dual_clipped,
        ),
        REINFORCE_PP,
        replace(
            REINFORCE_PP,
            name="reinforce_pp_baseline",
            differs="reinforce_pp after the group's mean is subtracted; the KL penalty is a k2 loss",
            advantage=advantages.group_baseline_standardized,
            reward_kl=None,
            loss_kl=LossKL(beta=0.01, estimator=k2),
        ),
        Recipe(
            name="remax",
            paper="2310.10505",
            differs="plain REINFORCE; the baseline is the score of the greedy response",
            advantage=advantages.greedy_baseline,
            surrogate=surrogates.reinforce,
            aggregation=aggregation.sequence_sum,
            reward_kl=RewardKL(beta=0.01),
            # Without a ratio, samples are right only for the policy that drew them: one step a batch.
            epochs=1,
            minibatches=1,
        ),
        Recipe(
            name="rloo",
            paper="2402.14740",
            differs="a response is one action; the baseline is the mean of the other responses",
            advantage=advantages.leave_one_out,
            ratio=ratios.product_ratio,
            aggregation=aggregation.sequence_mean,
            reward_kl=RewardKL(beta=0.05),
        ),
        GRPO,
        replace(
            GRPO,
            name="grpo_process",
            differs="grpo with a reward for each step of a response",
            reward=rewards.step_rewards,
            advantage=advantages.process_standardized,
        ),
        replace(
            GRPO,
            name="dr_grpo",
            paper="2503.20783",
            differs="grpo without the std and the length in its denominators, which bias it; no KL",
            advantage=advantages.group_centered,
            aggregation=aggregation.fixed_length,
            loss_kl=None,
        ),
        replace(
            GROUP,
            name="dapo",
            paper="2503.14476",
            differs="every token counts alike; wider clip above; groups without contrast are redrawn; overlong penalty",
            surrogate=CLIP_HIGHER,
            samples=filters.mixed_outcome_groups,
            score=shaping.overlong_penalised,
            attempts=4,
        ),
        Recipe(
            name="vapo",
            paper="2504.05118",
            differs="ppo with a pretrained critic, λ by length, wider clip above, likelihood of good responses",
            advantage=advantages.length_adaptive_gae,
            surrogate=CLIP_HIGHER,
            critic=CriticSettings(pretraining_passes=8),
            positive=PositiveTerm(),
        ),
        replace(
            GROUP,
            name="gspo",
            paper="2507.18071",
            differs="the ratio of a whole response, by its length, is what is clipped",
            ratio=ratios.sequence_ratio,
            surrogate=partial(surrogates.clipped, eps_low=3e-4, eps_high=4e-4),
            aggregation=aggregation.sequence_mean,
        ),
        replace(
            GROUP,
            name="cispo",
            paper="2506.13585",
            differs="the ratio's weight is clipped, not the objective: every token keeps a gradient",
            surrogate=surrogates.detached_weight,
        ),
        replace(
            GROUP,
            name="aspo",
            paper="2510.06062",
            differs="tokens of good responses are weighted by the inverse ratio, so that rare ones learn most",
            surrogate=surrogates.flipped,
        ),
        replace(
            GROUP,
            name="clip_cov",
            paper="2505.22617",
            differs="a few tokens of high covariance, which eat the entropy, get no gradient",
            surrogate=surrogates.covariance_masked,
        ),
        replace(
            PPO,
            name="pf_ppo",
            paper="2409.06957",
            differs="ppo on those samples of a prompt whose rewards are most often right",
            samples=filters.best_worst,
        ),
        replace(
            GROUP,
            name="aepo",
            paper="2510.08141",
            differs="a likelihood term on good samples of another temperature holds the entropy at a target",
            tempered=TemperedTerm(),
        ),
        replace(
            GRPO,
            name="ttrl",
            paper="2504.16084",
            differs="grpo rewarded for agreeing with the majority: no labels, no truth",
            reward=rewards.majority_vote,
        ),
    )
}
