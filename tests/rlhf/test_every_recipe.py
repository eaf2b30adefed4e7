"""What must hold for every recipe: the table test that a new one has to pass."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from policy_world import (
    CUT,
    LONGEST,
    RESPONSES,
    REWARDS,
    TEMPERATURE,
    WHOLE,
    all_logps,
    make,
    once,
    parameters,
    roll,
    step,
    without_kl,
)
from torch import Tensor, nn

from rlhf.optimiser_step import Learner, Setting, batches, make_step, whole_step
from rlhf.recipes import RECIPES, Recipe, stage_function
from rlhf.rewards import step_rewards
from rlhf.rollout import Rollout
from rlhf.surrogates import covariance_masked
from rlhf.targets import make_targets

recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


def samples(
    learner: Learner,
    recipe: Recipe,
    rewards: list = REWARDS,
    responses: list = RESPONSES,
    noise: float = 0.4,
    budget: int = WHOLE,
) -> Rollout:
    """A rollout with steps in the middle and at the end of each response, if the recipe rewards steps."""
    steps = None
    if stage_function(recipe.reward) is step_rewards:
        steps = [
            [() if r is None else in_steps(r, len(ids)) for r, ids in zip(row, several, strict=True)]
            for row, several in zip(rewards, responses, strict=True)
        ]
    return roll(learner, rewards, noise, responses, steps, budget)


def in_steps(reward: float, length: int) -> tuple:
    """The reward as that of two steps, of which the second gets more."""
    middle = (length - 1) // 2
    return ((middle, 0.3 * reward), (length - 1, 0.7 * reward)) if length > 1 else ((0, reward),)


def everything(learner: Learner) -> list[Tensor]:
    return [*parameters(learner.policy.model), *(parameters(learner.critic) if learner.critic else [])]


def assert_same(found: list[Tensor], expected: list[Tensor], norm: float) -> None:
    # Rounding grows with the gradient: a ratio of whole responses (rloo) makes large ones.
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * max(1.0, norm), rtol=0)


@recipes
def test_cutting_into_micro_batches_changes_nothing(recipe: Recipe) -> None:
    recipe = replace(recipe, max_grad_norm=1e9)
    found = []
    for budget in (WHOLE, CUT):
        learner = make(recipe, rate=0.05)
        metrics = step(learner, samples(learner, recipe, budget=budget), recipe, budget)
        found.append((metrics, everything(learner)))
    (whole, learned), (cut, learned_cut) = found
    assert whole["grad_norm"] > 1e-3
    assert whole["steps"] == recipe.epochs * recipe.minibatches
    assert cut == pytest.approx(whole, rel=1e-4, abs=1e-5)
    assert_same(learned_cut, learned, whole["grad_norm"])


@recipes
def test_zero_advantage_gives_zero_gradient_and_no_nan(recipe: Recipe) -> None:
    recipe = once(without_kl(recipe))
    learner = make(recipe)
    if learner.critic is not None:
        nn.init.zeros_(learner.critic.head.weight)  # else a critic that expects something makes 0 a disappointment
    before = parameters(learner.policy.model)
    metrics = step(learner, samples(learner, recipe, [[0.0] * len(r) for r in REWARDS]), recipe)
    assert all(value == value for value in metrics.values())
    assert metrics["grad_norm"] == 0
    assert all(torch.equal(a, b) for a, b in zip(before, parameters(learner.policy.model), strict=True))


@recipes
def test_the_step_raises_what_was_better_and_lowers_what_was_worse(recipe: Recipe) -> None:
    recipe = once(without_kl(recipe))
    learner = make(recipe, rate=0.05)
    rollout = samples(learner, recipe, noise=0.0)
    advantages = make_targets(rollout, recipe, 0.0).estimate.advantages
    before = all_logps(learner.policy, learner.policy.model)
    step(learner, rollout, recipe)
    moved = all_logps(learner.policy, learner.policy.model) - before
    gain = (advantages[rollout.mask] * moved).sum()
    assert gain > 1e-3
    best, worst = advantages[rollout.mask].argmax(), advantages[rollout.mask].argmin()
    assert moved[best] > 0 > moved[worst]


@recipes
def test_the_first_pass_of_real_samples_is_on_policy(recipe: Recipe) -> None:
    learner = make(once(recipe))
    metrics = step(learner, samples(learner, recipe, noise=0.0), once(recipe))
    assert metrics["sampling_mismatch"] == pytest.approx(0, abs=1e-5)
    assert metrics["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert metrics["clip_fraction"] == 0
    assert metrics["kl_per_sequence"] == pytest.approx(0, abs=1e-4)


@recipes
def test_exploded_ratios_give_no_nan(recipe: Recipe) -> None:
    # e^±200 and more, on tokens of good and of bad responses: float32 ends at e^88.
    recipe = once(recipe)
    learner = make(recipe, rate=1e-12)
    rollout = samples(learner, recipe, noise=0.0)
    rollout.old_logp[:, ::2] += 200.0
    rollout.old_logp[::2] *= -1.0
    metrics = step(learner, rollout, recipe)
    assert all(math.isfinite(value) for value in metrics.values())
    assert all(p.isfinite().all() for p in everything(learner))


@recipes
def test_equal_rewards_give_no_nan_and_without_a_critic_no_gradient(recipe: Recipe) -> None:
    recipe = once(without_kl(recipe))
    learner = make(recipe, rate=0.05)
    metrics = step(learner, samples(learner, recipe, [[0.1] * len(r) for r in REWARDS]), recipe)
    assert all(value == value for value in metrics.values())
    assert all(p.isfinite().all() for p in everything(learner))
    if not recipe.needs("critic") and not recipe.needs("greedy") and recipe.reward is not step_rewards:
        assert metrics["grad_norm"] == 0


@recipes
def test_who_does_not_enter_is_not_there(recipe: Recipe) -> None:
    recipe = deterministic(recipe)
    learner = make(recipe, rate=0.05)
    rewards = [[1.0, -0.5, None, 2.0], *REWARDS[1:]]
    metrics = step(learner, samples(learner, recipe, rewards), recipe)
    expected = everything(learner)
    for name in ("mask", "count"):
        learner = make(recipe, rate=0.05)
        rollout = samples(learner, recipe)
        getattr(rollout, name)[2] = 0
        step(learner, rollout, recipe)
        assert_same(everything(learner), expected, metrics["grad_norm"])


@recipes
def test_who_enters_twice_is_two_equal_ones(recipe: Recipe) -> None:
    if recipe.needs("step"):
        pytest.skip("tokens are drawn, and of two equal ones one may be")
    recipe = deterministic(recipe)
    responses = [[*RESPONSES[0], RESPONSES[0][3]], *RESPONSES[1:]]
    rewards = [[*REWARDS[0], REWARDS[0][3]], *REWARDS[1:]]
    learner = make(recipe, rate=0.05)
    metrics = step(learner, samples(learner, recipe, rewards, responses), recipe)
    expected = everything(learner)
    learner = make(recipe, rate=0.05)
    rollout = samples(learner, recipe)
    rollout.count[3] = 2
    again = step(learner, rollout, recipe)
    assert_same(everything(learner), expected, metrics["grad_norm"])
    for key in ("entropy", "clip_fraction", "ratio_mean", "policy_loss", "value_loss", "moved_kl"):
        assert again[key] == pytest.approx(metrics[key], rel=1e-4, abs=1e-5)


def deterministic(recipe: Recipe) -> Recipe:
    """One step over everything; who draws tokens draws all in its band, as others would be drawn among other rows."""
    recipe = once(recipe)
    if recipe.critic is not None:
        recipe = replace(
            recipe, critic=replace(recipe.critic, pretraining_passes=min(1, recipe.critic.pretraining_passes))
        )
    if recipe.needs("step"):
        recipe = replace(recipe, surrogate=partial(covariance_masked, share=1.0, low=0.1, high=1.0))
    return recipe


def test_the_draw_of_tokens_does_not_depend_on_micro_batches() -> None:
    # In a wide band, of 20 tokens 6 are drawn; each micro-batch has one prompt.
    recipe = replace(once(RECIPES["clip_cov"]), surrogate=partial(covariance_masked, share=0.3, low=-99.0, high=99.0))
    found = []
    for budget in (WHOLE, CUT):
        learner = make(recipe, rate=0.05)
        torch.manual_seed(budget)  # the draw is of the update's own stream, which a resumed run repeats
        found.append((step(learner, samples(learner, recipe), recipe, budget), everything(learner)))
    (whole, learned), (cut, learned_cut) = found
    learner = make(recipe, rate=0.05)
    plain = step(learner, samples(learner, recipe), once(RECIPES["grpo"]))
    assert whole["clip_fraction"] == pytest.approx(plain["clip_fraction"] + 6 / 20)
    assert cut == pytest.approx(whole, rel=1e-4, abs=1e-5)
    assert_same(learned_cut, learned, whole["grad_norm"])


def test_responses_may_be_as_long_as_the_recipes_constant() -> None:
    # dr_grpo divides by the most tokens that a response may have, not by what these have: half of it, twice the step.
    recipe = once(RECIPES["dr_grpo"])
    norms = []
    for longest in (LONGEST, 2 * LONGEST):
        learner = make(recipe)
        norms.append(step(learner, replace(samples(learner, recipe), longest=longest), recipe)["grad_norm"])
    assert norms[0] == pytest.approx(2 * norms[1], rel=1e-5)


def test_the_draw_of_tokens_looks_at_those_that_enter_alone() -> None:
    recipe = RECIPES["clip_cov"]
    learner = make(recipe)
    rollout = samples(learner, recipe)
    rollout.count[2] = 0  # two of the twenty tokens
    targets, everyone, setting = make_targets(rollout, recipe, 0.0), [0, 1, 2], Setting(TEMPERATURE, WHOLE)
    about = make_step(rollout, targets, recipe, everyone, torch.zeros(rollout.mask.shape))
    parts = batches(learner.policy, rollout, everyone, WHOLE)
    whole = whole_step(learner, rollout, targets, recipe, setting, about, parts)
    assert whole.mask.sum() == 18
    assert not whole.mask[2].any()
