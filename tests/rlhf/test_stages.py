"""The stages of recipes, each against numbers worked out by hand."""

import math

import pytest
import torch

from rlhf.advantages import Signals, gae, group_standardized
from rlhf.aggregation import sequence_mean, token_mean
from rlhf.auxiliary import clipped_value_loss
from rlhf.divergences import k1, k2, k3
from rlhf.masked import last_token, masked_mean, masked_whiten
from rlhf.ratios import token_ratio
from rlhf.shaping import adapt_beta, token_rewards
from rlhf.surrogates import Tokens, clipped

RAGGED = torch.tensor([[1, 1, 1], [1, 1, 0]], dtype=torch.bool)


def signals(values: list, rewards: list, mask: torch.Tensor = RAGGED) -> Signals:
    rows = len(values)
    group, once = torch.zeros(rows).long(), torch.ones(rows)
    return Signals(torch.tensor(rewards), mask, group, once, torch.tensor(values))


def close(found: torch.Tensor, expected: list, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), atol=tolerance, rtol=0)


# Divergences


def test_estimators_at_a_ratio_of_two() -> None:
    logp, ref = torch.tensor(-1.0), torch.tensor(-1.0 - math.log(2))  # d = log 2
    assert k1(logp, ref).item() == pytest.approx(0.6931472)
    assert k2(logp, ref).item() == pytest.approx(0.2402265)  # 0.6931472²/2
    assert k3(logp, ref).item() == pytest.approx(0.1931472)  # ½ − 1 + log 2


def expected_gradient(estimator: object, logits: torch.Tensor, ref: torch.Tensor) -> torch.Tensor:
    """Σ_y π(y)·∇estimator(y), the gradient of the estimator as a loss on samples of π."""
    logits = logits.clone().requires_grad_()
    logp = logits.log_softmax(0)
    (logp.exp().detach() * estimator(logp, ref)).sum().backward()  # type: ignore[operator]
    assert logits.grad is not None
    return logits.grad


def test_estimators_over_a_whole_distribution() -> None:
    logits = torch.tensor([0.5, -1.0, 0.2, 1.3], dtype=torch.float64)
    ref = torch.tensor([1.0, 0.1, -0.4, 0.3], dtype=torch.float64).log_softmax(0)
    logp = logits.log_softmax(0)
    kl = (logp.exp() * (logp - ref)).sum().item()
    for unbiased in (k1, k3):
        assert (logp.exp() * unbiased(logp, ref)).sum().item() == pytest.approx(kl)

    def gradient(loss: object) -> torch.Tensor:
        x = logits.clone().requires_grad_()
        loss(x.log_softmax(0)).backward()  # type: ignore[operator]
        assert x.grad is not None
        return x.grad

    reverse = gradient(lambda q: (q.exp() * (q - ref)).sum())
    forward = gradient(lambda q: (ref.exp() * (ref - q)).sum())
    torch.testing.assert_close(expected_gradient(k1, logits, ref), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(expected_gradient(k2, logits, ref), reverse)
    # E_π[∇k3] = −Σ ref·∇log π, since ∇k3 = (1 − ref/π)·∇log π.
    torch.testing.assert_close(expected_gradient(k3, logits, ref), forward)


# Shaping


def test_token_rewards_put_the_score_on_the_last_token_and_the_penalty_on_each() -> None:
    old = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -9.0]])
    ref = torch.tensor([[-1.5, -1.0, -3.0], [-1.0, -2.0, 5.0]])
    # −0.1·(0.5), −0.1·(−1), −0.1·0 + 2; second row: 0, −0.1·1 − 3, and nothing outside the mask.
    given = torch.tensor([[0.0, 0.0, 2.0], [0.0, -3.0, 7.0]])
    close(token_rewards(given, old, ref, RAGGED, 0.1), [[-0.05, 0.1, 2.0], [0.0, -3.1, 0.0]])


@pytest.mark.parametrize(("kl", "beta"), [(12.0, 0.102), (6.6, 0.101), (6.0, 0.1), (3.0, 0.098), (-50.0, 0.098)])
def test_beta_moves_by_a_clipped_error(kl: float, beta: float) -> None:
    # β·(1 + clip(kl/6 − 1, ±0.2)·100/1000): errors +1→+0.2, +0.1, 0, −0.5→−0.2.
    assert adapt_beta(0.1, kl, target=6.0, samples=100, horizon=1000) == pytest.approx(beta)


# Advantages


def test_gae_by_hand_on_ragged_rows() -> None:
    # γ=0.9, λ=0.8, γλ=0.72. Row 0: δ = 0+0.9·0.2−0.5=−0.32, 0+0.9·0.1−0.2=−0.11, 1−0.1=0.9;
    # A = −0.32+0.72·0.538=0.06736, −0.11+0.72·0.9=0.538, 0.9.
    # Row 1 ends after two tokens, and what lies behind (9 and 7) must not matter: δ = 1+0.9·0.4−0.3=1.06, 2−0.4=1.6;
    # A = 1.06+0.72·1.6=2.212, 1.6. Returns are A + V.
    found = gae(
        signals([[0.5, 0.2, 0.1], [0.3, 0.4, 9.0]], [[0.0, 0.0, 1.0], [1.0, 2.0, 7.0]]),
        gamma=0.9,
        lam=0.8,
        whiten=False,
    )
    close(found.advantages, [[0.06736, 0.538, 0.9], [2.212, 1.6, 0.0]])
    assert found.returns is not None
    close(found.returns, [[0.56736, 0.738, 1.0], [2.512, 2.0, 0.0]])


def test_with_lambda_one_the_returns_are_monte_carlo() -> None:
    found = gae(
        signals([[3.0, -1.0, 0.4], [8.0, 5.0, 0.0]], [[1.0, 2.0, 4.0], [1.0, 2.0, 0.0]]),
        gamma=0.5,
        lam=1.0,
        whiten=False,
    )
    assert found.returns is not None
    close(found.returns, [[1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4.0], [1 + 0.5 * 2, 2.0, 0.0]])


def test_whitening_leaves_the_returns_alone() -> None:
    given = signals([[0.5, 0.2, 0.1], [0.3, 0.4, 9.0]], [[0.0, 0.0, 1.0], [1.0, 2.0, 7.0]])
    raw, white = (gae(given, gamma=0.9, lam=0.8, whiten=whiten) for whiten in (False, True))
    assert raw.returns is not None
    assert torch.equal(raw.returns, white.returns)
    inside = white.advantages[RAGGED]
    assert inside.mean().item() == pytest.approx(0, abs=1e-6)
    assert inside.std().item() == pytest.approx(1, abs=1e-5)
    assert white.advantages[1, 2] == 0


def test_scores_are_standardised_within_their_group() -> None:
    # Group 0 (places 0, 2, 4): 1, 2, 3 → mean 2, unbiased std 1. Group 1: a pair 0, 4 → mean 2, std √8.
    # Group 2 is alone, group 3 has equal rewards: both 0 and not NaN.
    scores = torch.tensor([1.0, 0.0, 2.0, 4.0, 3.0, 9.0, 4.0, 4.0])
    group = torch.tensor([0, 1, 0, 1, 0, 2, 3, 3])
    mask = torch.ones(8, 2, dtype=torch.bool)
    mask[2:5, 1] = False
    given = Signals(scores[:, None] * last_token(mask), mask, group, torch.ones(8))
    one, half = 1 / 1.0001, 2 / (math.sqrt(8) + 1e-4)
    advantages = group_standardized(given).advantages
    close(advantages[:, 0], [-one, -half, 0.0, half, one, 0.0, 0.0, 0.0])
    close(advantages[:, 1], [-one, -half, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("score", [0.1, -3.3, 12345.678])
def test_equal_rewards_give_nothing_however_large(score: float) -> None:
    given = Signals(torch.full((7, 1), score), torch.ones(7, 1).bool(), torch.zeros(7).long(), torch.ones(7))
    close(group_standardized(given).advantages, [[0.0]] * 7, 1e-6)


# Masks, ratio, aggregation


def test_masked_reductions() -> None:
    x, mask = torch.tensor([[1.0, 2.0], [3.0, 99.0]]), torch.tensor([[True, True], [True, False]])
    assert masked_mean(x, mask).item() == 2
    close(masked_whiten(x, mask), [[-1.0, 0.0], [1.0, 0.0]])  # mean 2, unbiased std 1
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    assert masked_mean(x, nothing).item() == 0
    close(masked_whiten(x, nothing), [[0.0, 0.0], [0.0, 0.0]])
    close(masked_whiten(torch.full((1, 3), 5.0), torch.ones(1, 3).bool()), [[0.0, 0.0, 0.0]])
    assert last_token(RAGGED).tolist() == [[False, False, True], [False, True, False]]
    assert last_token(torch.tensor([[True], [False]])).tolist() == [[True], [False]]


def test_the_ratio_is_new_over_old_and_one_outside() -> None:
    logp, old = torch.tensor([[math.log(0.6), 3.0]]), torch.tensor([[math.log(0.3), 1.0]])
    close(token_ratio(logp, old, torch.tensor([[True, False]])), [[2.0, 1.0]])


def test_aggregation_weights() -> None:
    mask = torch.tensor([[1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    close(sequence_mean(mask, torch.ones(2), 9), [[1 / 2, 0, 0], [1 / 6, 1 / 6, 1 / 6]])  # 1/(N·length)
    close(token_mean(mask, torch.ones(2), 9), [[1 / 4, 0, 0], [1 / 4, 1 / 4, 1 / 4]])  # 1/4 tokens


def test_a_response_without_tokens_weighs_nothing() -> None:
    mask = torch.tensor([[0, 0], [1, 1]], dtype=torch.bool)
    close(sequence_mean(mask, torch.ones(2), 9), [[0.0, 0.0], [0.5, 0.5]])
    close(token_mean(mask, torch.ones(2), 9), [[0.0, 0.0], [0.5, 0.5]])
    for weights in (sequence_mean, token_mean):
        assert weights(torch.zeros(2, 2).bool(), torch.ones(2), 9).tolist() == [[0, 0], [0, 0]]


# Surrogate and value loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "gradient"),
    [
        # ε_lo = 0.1, ε_hi = 0.3. A > 0: only a ratio above 1.3 is clipped, to 1.3·A.
        (0.5, 2.0, 1.0, 2.0),
        (0.95, 2.0, 1.9, 2.0),
        (1.25, 2.0, 2.5, 2.0),
        (1.5, 2.0, 2.6, 0.0),
        # A < 0: only a ratio below 0.9 is clipped, to 0.9·A; a large one costs in full.
        (0.5, -2.0, -1.8, 0.0),
        (0.95, -2.0, -1.9, -2.0),
        (1.25, -2.0, -2.5, -2.0),
        (1.5, -2.0, -3.0, -2.0),
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_clipped_surrogate(ratio: float, advantage: float, objective: float, gradient: float) -> None:
    rho = torch.tensor(ratio, requires_grad=True)
    tokens = Tokens(rho.log(), rho, torch.tensor(advantage), torch.tensor(True))
    found = clipped(tokens, eps_low=0.1, eps_high=0.3)
    found.objective.backward()
    assert found.objective.item() == pytest.approx(objective)
    assert rho.grad is not None
    assert rho.grad.item() == pytest.approx(gradient)
    assert found.clipped.item() == (gradient == 0 and advantage != 0)


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient"),
    [
        (1.1, 1.0, 2.0, 0.405, -0.9),  # inside the clip: ½·0.9²
        (1.5, 1.0, 1.0, 0.125, 0.5),  # ½·max(0.5², 0.2²): moving back stays free
        (0.5, 1.0, 0.9, 0.08, -0.4),  # ½·max(0.4², 0.1²)
        (1.5, 1.0, 2.0, 0.32, 0.0),  # ½·max(0.5², 0.8²): going further that way gains nothing
    ],
)
def test_clipped_value_loss(value: float, old: float, target: float, loss: float, gradient: float) -> None:
    v = torch.tensor(value, requires_grad=True)
    found = clipped_value_loss(v, torch.tensor(old), torch.tensor(target), 0.2)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(gradient)
