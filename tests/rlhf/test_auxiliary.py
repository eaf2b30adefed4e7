"""Terms beside the surrogate."""

import math

import pytest
import torch
from by_hand import close

from rlhf.auxiliary import TemperedTerm, clipped_value_loss, positive_weights, text_likelihood
from rlhf.packing import Group


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "gradient"),
    [
        (1.1, 1.0, 2.0, 0.405, -0.9),  # inside the clip: ½·0.9²
        (1.5, 1.0, 1.0, 0.125, 0.5),  # ½·max(0.5², 0.2²): moving back stays free
        (0.5, 1.0, 0.9, 0.08, -0.4),  # ½·max(0.4², 0.1²)
        (1.5, 1.0, 2.0, 0.32, 0.0),  # ½·max(0.5², 0.8²): going further that way gains nothing
        (0.5, 1.0, 0.0, 0.32, 0.0),  # nor the other way
    ],
)
def test_clipped_value_loss(value: float, old: float, target: float, loss: float, gradient: float) -> None:
    v = torch.tensor(value, requires_grad=True)
    found = clipped_value_loss(v, torch.tensor(old), torch.tensor(target), 0.2)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert v.grad is not None
    assert v.grad.item() == pytest.approx(gradient)


def test_without_a_clip_it_is_half_the_square() -> None:
    v = torch.tensor(1.5, requires_grad=True)
    found = clipped_value_loss(v, torch.tensor(-7.0), torch.tensor(2.0), math.inf)
    found.backward()
    assert (found.item(), v.grad.item() if v.grad is not None else None) == pytest.approx((0.125, -0.5))


def test_positive_weights_are_a_mean_over_the_tokens_of_the_better_ones() -> None:
    # Responses 0 (two tokens) and 2 (three tokens, twice): 8 tokens, μ/8 = 0.05 for each time that one enters.
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=torch.bool)
    count = torch.tensor([1.0, 1.0, 2.0])
    found = positive_weights(torch.tensor([True, False, True]), mask, count, 0.4)
    close(found, [[0.05, 0.05, 0.0], [0.0, 0.0, 0.0], [0.1, 0.1, 0.1]])
    assert positive_weights(torch.zeros(3).bool(), mask, count, 0.4).abs().max() == 0


def test_text_likelihood_is_a_mean_over_all_tokens_at_temperature_one() -> None:
    term = text_likelihood("pretraining", [Group((1,), ((2, 3), (4,))), Group((5,), ((6, 7, 8, 9, 10),))], 0.4)
    close(term.weights[0], [[0.05, 0.05], [0.05, 0.0]])  # 0.4 over eight tokens
    close(term.weights[1], [[0.05] * 5])
    assert (term.name, term.temperature) == ("pretraining", 1.0)


def test_the_temperature_of_the_term_follows_the_entropy_both_ways() -> None:
    term = TemperedTerm(entropy_target=1.0)
    assert [term.temperature(h) for h in (0.5, 0.999, 1.0, 2.0)] == [1.2, 1.2, 0.8, 0.8]
