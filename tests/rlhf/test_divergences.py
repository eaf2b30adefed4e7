"""KL estimators: single values by hand, expectations over a whole distribution against exact sums."""

import math

import pytest
import torch
from by_hand import gradient
from torch import Tensor

from rlhf.divergences import Estimator, held, k1, k2, k3

LOGITS = torch.tensor([0.5, -1.0, 0.2, 1.3], dtype=torch.float64)
REFERENCE = torch.tensor([1.0, 0.1, -0.4, 0.3], dtype=torch.float64).log_softmax(0)


def test_at_a_ratio_of_two() -> None:
    logp, ref = torch.tensor(-1.0), torch.tensor(-1.0 - math.log(2))  # d = log 2
    assert k1(logp, ref).item() == pytest.approx(0.6931472)
    assert k2(logp, ref).item() == pytest.approx(0.2402265)  # 0.6931472²/2
    assert k3(logp, ref).item() == pytest.approx(0.1931472)  # ½ − 1 + log 2
    # And the other way round, d = −log 2: 2 − 1 − log 2.
    assert [f(ref, logp).item() for f in (k1, k2, k3)] == pytest.approx([-0.6931472, 0.2402265, 0.3068528])


@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased(estimator: Estimator) -> None:
    logp = LOGITS.log_softmax(0)
    kl = (logp.exp() * (logp - REFERENCE)).sum().item()
    assert (logp.exp() * estimator(logp, REFERENCE)).sum().item() == pytest.approx(kl)


def expected_gradient(estimator: Estimator) -> Tensor:
    """Σ_y π(y)·∇estimator(y), the gradient of the estimator as a loss on samples of π."""

    def loss(x: Tensor) -> Tensor:
        logp = x.log_softmax(0)
        return (logp.exp().detach() * estimator(logp, REFERENCE)).sum()

    return gradient(loss, LOGITS)


def test_what_each_is_as_a_loss() -> None:
    reverse = gradient(lambda x: (x.softmax(0) * (x.log_softmax(0) - REFERENCE)).sum(), LOGITS)
    forward = gradient(lambda x: (REFERENCE.exp() * (REFERENCE - x.log_softmax(0))).sum(), LOGITS)
    torch.testing.assert_close(expected_gradient(k1), torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(expected_gradient(k2), reverse)
    # E_π[∇k3] = −Σ ref·∇log π, since ∇k3 = (1 − ref/π)·∇log π.
    torch.testing.assert_close(expected_gradient(k3), forward)


def test_an_exponent_out_of_all_bounds_is_held_and_keeps_its_gradient() -> None:
    # exp(±200) would be infinite or 0; at ±20 the value stops, and the gradient is that of the held value.
    far = torch.tensor([-200.0, -19.0, 0.3, 19.0, 200.0], dtype=torch.float64)
    expected = torch.tensor([-20.0, -19.0, 0.3, 19.0, 20.0], dtype=torch.float64).exp()
    torch.testing.assert_close(held(far).exp(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient(lambda x: held(x).exp().sum(), far), expected, rtol=1e-12, atol=0)


def test_k3_is_finite_however_unlikely_a_token_has_become() -> None:
    # d = −200: the policy has left what the reference likes. The pull back is that of e^20, up.
    logp = torch.tensor([-200.0])
    assert k3(logp, torch.zeros(1)).item() == pytest.approx(math.exp(20) - 1 - 200)
    assert gradient(lambda x: k3(x, torch.zeros(1)).sum(), logp).item() == pytest.approx(1 - math.exp(20))
