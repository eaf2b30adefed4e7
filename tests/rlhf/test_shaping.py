"""From scores to token rewards, and the controllers."""

import math

import pytest
import torch
from by_hand import RAGGED, close

from rlhf.shaping import RunningUnit, adapt_beta, adapt_temperature, as_scored, overlong_penalised, token_rewards


def test_the_given_reward_stays_where_it_is_and_the_penalty_is_on_each_token() -> None:
    old = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -9.0]])
    ref = torch.tensor([[-1.5, -1.0, -3.0], [-1.0, -2.0, 5.0]])
    # −0.1·(0.5), −0.1·(−1), −0.1·0 + 2; second row: 0, −0.1·1 − 3, and nothing outside the mask.
    given = torch.tensor([[0.0, 0.0, 2.0], [0.0, -3.0, 7.0]])
    close(token_rewards(given, old, ref, RAGGED, 0.1), [[-0.05, 0.1, 2.0], [0.0, -3.1, 0.0]])


def test_the_overlong_penalty_at_its_borders() -> None:
    # L_max = 10, L_cache = 2: nothing up to 8, then (8 − |y|)/2 down to −1 at 10, and −1 beyond.
    lengths = torch.tensor([1, 7, 8, 9, 10, 12])
    found = overlong_penalised(torch.full((6,), 0.5), lengths, 10, cache=0.2)
    close(found, [0.5, 0.5, 0.5, 0.0, -0.5, -0.5])
    close(overlong_penalised(torch.zeros(2), torch.tensor([16384, 20480]), 20480), [0.0, -1.0])  # the paper's numbers
    close(as_scored(torch.tensor([3.0]), torch.tensor([99]), 10), [3.0])


@pytest.mark.parametrize(("kl", "beta"), [(12.0, 0.102), (6.6, 0.101), (6.0, 0.1), (3.0, 0.098), (-50.0, 0.098)])
def test_beta_moves_by_a_clipped_error(kl: float, beta: float) -> None:
    # β·(1 + clip(kl/6 − 1, ±0.2)·100/1000): errors +1→+0.2, +0.1, 0, −0.5→−0.2.
    assert adapt_beta(0.1, kl, target=6.0, samples=100, horizon=1000) == pytest.approx(beta)


def test_a_short_horizon_never_makes_beta_negative() -> None:
    assert adapt_beta(0.1, 0.0, target=6.0, samples=100, horizon=1) == pytest.approx(0.08)  # 1 − 0.2·100/100


@pytest.mark.parametrize(
    ("measured", "temperature"),
    [
        # T·(1 + 0.25·clip(1 − measured/2, ±0.2)): warmer while there is less than wanted.
        (1.0, 1.05),
        (1.8, 1.025),
        (2.0, 1.0),
        (2.2, 0.975),
        (9.0, 0.95),
    ],
)
def test_the_temperature_follows_what_is_measured(measured: float, temperature: float) -> None:
    assert adapt_temperature(1.0, measured, 2.0, 0.5, 1.5) == pytest.approx(temperature)
    assert adapt_temperature(1.0, measured, 2.0, 0.99, 1.01) == pytest.approx(min(max(temperature, 0.99), 1.01))


def test_running_units() -> None:
    unit = RunningUnit()
    assert unit.express(torch.tensor([4.0])).tolist() == [4.0]  # nothing seen: mean 0, std 1
    unit.take(torch.tensor([1.0]))
    assert unit.express(torch.tensor([4.0])).tolist() == [3.0]  # no spread yet
    unit.take(torch.tensor([2.0, 3.0]))
    close(unit.express(torch.tensor([1.0, 5.0])), [-1.0, 3.0])  # mean 2, unbiased std 1
    unit.take(torch.tensor([6.0]))
    # 1, 2, 3, 6: mean 3, unbiased variance (4 + 1 + 0 + 9)/3.
    close(unit.express(torch.tensor([3.0, 6.0])), [0.0, 3 / math.sqrt(14 / 3)])
