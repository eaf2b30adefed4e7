"""Ratios and their gradients, and the weights of tokens in the one sum that is optimised."""

import math

import pytest
import torch
from by_hand import RAGGED, central_differences, close, gradient
from torch import Tensor

from rlhf.aggregation import AggregationFn, fixed_length, sequence_mean, sequence_sum, token_mean
from rlhf.ratios import RatioFn, product_ratio, sequence_ratio, token_ratio

# Row 0: log-ratios 0.2, 0.4, −0.3, sum 0.3, mean 0.1. Row 1: 0.5, 0.7, and what is masked (9) must not matter.
OLD = torch.tensor([[-1.0, -2.0, -0.5], [-1.5, -0.7, -3.0]], dtype=torch.float64)
NEW = OLD + torch.tensor([[0.2, 0.4, -0.3], [0.5, 0.7, 9.0]], dtype=torch.float64)
# What the loss makes of each token: any numbers, so that no two tokens can be mistaken for each other.
PULL = torch.tensor([[0.3, -1.2, 2.0], [-0.8, 0.5, 4.0]], dtype=torch.float64)


def pulled(ratio: RatioFn, x: Tensor) -> Tensor:
    return (PULL * RAGGED * ratio(x, OLD, RAGGED)).sum()


def test_values() -> None:
    e = math.exp
    close(token_ratio(NEW, OLD, RAGGED), [[e(0.2), e(0.4), e(-0.3)], [e(0.5), e(0.7), 1.0]])
    close(sequence_ratio(NEW, OLD, RAGGED), [[e(0.1)] * 3, [e(0.6), e(0.6), 1.0]])  # (0.5 + 0.7)/2
    close(product_ratio(NEW, OLD, RAGGED), [[e(0.3)] * 3, [e(1.2), e(1.2), 1.0]])


@pytest.mark.parametrize("ratio", [token_ratio, product_ratio])
def test_gradients_against_finite_differences(ratio: RatioFn) -> None:
    found = gradient(lambda x: pulled(ratio, x), NEW)
    torch.testing.assert_close(found, central_differences(lambda x: pulled(ratio, x), NEW), atol=1e-7, rtol=1e-7)
    assert found[1, 2] == 0


def test_the_gradient_of_a_sequence_ratio_is_each_tokens_own() -> None:
    # Σ_t c_t·sg[s]·exp(logp_t − sg[logp_t]): ∂/∂logp_t = c_t·s. The same with the stopped parts frozen by hand.
    s = torch.tensor([[0.1], [0.6]], dtype=torch.float64).exp()
    found = gradient(lambda x: pulled(sequence_ratio, x), NEW)
    torch.testing.assert_close(found, PULL * RAGGED * s)
    frozen = central_differences(lambda x: (PULL * RAGGED * s * (x - NEW).exp()).sum(), NEW)
    torch.testing.assert_close(found, frozen, atol=1e-7, rtol=1e-7)


def test_with_one_advantage_its_mean_over_tokens_has_the_gradient_of_the_ratio_itself() -> None:
    # GSPO: ∇(1/|y| Σ_t A·s_t) = A·∇s, s = exp(mean(logp − old)).
    advantage = torch.tensor([[2.0], [-3.0]], dtype=torch.float64)
    weights = sequence_mean(RAGGED, torch.ones(2), 9)
    found = gradient(lambda x: (weights * advantage * sequence_ratio(x, OLD, RAGGED)).sum(), NEW)

    def plain(x: Tensor) -> Tensor:
        mean = ((x - OLD) * RAGGED).sum(1) / RAGGED.sum(1)
        return (advantage[:, 0] * mean.exp()).mean()

    torch.testing.assert_close(found, central_differences(plain, NEW), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("ratio", [token_ratio, sequence_ratio, product_ratio])
def test_a_response_without_tokens_has_ratio_one_and_no_gradient(ratio: RatioFn) -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    assert ratio(NEW, OLD, nothing).tolist() == [[1.0] * 3] * 2
    assert gradient(lambda x: ratio(x, OLD, nothing).sum(), NEW).abs().max() == 0


@pytest.mark.parametrize("ratio", [token_ratio, sequence_ratio, product_ratio])
@pytest.mark.parametrize("by", [-300.0, 300.0])
def test_a_ratio_out_of_all_bounds_is_held_and_keeps_its_gradient(ratio: RatioFn, by: float) -> None:
    # Of one token a response, the ratio of the token and that of the response are one.
    mask = torch.tensor([[True], [False]])
    far = torch.tensor([[by], [by]])
    bound = math.exp(math.copysign(20, by))
    close(ratio(far, torch.zeros(2, 1), mask) / bound, [[1.0], [1 / bound]], 1e-5)
    close(gradient(lambda x: ratio(x, torch.zeros(2, 1), mask).sum(), far) / bound, [[1.0], [0.0]], 1e-5)


# Aggregation

MASK = torch.tensor([[1, 0, 0], [1, 1, 1]], dtype=torch.bool)
ONCE = torch.ones(2)


def test_weights() -> None:
    close(sequence_mean(MASK, ONCE, 9), [[1 / 2, 0, 0], [1 / 6, 1 / 6, 1 / 6]])  # 1/(N·length)
    close(token_mean(MASK, ONCE, 9), [[1 / 4, 0, 0], [1 / 4, 1 / 4, 1 / 4]])  # 1/4 tokens
    close(fixed_length(MASK, ONCE, 9), [[1 / 18, 0, 0], [1 / 18, 1 / 18, 1 / 18]])  # 1/(N·9)
    close(fixed_length(MASK, ONCE, 9, tokens=5), [[1 / 10, 0, 0], [1 / 10, 1 / 10, 1 / 10]])
    close(sequence_sum(MASK, ONCE, 9), [[1 / 2, 0, 0], [1 / 2, 1 / 2, 1 / 2]])  # 1/N


def test_weights_of_a_response_that_enters_twice() -> None:
    # Three responses enter with 2·1 + 3 = 5 tokens.
    twice = torch.tensor([2.0, 1.0])
    close(sequence_mean(MASK, twice, 9), [[2 / 3, 0, 0], [1 / 9, 1 / 9, 1 / 9]])
    close(token_mean(MASK, twice, 9), [[2 / 5, 0, 0], [1 / 5, 1 / 5, 1 / 5]])
    close(fixed_length(MASK, twice, 9), [[2 / 27, 0, 0], [1 / 27, 1 / 27, 1 / 27]])
    close(sequence_sum(MASK, twice, 9), [[2 / 3, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


@pytest.mark.parametrize("weights", [sequence_mean, token_mean, fixed_length, sequence_sum])
def test_who_does_not_enter_is_not_there(weights: AggregationFn) -> None:
    alone = weights(MASK[1:], ONCE[1:], 9)
    empty = torch.cat([torch.zeros(1, 3, dtype=torch.bool), MASK[1:]])
    torch.testing.assert_close(weights(empty, ONCE, 9), torch.cat([torch.zeros(1, 3), alone]))
    torch.testing.assert_close(weights(MASK, torch.tensor([0.0, 1.0]), 9), torch.cat([torch.zeros(1, 3), alone]))
    assert weights(torch.zeros(2, 2).bool(), ONCE, 9).tolist() == [[0, 0], [0, 0]]
