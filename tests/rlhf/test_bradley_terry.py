"""The Bradley-Terry loss against numbers worked out by hand."""

import math

import pytest
import torch

from labeling.records import Preference, pairs
from rlhf.bradley_terry import log_preference, pair_targets, preference_losses, slate_loss


def prefer(i: int, j: int, p: float, **more: float) -> Preference:
    return Preference("slate", i, j, p, **more)


def loss_of_pair(score_i: float, score_j: float, p: float, centring: float = 0.0, **more: float) -> float:
    targets = pair_targets([(2, [prefer(0, 1, p, **more)])])
    return slate_loss(torch.tensor([score_i, score_j]), targets, centring).item()


def test_loss_of_a_pair() -> None:
    assert loss_of_pair(2.0, 1.0, 1.0) == pytest.approx(0.3132617)  # log(1 + e^−1)
    assert loss_of_pair(2.0, 1.0, 0.0) == pytest.approx(1.3132617)  # log(1 + e^+1)
    assert loss_of_pair(2.0, 1.0, 0.7) == pytest.approx(0.7 * 0.3132617 + 0.3 * 1.3132617)


def test_loss_of_a_slate_of_three_with_a_tie() -> None:
    # Scores 2, 1, 0. (0,1) p=1, lead 1: 0.3132617. (0,2) tied, lead 2: ½·0.1269280 + ½·2.1269280 = 1.1269280.
    # (1,2) p=0, lead 1: 1.3132617. Mean of the three: 2.7534514/3.
    targets = pair_targets([(3, [prefer(0, 1, 1.0), prefer(0, 2, 0.5), prefer(1, 2, 0.0)])])
    assert slate_loss(torch.tensor([2.0, 1.0, 0.0]), targets).item() == pytest.approx(2.7534514 / 3)


def test_the_flip_rate_mixes_in_a_coin() -> None:
    # lead 1: σ(1) = 0.7310586; P' = 0.8·0.7310586 + 0.1 = 0.6848469, −log P' = 0.3785599.
    assert loss_of_pair(1.0, 0.0, 1.0, flip_rate=0.2) == pytest.approx(0.3785599)
    # Seen from the other side P' = 0.3151531.
    assert loss_of_pair(1.0, 0.0, 0.0, flip_rate=0.2) == pytest.approx(-math.log(0.3151531), rel=1e-6)


def test_the_margin_is_asked_for_on_the_preferred_side() -> None:
    assert loss_of_pair(1.0, 0.0, 1.0, margin=0.5) == pytest.approx(0.4740770)  # log(1 + e^−(1 − 0.5))
    assert loss_of_pair(1.0, 0.0, 0.0, margin=-0.5) == pytest.approx(1.7014133)  # log(1 + e^(1 + 0.5))


def test_weight_and_centring() -> None:
    assert loss_of_pair(2.0, 1.0, 1.0, weight=3.0) == pytest.approx(3 * 0.3132617)
    assert loss_of_pair(2.0, 1.0, 1.0, centring=0.1) == pytest.approx(0.3132617 + 0.1 * 3**2)
    assert loss_of_pair(2.0, -2.0, 1.0, centring=0.1) == pytest.approx(loss_of_pair(2.0, -2.0, 1.0))


def test_a_slate_is_the_mean_of_its_pairs() -> None:
    scores = torch.linspace(-1, 2, 5) ** 2
    preferences = [prefer(i, j, (i * 3 + j) % 3 / 2) for i, j in pairs(5)]
    alone = [loss_of_pair(scores[q.i].item(), scores[q.j].item(), q.p) for q in preferences]
    assert slate_loss(scores, pair_targets([(5, preferences)])).item() == pytest.approx(sum(alone) / 10)


def test_slates_weigh_the_same_whatever_their_size_and_number_their_candidates_on() -> None:
    three = [prefer(i, j, 1.0) for i, j in pairs(3)]
    # The pair's candidates are 3 and 4: scores 5 and 7.
    scores = torch.tensor([0.0, 0.0, 0.0, 5.0, 7.0])
    loss = slate_loss(scores, pair_targets([(3, three), (2, [prefer(0, 1, 1.0)])])).item()
    assert loss == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)


def test_a_slate_without_preferences_adds_nothing_and_none_at_all_is_zero() -> None:
    scores = torch.tensor([2.0, 1.0, 9.0, 9.0], requires_grad=True)
    loss = slate_loss(scores, pair_targets([(2, [prefer(0, 1, 1.0)]), (2, [])]))
    assert loss.item() == pytest.approx(0.3132617 / 2)
    nothing = slate_loss(scores, pair_targets([(2, []), (2, [])]), centring=0.1)
    nothing.backward()
    assert nothing.item() == 0
    assert scores.grad is not None
    assert scores.grad.tolist() == [0, 0, 0, 0]


def test_gradient_against_finite_differences() -> None:
    preferences = [prefer(0, 1, 1.0, flip_rate=0.1), prefer(0, 2, 0.5, weight=2.0), prefer(1, 2, 0.2, margin=-0.4)]
    targets = pair_targets([(3, preferences)])
    scores = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    slate_loss(scores, targets, 0.05).backward()
    assert scores.grad is not None
    for n, h in enumerate(torch.eye(3, dtype=torch.float64) * 1e-5):
        up, down = (slate_loss(scores.detach() + side * h, targets, 0.05).item() for side in (1, -1))
        assert scores.grad[n].item() == pytest.approx((up - down) / 2e-5, abs=1e-7)


def test_leads_of_a_thousand_stay_finite() -> None:
    lead = torch.tensor([1000.0, -1000.0], requires_grad=True)
    plain = log_preference(lead)
    assert plain.tolist() == pytest.approx([0.0, -1000.0])
    plain.sum().backward()
    assert lead.grad is not None
    assert lead.grad.tolist() == pytest.approx([0.0, 1.0])
    # With errors at rate 0.1 even the impossible has probability 0.05.
    assert log_preference(lead, 0.1).tolist() == pytest.approx([math.log(0.95), math.log(0.05)], abs=1e-6)


def test_losses_are_unweighted_for_measuring() -> None:
    targets = pair_targets([(3, [prefer(0, 2, 1.0, weight=7.0)])])
    assert preference_losses(torch.tensor([1.0, 5.0, 0.0]), targets).tolist() == pytest.approx([0.3132617])
