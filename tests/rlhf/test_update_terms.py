"""Terms beside the surrogate: each adds the gradient of its formula. And the critic's pretraining, and figures."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from policy_world import (
    COUNT,
    CUT,
    PROMPTS,
    RESPONSES,
    REWARDS,
    TEMPERATURE,
    WHOLE,
    all_logps,
    gradient_of,
    logps,
    make,
    moved_by,
    once,
    parameters,
    roll,
    step,
)
from torch import Tensor

from rlhf.auxiliary import Likelihood, PositiveTerm, text_likelihood
from rlhf.logprobs import token_logprobs
from rlhf.optimiser_step import Learner, Setting, critic_values
from rlhf.packing import Group, pack
from rlhf.recipes import GRPO, RECIPES, LossKL, Recipe
from rlhf.targets import make_targets, monte_carlo_returns

RATE = 0.2
PLAIN = once(replace(GRPO, loss_kl=None))
Extra = Callable[[Learner], Tensor]


def assert_adds(recipe: Recipe, loss: Extra, likelihoods: Sequence[Likelihood] = (), budget: int = WHOLE) -> None:
    """The recipe's step is that of plain GRPO and a step down the loss."""
    moves = []
    for chosen, beside in ((PLAIN, ()), (recipe, likelihoods)):
        learner = make(chosen, rate=RATE)
        before = parameters(learner.policy.model)
        step(learner, roll(learner), chosen, budget, beside)
        moves.append(moved_by(before, parameters(learner.policy.model), RATE))
    learner = make(PLAIN)
    expected = gradient_of(learner, lambda: loss(learner), learner.policy.model)
    assert max(g.abs().max().item() for g in expected) > 1e-3
    for without, with_it, want in zip(*moves, expected, strict=True):
        torch.testing.assert_close(with_it - without, want, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("budget", [WHOLE, CUT])
def test_the_positive_term_is_the_likelihood_of_the_better_responses(budget: int) -> None:
    # Above the mean of their group (0.7, 0.7, 0.25): responses 0 (1.0, four tokens), 3 (2.0, three) and 6 (1.5, two).
    def loss(learner: Learner) -> Tensor:
        found = logps(learner.policy, learner.policy.model)
        return -0.7 * torch.cat([found[0], found[3], found[6]]).mean()

    assert_adds(replace(PLAIN, positive=PositiveTerm(mu=0.7)), loss, budget=budget)


TEXTS = [Group((70, 71), ((33, 34, 35, 36),)), Group((72,), ((44, 45),))]


@pytest.mark.parametrize("budget", [WHOLE, CUT])
def test_the_pretraining_term_is_a_token_mean_at_temperature_one(budget: int) -> None:
    def loss(learner: Learner) -> Tensor:
        total = torch.zeros(())
        for text in TEXTS:
            ids = [*text.prompt, *text.candidates[0]]
            logp = learner.policy.model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            begin = len(text.prompt)
            total = total - logp[range(begin - 1, len(ids) - 1), ids[begin:]].sum()
        return 0.4 * total / 6

    assert_adds(PLAIN, loss, [text_likelihood("pretraining", TEXTS, 0.4)], budget)


def test_a_term_of_samples_is_at_their_temperature_with_its_own_weights() -> None:
    groups = (Group(PROMPTS[0], ((10, 11), (12,))), Group(PROMPTS[2], ((13, 14, 15),)))
    weights = (torch.tensor([[0.1, 0.2], [0.3, 0.0]]), torch.tensor([[0.4, 0.5, 0.6]]))

    def loss(learner: Learner) -> Tensor:
        flat = [(PROMPTS[0], (10, 11)), (PROMPTS[0], (12,)), (PROMPTS[2], (13, 14, 15))]
        rows = [w for pair in weights for w in pair]
        total = torch.zeros(())
        for (prompt, ids), w in zip(flat, rows, strict=True):
            packed = pack([Group(prompt, (ids,))], 0)
            total = total - (w[: len(ids)] * token_logprobs(learner.policy.model, packed, TEMPERATURE)[0][0]).sum()
        return total

    assert_adds(PLAIN, loss, [Likelihood("tempered", groups, weights)], CUT)


def test_every_pass_goes_over_a_term_once() -> None:
    # Two steps a pass share the two texts; where nothing moves, their mean is the term.
    recipe = replace(PLAIN, epochs=3, minibatches=2)
    learner = make(recipe, rate=0.0)
    metrics = step(learner, roll(learner), recipe, WHOLE, [text_likelihood("pretraining", TEXTS, 0.4)])
    assert metrics["steps"] == 6
    learner = make(PLAIN, rate=0.0)
    whole = step(learner, roll(learner), PLAIN, WHOLE, [text_likelihood("pretraining", TEXTS, 0.4)])
    assert metrics["pretraining_nll"] == pytest.approx(whole["pretraining_nll"], rel=1e-5)


def test_the_entropy_bonus_is_aggregated_like_the_surrogate() -> None:
    def loss(learner: Learner) -> Tensor:
        total = torch.zeros(())
        for prompt, several in zip(PROMPTS, RESPONSES, strict=True):
            for ids in several:
                logits = learner.policy.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0]
                p = (logits[len(prompt) - 1 : -1] / TEMPERATURE).softmax(-1)
                total = total - -(p * p.log()).sum(-1).mean() / COUNT  # the mean over tokens, then over responses
        return 30.0 * total

    assert_adds(replace(PLAIN, entropy_bonus=30.0), loss)


def test_the_coefficient_of_the_kl_in_the_loss_adapts_too() -> None:
    # KL ≈ 0 is far below the target: error −0.2, and β·(1 − 0.2·7/100).
    recipe = replace(PLAIN, loss_kl=LossKL(beta=0.3, target=1.0, horizon=100))
    learner = make(recipe)
    metrics = step(learner, roll(learner, noise=0.0), recipe)
    assert metrics["loss_beta"] == 0.3
    assert "beta" not in metrics
    assert learner.loss_beta == pytest.approx(0.3 * (1 - 0.2 * 7 / 100))
    assert learner.beta == 0


def test_figures_of_ratios_and_clips() -> None:
    # At ε = 0.2 on both sides, from the log-probabilities themselves. Advantages by group: signs of REWARDS − mean.
    learner = make(PLAIN)
    rollout = roll(learner, noise=0.8)
    new = torch.cat(logps(learner.policy, learner.policy.model)).detach()
    ratio = (new - rollout.old_logp[rollout.mask]).exp()
    signs = [r - sum(row) / len(row) for row in REWARDS for r in row]
    sign = torch.cat([torch.full((int(m.sum()),), s) for m, s in zip(rollout.mask, signs, strict=True)])
    high, low = (ratio > 1.2) & (sign > 1e-6), (ratio < 0.8) & (sign < -1e-6)
    metrics = step(learner, rollout, PLAIN)
    assert metrics["ratio_max"] == pytest.approx(ratio.max().item(), rel=1e-4)
    assert metrics["ratio_min"] == pytest.approx(ratio.min().item(), rel=1e-4)
    assert metrics["ratio_mean"] == pytest.approx(ratio.mean().item(), rel=1e-4)
    assert high.any()
    assert low.any()
    assert metrics["clip_fraction_high"] == pytest.approx(high.float().mean().item())
    assert metrics["clip_fraction_low"] == pytest.approx(low.float().mean().item())
    assert metrics["clip_fraction"] == pytest.approx((high | low).float().mean().item())
    assert metrics["sampling_mismatch"] == pytest.approx(ratio.log().abs().mean().item(), rel=1e-4)
    # k3 of the sampling policy against the new one: d = old − new, e^−d − 1 + d.
    assert metrics["moved_kl"] == pytest.approx((ratio - 1 - ratio.log()).mean().item(), rel=1e-4)


def test_the_ends_of_the_ratios_are_those_of_all_steps() -> None:
    recipe = replace(PLAIN, minibatches=3)
    learner = make(recipe, rate=0.0)  # a policy that stays, so that the three steps see what one would
    rollout = roll(learner, noise=0.8)
    ratio = (all_logps(learner.policy, learner.policy.model) - rollout.old_logp[rollout.mask]).exp()
    metrics = step(learner, rollout, recipe)
    assert metrics["steps"] == 3
    assert metrics["ratio_max"] == pytest.approx(ratio.max().item(), rel=1e-4)
    assert metrics["ratio_min"] == pytest.approx(ratio.min().item(), rel=1e-4)
    # All below 1 or all above: what lies outside the responses, where the ratio is 1, is none of them.
    for by in (5.0, -5.0):
        shifted = step(learner, replace(rollout, old_logp=rollout.old_logp + by), recipe)
        assert shifted["ratio_max"] == pytest.approx((ratio / math.exp(by)).max().item(), rel=1e-4)
        assert shifted["ratio_min"] == pytest.approx((ratio / math.exp(by)).min().item(), rel=1e-4)


def test_what_the_update_moves_is_no_mismatch_of_the_samples() -> None:
    recipe = replace(PLAIN, epochs=2)
    learner = make(recipe)
    metrics = step(learner, roll(learner, noise=0.0), recipe)
    assert metrics["ratio_max"] > 1.001
    assert metrics["sampling_mismatch"] == pytest.approx(0, abs=1e-5)


# The critic's figure and its pretraining


def test_the_explained_variance_is_of_the_returns_by_the_values_at_sampling_time() -> None:
    recipe = once(RECIPES["ppo"])
    learner = make(recipe)
    rollout = roll(learner)
    returns = make_targets(rollout, recipe, learner.beta).estimate.returns
    assert rollout.values is not None
    assert returns is not None
    left, whole = ((x[rollout.mask]).var(unbiased=False).item() for x in (returns - rollout.values, returns))
    assert step(learner, rollout, recipe)["explained_variance"] == pytest.approx(1 - left / whole, rel=1e-4)


def with_passes(passes: int) -> tuple[Recipe, Learner]:
    recipe = once(RECIPES["vapo"])
    assert recipe.critic is not None
    recipe = replace(recipe, critic=replace(recipe.critic, pretraining_passes=passes))
    learner = make(recipe, rate=0.0)
    assert learner.critic is not None
    learner.critic_optimizer = torch.optim.SGD(learner.critic.parameters(), lr=1e-4)
    return recipe, learner


def test_pretraining_takes_the_critic_far_beyond_its_clip() -> None:
    # Returns of 5 are far from the first values; the clip of 0.2 around these would stop each token on its way.
    recipe, learner = with_passes(40)
    rollout = roll(learner, [[5.0] * len(r) for r in REWARDS])
    assert rollout.values is not None
    returns = monte_carlo_returns(rollout)
    before = (rollout.values - returns)[rollout.mask].abs()
    policy = parameters(learner.policy.model)
    metrics = step(learner, rollout, recipe)
    after = (critic_values(learner, rollout, Setting(TEMPERATURE, WHOLE)) - returns)[rollout.mask].abs()
    assert before.min() > 3
    assert after.max() < 1
    assert all(torch.equal(a, b) for a, b in zip(policy, parameters(learner.policy.model), strict=True))
    assert metrics["value_loss"] < 0.5  # what the update itself began from: its values are the pretrained ones
    assert learner.updates == 1


def test_pretraining_is_for_the_first_rollout_alone() -> None:
    recipe, learner = with_passes(40)
    learner.updates = 1
    rollout = roll(learner, [[5.0] * len(r) for r in REWARDS])
    step(learner, rollout, recipe)
    assert rollout.values is not None
    after = critic_values(learner, rollout, Setting(TEMPERATURE, WHOLE))
    assert (after - rollout.values).abs().max() < 2  # one step, where pretraining takes it further than 3
