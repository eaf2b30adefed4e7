"""What a rollout asks of the update: shaped scores, rewards, the better responses, weights of terms beside."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from by_hand import close

from rlhf.auxiliary import Likelihood
from rlhf.optimiser_step import make_step, share
from rlhf.packing import Group
from rlhf.recipes import GRPO, RECIPES
from rlhf.rollout import Rollout
from rlhf.shaping import RunningUnit
from rlhf.targets import (
    explained_variance,
    likelihood_weights,
    make_targets,
    monte_carlo_returns,
    rollout_figures,
    shaped,
)

NAN = float("nan")
MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)


def rollout(**changes: Any) -> Rollout:
    """Two responses to one prompt and one to another, of 2, 3 and 1 of at most 4 tokens."""
    plain = Rollout(
        groups=(Group((7,), ((1, 2), (3, 4, 5))), Group((8,), ((6,),))),
        group=torch.tensor([0, 0, 1]),
        mask=MASK,
        old_logp=torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0], [-3.0, 0.0, 0.0]]),
        ref_logp=torch.tensor([[-1.5, -2.5, 0.0], [-1.0, 0.0, -1.0], [-2.0, 0.0, 0.0]]),
        scores=torch.tensor([1.0, 3.0, 5.0]),
        count=torch.ones(3),
        values=None,
        baseline=None,
        step_scores=None,
        longest=4,
    )
    return replace(plain, **changes)


def test_shaping_in_its_order_penalty_unit_bound() -> None:
    # L_max = 4, L_cache = 0.5·4: lengths 2, 3, 1 cost 0, ½, 0: scores 1, 2.5, 5.
    recipe = replace(RECIPES["dapo"], score=partial(RECIPES["dapo"].score, cache=0.5))
    close(shaped(rollout(), recipe, RunningUnit()).scores, [1.0, 2.5, 5.0])
    # In units of what was seen: 1, 2.5, 5 have mean 17/6 and unbiased variance 4.083333.
    running = replace(recipe, running_scores=True)
    unit = RunningUnit()
    close(shaped(rollout(), running, unit).scores, [-0.907265, -0.164957, 1.072223])
    assert unit.count == 3
    close(shaped(rollout(), replace(running, score_clip=0.5), RunningUnit()).scores, [-0.5, -0.164957, 0.5])
    assert shaped(rollout(), recipe, unit).scores is not None
    assert unit.count == 3  # only running scores are taken in


def test_the_baseline_shares_unit_and_bound() -> None:
    # Scores 1, 3, 5 have mean 3 and std 2; greedy responses' 3, 3 and 11 are 0, 0 and 4.
    recipe = replace(RECIPES["remax"], running_scores=True, score_clip=1.5)
    given = rollout(baseline=torch.tensor([3.0, 3.0, 11.0]))
    found = shaped(given, recipe, RunningUnit())
    close(found.scores, [-1.0, 0.0, 1.0])
    close(found.baseline, [0.0, 0.0, 1.5])
    close(shaped(given, RECIPES["remax"], RunningUnit()).baseline, [3.0, 3.0, 11.0])


def test_what_shaping_does_to_an_outcome_is_done_to_its_last_step() -> None:
    steps = torch.tensor([[0.5, 0.5, NAN], [NAN, 1.0, 2.0], [5.0, NAN, NAN]])
    recipe = replace(RECIPES["grpo_process"], score_clip=2.0)
    found = shaped(rollout(step_scores=steps), recipe, RunningUnit())
    close(found.scores, [1.0, 2.0, 2.0])
    assert found.step_scores is not None
    close(found.step_scores.nan_to_num(-9.0), [[0.5, 0.5, -9.0], [-9.0, 1.0, 1.0], [2.0, -9.0, -9.0]])
    assert torch.equal(found.step_scores.isnan(), steps.isnan())
    # Steps 0.5, 0.5, 1, 1 of the first prompt: mean ¾, unbiased std √(¼/3) = 0.2886751; r̃ = ∓0.25/(std + 1e-4).
    unit = 0.25 / (0.2886751 + 1e-4)
    advantages = make_targets(found, recipe, 0.0).estimate.advantages
    close(advantages, [[-2 * unit, -unit, 0.0], [2 * unit, 2 * unit, unit], [0.0, 0.0, 0.0]], 1e-4)


def test_the_kl_in_the_reward_is_of_the_sampling_policy() -> None:
    # k1 = old − ref: ½, ½ | 0, −1, 0 | −1. Leave one out of totals 1 − 0.1·1 and 3 + 0.1·1; KL of sequences 1, −1, −1.
    found = make_targets(rollout(), RECIPES["rloo"], 0.1)
    close(found.estimate.advantages, [[-2.2, -2.2, 0.0], [2.2, 2.2, 2.2], [0.0, 0.0, 0.0]])
    assert found.kl_per_sequence == pytest.approx(-1 / 3)
    assert found.kl_per_token == pytest.approx(-1 / 6)


def test_better_is_above_the_mean_of_the_group_and_knows_no_penalty() -> None:
    plain = rollout()
    for old, ref in ((plain.old_logp, plain.ref_logp), (plain.ref_logp, plain.old_logp)):  # a KL of 1 here or there
        found = make_targets(rollout(old_logp=old, ref_logp=ref), RECIPES["rloo"], 100.0)
        assert found.better.tolist() == [False, True, False]
    equal = rollout(scores=torch.tensor([0.1, 0.1, 0.1]))
    assert not make_targets(equal, GRPO, 0.0).better.any()


def test_weights_of_the_better_ones_are_of_the_step_alone() -> None:
    recipe = RECIPES["vapo"]
    given = rollout(values=torch.zeros(3, 3))
    targets = make_targets(given, recipe, 0.0)
    close(likelihood_weights(given, targets, recipe, torch.tensor([0, 1])), [[0.0] * 3, [0.1 / 3] * 3])
    assert likelihood_weights(given, targets, GRPO, torch.tensor([0, 1])) is None
    # In the step's place among all: nothing for a step without a better response.
    step = make_step(given, targets, recipe, [0], torch.zeros(3, 3))
    assert step.likelihood is not None
    close(step.likelihood, [[0.0] * 3, [0.1 / 3] * 3, [0.0] * 3])
    close(step.weights, [[0.2, 0.2, 0.0], [0.2, 0.2, 0.2], [0.0] * 3])
    assert (step.tokens, step.rows.tolist()) == (5, [0, 1])
    other = make_step(given, targets, recipe, [1], torch.zeros(3, 3))
    assert other.likelihood is not None
    assert other.likelihood.abs().max() == 0
    close(other.weights, [[0.0] * 3, [0.0] * 3, [1.0, 0.0, 0.0]])


def test_a_step_counts_responses_as_often_as_they_enter() -> None:
    given = rollout(count=torch.tensor([2.0, 1.0, 1.0]))
    step = make_step(given, make_targets(given, GRPO, 0.0), GRPO, [0, 1], torch.zeros(3, 3))
    close(step.weights, [[1 / 4, 1 / 4, 0.0], [1 / 12] * 3, [1 / 4, 0.0, 0.0]])
    assert step.tokens == 8


def test_a_term_is_the_mean_of_its_shares() -> None:
    term = Likelihood("x", (Group((1,), ((2,),)), Group((3,), ((4,),))), (torch.tensor([[0.3]]), torch.tensor([[0.5]])))
    parts = [share(term, [1], 2), share(term, [0], 2)]
    assert [p.groups for p in parts] == [(term.groups[1],), (term.groups[0],)]
    assert [p.weights[0].item() for p in parts] == pytest.approx([1.0, 0.6])
    assert sum(p.weights[0].item() for p in parts) / 2 == pytest.approx(0.8)


def test_monte_carlo_returns_are_rewards_to_go() -> None:
    close(monte_carlo_returns(rollout()), [[1.0, 1.0, 0.0], [3.0, 3.0, 3.0], [5.0, 0.0, 0.0]])
    steps = torch.tensor([[0.5, 0.5, NAN], [NAN, 1.0, 2.0], [5.0, NAN, NAN]])
    found = monte_carlo_returns(rollout(step_scores=steps))
    close(found, [[1.0, 0.5, 0.0], [3.0, 3.0, 2.0], [5.0, 0.0, 0.0]])


def test_figures() -> None:
    found = rollout_figures(rollout(missing=3, unused=2), make_targets(rollout(), GRPO, 0.0))
    assert found == pytest.approx(
        {
            "kl_per_sequence": -1 / 3,
            "kl_per_token": -1 / 6,
            "missing_rewards": 3.0,
            "unused_samples": 2.0,
            "length": 2.0,
            "sampling_entropy": 9 / 6,
        }
    )


def test_explained_variance_by_hand() -> None:
    returns, mask = torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[True, True, False]])
    # Var(R) = 1. V = (1, 2): R − V = (0, 1), variance ¼. Perfect: 1. Constant returns: 0.
    assert explained_variance(torch.tensor([[1.0, 2.0, 0.0]]), returns, mask) == pytest.approx(0.75)
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(returns, torch.ones(1, 3), mask) == 0
