"""Advantages, each against numbers worked out by hand."""

import math
from functools import partial

import pytest
import torch
from by_hand import RAGGED, close, outcomes, signals

from rlhf.advantages import (
    AdvantageFn,
    Signals,
    batch_standardized,
    gae,
    greedy_baseline,
    group_baseline_standardized,
    group_centered,
    group_standardized,
    leave_one_out,
    length_adaptive_gae,
    process_standardized,
)

ROOT3 = math.sqrt(3)
VALUES = torch.tensor([[0.5, 0.2, 0.1], [0.3, 0.4, 9.0]])
REWARDS = [[0.0, 0.0, 1.0], [1.0, 2.0, 7.0]]
BY_GROUP = (group_standardized, group_centered, leave_one_out, process_standardized)


# With a critic


def test_gae_on_ragged_rows() -> None:
    # γ=0.9, λ=0.8, γλ=0.72. Row 0: δ = 0+0.9·0.2−0.5=−0.32, 0+0.9·0.1−0.2=−0.11, 1−0.1=0.9;
    # A = −0.32+0.72·0.538=0.06736, −0.11+0.72·0.9=0.538, 0.9.
    # Row 1 ends after two tokens, and what lies behind (9 and 7) must not matter: δ = 1+0.9·0.4−0.3=1.06, 2−0.4=1.6;
    # A = 1.06+0.72·1.6=2.212, 1.6. Returns are A + V.
    found = gae(signals(REWARDS, values=VALUES), gamma=0.9, lam=0.8, whiten=False)
    close(found.advantages, [[0.06736, 0.538, 0.9], [2.212, 1.6, 0.0]])
    close(found.returns, [[0.56736, 0.738, 1.0], [2.512, 2.0, 0.0]])


def test_with_lambda_one_the_returns_are_monte_carlo() -> None:
    values = torch.tensor([[3.0, -1.0, 0.4], [8.0, 5.0, 0.0]])
    found = gae(signals([[1.0, 2.0, 4.0], [1.0, 2.0, 0.0]], values=values), gamma=0.5, lam=1.0, whiten=False)
    close(found.returns, [[1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0], [1 + 0.5 * 2, 2.0, 0.0]])


@pytest.mark.parametrize("method", [partial(gae, gamma=0.9, lam=0.8), length_adaptive_gae])
def test_whitening_leaves_the_returns_alone(method: AdvantageFn) -> None:
    given = signals(REWARDS, values=VALUES)
    raw, white = (partial(method, whiten=whiten)(given) for whiten in (False, True))
    assert raw.returns is not None
    assert white.returns is not None
    assert torch.equal(raw.returns, white.returns)
    inside = white.advantages[RAGGED]
    assert inside.mean().item() == pytest.approx(0, abs=1e-6)
    assert inside.std().item() == pytest.approx(1, abs=1e-5)
    assert white.advantages[1, 2] == 0


def test_length_adaptive_gae() -> None:
    # α = 0.4: λ = 1 − 1/(0.4·3) = 1/6 for three tokens, and 1 − 1/0.8 < 0 → 0 for two. γ = 1.
    # Row 0: δ = 0.2−0.5 = −0.3, 0.1−0.2 = −0.1, 1−0.1 = 0.9; A = −0.3+0.05/6, −0.1+0.9/6 = 0.05, 0.9.
    # Row 1: A = δ = 1+0.4−0.3 = 1.1, 2−0.4 = 1.6. The critic's λ is 1: its returns are the rewards to go.
    found = length_adaptive_gae(signals(REWARDS, values=VALUES), alpha=0.4, whiten=False)
    close(found.advantages, [[-0.2916667, 0.05, 0.9], [1.1, 1.6, 0.0]])
    close(found.returns, [[1.0, 1.0, 1.0], [3.0, 2.0, 0.0]])
    # With a λ of 0 for the critic its returns are δ + V = r + V'.
    found = length_adaptive_gae(signals(REWARDS, values=VALUES), critic_lam=0.0, whiten=False)
    close(found.returns, [[0.2, 0.1, 1.0], [1.4, 2.0, 0.0]])


def test_papers_lambda_reaches_a_half_at_forty_tokens() -> None:
    # α = 0.05: λ = 1 − 1/(0.05·40) = ½ for 40 tokens, and 0 up to 20. Only the last token is rewarded, V = 0.
    given = outcomes([1.0, 1.0], [0, 0], [40, 20], values=torch.zeros(2, 40))
    advantages = length_adaptive_gae(given, whiten=False).advantages
    close(advantages[0, 37:], [0.25, 0.5, 1.0])
    close(advantages[1, 17:21], [0.0, 0.0, 1.0, 0.0])


# By group


def test_scores_are_standardised_within_their_group() -> None:
    # Group 0 (places 0, 2, 4): 1, 2, 3 → mean 2, unbiased std 1. Group 1: a pair 0, 4 → mean 2, std √8.
    # Group 2 is alone, group 3 has equal rewards: both 0 and not NaN.
    scores, group = [1.0, 0.0, 2.0, 4.0, 3.0, 9.0, 4.0, 4.0], [0, 1, 0, 1, 0, 2, 3, 3]
    given = outcomes(scores, group, [2, 2, 1, 1, 1, 2, 2, 2])
    one, half = 1 / 1.0001, 2 / (math.sqrt(8) + 1e-4)
    advantages = group_standardized(given).advantages
    close(advantages[:, 0], [-one, -half, 0.0, half, one, 0.0, 0.0, 0.0])
    close(advantages[:, 1], [-one, -half, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    close(group_centered(given).advantages[:, 0], [-1.0, -2.0, 0.0, 2.0, 1.0, 0.0, 0.0, 0.0])


def test_a_small_spread_is_held_down_by_epsilon() -> None:
    # Scores ±1e-4 around their mean: std √2·1e-4, so 1e-4/(1.4142e-4 + 1e-4) = 0.41421.
    close(group_standardized(outcomes([0.0, 2e-4], [0, 0], [1, 1])).advantages, [[-0.41421], [0.41421]], 1e-4)


def test_leave_one_out() -> None:
    # 1 − (2+6)/2 = −3, 2 − (1+6)/2 = −1.5, 6 − (1+2)/2 = 4.5; a group of one has nobody to compare with.
    found = leave_one_out(outcomes([1.0, 2.0, 6.0, 5.0], [0, 0, 0, 1], [1, 2, 1, 2])).advantages
    close(found, [[-3.0, 0.0], [-1.5, -1.5], [4.5, 0.0], [0.0, 0.0]])


def test_a_penalty_inside_the_reward_is_part_of_the_total() -> None:
    # Totals 1 − 0.4 = 0.6 and 2 − 0.2 = 1.8; what is masked (7) is not. Leave one out: −1.2 and 1.2.
    given = signals([[-0.1, -0.2, 0.9], [-0.2, 2.0, 7.0]])
    close(leave_one_out(given).advantages, [[-1.2, -1.2, -1.2], [1.2, 1.2, 0.0]])
    close(group_centered(given).advantages, [[-0.6, -0.6, -0.6], [0.6, 0.6, 0.0]])


def test_step_rewards_are_standardised_over_the_whole_group_and_summed_from_behind() -> None:
    # Response 0 has steps ending at tokens 1 and 3 with rewards 1 and 4, response 1 one step with reward 1, which ends
    # at token 2. All three: mean 2, centred −1, 2, −1, unbiased std √(6/2) = √3.
    # A token has the steps that end at it or after it. Response 2 is alone with one step.
    ends = torch.zeros(3, 4, dtype=torch.bool)
    ends[0, 1] = ends[0, 3] = ends[1, 2] = ends[2, 0] = True
    rewards = torch.zeros(3, 4)
    rewards[0, 1], rewards[0, 3], rewards[1, 2], rewards[2, 0] = 1.0, 4.0, 1.0, 8.0
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.bool)
    given = Signals(rewards, mask, torch.tensor([0, 0, 1]), torch.ones(3), step_ends=ends)
    unit = 1 / (ROOT3 + 1e-4)
    expected = [[unit, unit, 2 * unit, 2 * unit], [-unit, -unit, -unit, 0.0], [0.0] * 4]
    close(process_standardized(given).advantages, expected)
    # A penalty on a token counts in the step that the token belongs to: the same totals, the same advantages.
    spread = rewards.clone()
    spread[0] = torch.tensor([-0.5, 1.5, -1.0, 5.0])
    spread[1, 3] = 99.0  # masked, as is the end of a step there
    ends[1, 3] = True
    given = Signals(spread, mask, torch.tensor([0, 0, 1]), torch.ones(3), step_ends=ends)
    close(process_standardized(given).advantages, expected)
    # Without step ends the outcome is the only step.
    plain = outcomes([1.0, 3.0], [0, 0], [2, 1])
    close(process_standardized(plain).advantages, group_standardized(plain).advantages.tolist())


# Without either


def test_greedy_baseline() -> None:
    # Rewards to go 1.9, 2, 2 less the greedy response's 0.5; 1 and 2 of the second row are 3, 2 less −1.
    given = signals([[-0.1, 0.0, 2.0], [1.0, 2.0, 7.0]], baseline=torch.tensor([0.5, -1.0]))
    close(greedy_baseline(given).advantages, [[1.4, 1.5, 1.5], [4.0, 3.0, 0.0]])


def test_rewards_to_go_are_whitened_over_all_tokens() -> None:
    # To go: 2, 2 and −1. Mean 1, centred 1, 1, −2, unbiased std √(6/2).
    given = signals([[0.0, 2.0], [-1.0, 5.0]], torch.tensor([[True, True], [True, False]]))
    close(batch_standardized(given).advantages, [[1 / ROOT3, 1 / ROOT3], [-2 / ROOT3, 0.0]])
    # γ = ½, rewards (0, 2) and (−3): to go 1, 2, −3, mean 0, std √(14/2).
    given = signals([[0.0, 2.0], [-3.0, 5.0]], torch.tensor([[True, True], [True, False]]))
    found = batch_standardized(given, gamma=0.5).advantages
    close(found, [[1 / math.sqrt(7), 2 / math.sqrt(7)], [-3 / math.sqrt(7), 0.0]])


def test_group_means_are_subtracted_before_whitening() -> None:
    # Groups 1, 3 and 5: less their means −1, 1, 0, on 1, 2 and 1 tokens: −1, 1, 1, 0. Mean ¼, centred −1.25, 0.75,
    # 0.75, −0.25, whose squares sum to 2.75: std √(2.75/3) = 0.9574271.
    found = group_baseline_standardized(outcomes([1.0, 3.0, 5.0], [0, 0, 1], [1, 2, 1])).advantages
    close(found, [[-1.305582, 0.0], [0.783349, 0.783349], [-0.261116, 0.0]])


# What holds for all


@pytest.mark.parametrize("score", [0.1, -3.3, 12345.678])
@pytest.mark.parametrize("method", [*BY_GROUP, batch_standardized, group_baseline_standardized])
def test_equal_rewards_give_nothing_however_large(method: AdvantageFn, score: float) -> None:
    # Nine in a group: the mean of nine times 0.1 is not 0.1 in float32.
    found = method(outcomes([score] * 11, [0] * 9 + [1] * 2, [1, 2, 3, 1, 2, 3, 2, 1, 1, 2, 3])).advantages
    assert found.abs().max() == 0


@pytest.mark.parametrize("method", [*BY_GROUP, batch_standardized, group_baseline_standardized, gae])
def test_a_response_that_enters_twice_is_two_equal_ones(method: AdvantageFn) -> None:
    # And one that does not enter, or has no tokens, is not there.
    scores, group, lengths = [1.0, -0.5, 2.0, 0.3, 40.0], [0, 0, 0, 1, 1], [2, 3, 1, 2, 2]
    values = torch.linspace(-1, 1, 15).reshape(5, 3)
    counted = outcomes(scores, group, lengths, values=values, count=torch.tensor([1.0, 2.0, 1.0, 1.0, 0.0]))
    empty = outcomes(scores[:4], group[:4], lengths[:4], values=values[:4])
    rows = [0, 1, 1, 2, 3]
    several = outcomes([scores[r] for r in rows], [group[r] for r in rows], [lengths[r] for r in rows])
    several = Signals(several.rewards, several.mask, several.group, several.count, values[rows])
    expected = method(several).advantages
    torch.testing.assert_close(method(counted).advantages[rows], expected)
    assert not torch.allclose(method(empty).advantages[1], expected[1])  # so the count mattered
    blank = counted.mask.clone()
    blank[4] = False
    without = Signals(counted.rewards, blank, counted.group, torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0]), values)
    torch.testing.assert_close(method(without).advantages[rows], expected)


def test_two_entries_of_one_and_one_of_another() -> None:
    # 0, 0, 3: mean 1, unbiased std √(6/2); left out, 0 meets (0+3)/2 and 3 meets 0.
    given = outcomes([0.0, 3.0], [0, 0], [1, 1], count=torch.tensor([2.0, 1.0]))
    close(group_standardized(given).advantages, [[-1 / (ROOT3 + 1e-4)], [2 / (ROOT3 + 1e-4)]])
    close(leave_one_out(given).advantages, [[-1.5], [3.0]])


@pytest.mark.parametrize("method", [gae, length_adaptive_gae, greedy_baseline])
def test_what_is_missing_is_said(method: AdvantageFn) -> None:
    with pytest.raises(ValueError, match=r"needs the (values of a critic|scores of greedy responses)"):
        method(signals(REWARDS))
