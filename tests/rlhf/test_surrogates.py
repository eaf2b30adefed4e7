"""Surrogates: values by hand, gradients against the stated formula and against finite differences.

Gradients are ∂J/∂logp of a token. Where a surrogate stops a gradient, finite differences are taken of the function that
has the stopped parts frozen at the point itself.
"""

import math
from functools import partial

import pytest
import torch
from by_hand import central_differences, close, gradient
from torch import Tensor

from rlhf.surrogates import (
    SurrogateFn,
    Tokens,
    WholeStep,
    clipped,
    covariance_masked,
    detached_weight,
    dual_clipped,
    flipped,
    reinforce,
)

DOUBLE = torch.float64
# Every combination of a ratio and an advantage, away from the corners of the clips, where nothing is differentiable.
RATIOS = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.85, 0.95, 1.05, 1.15, 1.25, 1.6, 2.5, 3.5, 7.0], dtype=DOUBLE)
ADVANTAGES = torch.tensor([-2.0, -0.3, 0.0, 0.7, 2.0], dtype=DOUBLE)
OLD = torch.full((len(ADVANTAGES), len(RATIOS)), -1.3, dtype=DOUBLE)
LOGP = OLD + RATIOS.log()
A = ADVANTAGES[:, None].expand_as(OLD)
RHO = RATIOS.expand_as(OLD)


def at(logp: Tensor) -> Tokens:
    return Tokens(logp, (logp - OLD).exp(), A, torch.ones_like(OLD, dtype=torch.bool))


def slope(surrogate: SurrogateFn) -> Tensor:
    return gradient(lambda x: surrogate(at(x)).objective.sum(), LOGP)


def one(surrogate: SurrogateFn, ratio: float, advantage: float) -> tuple[float, float, bool]:
    """Objective, ∂J/∂logp and whether the token counts as clipped."""
    logp = torch.tensor([math.log(ratio)], dtype=DOUBLE, requires_grad=True)
    mask = torch.tensor([True])
    found = surrogate(Tokens(logp, logp.exp(), torch.tensor([advantage], dtype=DOUBLE), mask))
    found.objective.sum().backward()
    assert logp.grad is not None
    return found.objective.item(), logp.grad.item(), bool(found.clipped)


PPO = partial(clipped, eps_low=0.1, eps_high=0.3)
DUAL = partial(dual_clipped, eps_low=0.1, eps_high=0.3, c=2.0)
CISPO = partial(detached_weight, eps_low=0.6, eps_high=0.3)
ASPO = partial(flipped, eps_low=0.1, eps_high=0.3, cap=2.5)


@pytest.mark.parametrize(
    ("surrogate", "ratio", "advantage", "objective", "gradient"),
    [
        # min(ρA, clip(ρ, 0.9, 1.3)·A). A > 0: only a ratio above 1.3 is clipped, to 1.3·A. Inside, ∂J/∂logp = ρA.
        (PPO, 0.5, 2.0, 1.0, 1.0),
        (PPO, 0.95, 2.0, 1.9, 1.9),
        (PPO, 1.25, 2.0, 2.5, 2.5),
        (PPO, 1.5, 2.0, 2.6, 0.0),
        # A < 0: only a ratio below 0.9 is clipped, to 0.9·A; a large one costs in full.
        (PPO, 0.5, -2.0, -1.8, 0.0),
        (PPO, 0.95, -2.0, -1.9, -1.9),
        (PPO, 1.5, -2.0, -3.0, -3.0),
        (PPO, 1.5, 0.0, 0.0, 0.0),
        # Never below c·A = −4 for A < 0; A > 0 is untouched.
        (DUAL, 1.9, -2.0, -3.8, -3.8),
        (DUAL, 2.5, -2.0, -4.0, 0.0),
        (DUAL, 0.5, -2.0, -1.8, 0.0),
        (DUAL, 2.5, 2.0, 2.6, 0.0),
        (DUAL, 0.5, 2.0, 1.0, 1.0),
    ],
)
def test_clips_by_hand(
    surrogate: SurrogateFn, ratio: float, advantage: float, objective: float, gradient: float
) -> None:
    found = one(surrogate, ratio, advantage)
    assert found[:2] == pytest.approx((objective, gradient))
    assert found[2] == (gradient == 0 and advantage != 0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient", "clipped"),
    [
        # sg[clip(ρ, 0.4, 1.3)]·A: the bound is 1 + ε. Every token keeps a gradient.
        (0.2, 2.0, 0.8, True),
        (0.5, 2.0, 1.0, False),
        (1.2, 2.0, 2.4, False),
        (1.5, 2.0, 2.6, True),
        (1.5, -2.0, -2.6, True),
        (0.2, -2.0, -0.8, True),
    ],
)
def test_cispo_by_hand(ratio: float, advantage: float, gradient: float, clipped: bool) -> None:
    objective, found, flag = one(CISPO, ratio, advantage)
    assert found == pytest.approx(gradient)
    assert objective == pytest.approx(gradient * math.log(ratio))  # the weight times A·logp
    assert flag == clipped


def test_cispo_of_the_paper_has_no_lower_bound() -> None:
    assert one(detached_weight, 0.01, 2.0) == pytest.approx((0.02 * math.log(0.01), 0.02, False))
    assert one(detached_weight, 9.0, 2.0)[1] == pytest.approx(2.56)  # 1 + 0.28


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "gradient", "clipped"),
    [
        # A > 0: weight 1/ρ, at most 2.5; masked above 1.3. ∂J/∂logp = w·A, and that is the value, too.
        (0.2, 2.0, 5.0, 5.0, True),
        (0.5, 2.0, 4.0, 4.0, False),
        (1.0, 2.0, 2.0, 2.0, False),
        (1.25, 2.0, 1.6, 1.6, False),
        (1.35, 2.0, 0.0, 0.0, True),
        # A < 0: weight ρ, at most 2.5 (the cap keeps the gradient); clipped below 0.9, with the value of the clip.
        (0.5, -2.0, -1.8, 0.0, True),
        (0.95, -2.0, -1.9, -1.9, False),
        (2.0, -2.0, -4.0, -4.0, False),
        (5.0, -2.0, -5.0, -5.0, True),
        (5.0, 0.0, 0.0, 0.0, False),
        (0.1, 0.0, 0.0, 0.0, False),
    ],
)
def test_aspo_by_hand(ratio: float, advantage: float, objective: float, gradient: float, clipped: bool) -> None:
    found = one(ASPO, ratio, advantage)
    assert found[:2] == pytest.approx((objective, gradient))
    assert found[2] == clipped


@pytest.mark.parametrize("surrogate", [PPO, DUAL, reinforce])
def test_gradients_against_finite_differences(surrogate: SurrogateFn) -> None:
    expected = central_differences(lambda x: surrogate(at(x)).objective.sum(), LOGP)
    torch.testing.assert_close(slope(surrogate), expected, atol=1e-7, rtol=1e-6)


def test_the_gradient_of_cispo() -> None:
    weight = RHO.clamp(0.4, 1.3)
    torch.testing.assert_close(slope(CISPO), weight * A)
    frozen = central_differences(lambda x: (weight * A * x).sum(), LOGP)
    torch.testing.assert_close(slope(CISPO), frozen, atol=1e-7, rtol=1e-6)


def test_the_gradient_of_aspo() -> None:
    # Good: sg[π_old²/π²]·π/π_old·A = sg[1/ρ²]·ρ·A, no more than 2.5·A, nothing above 1.3.
    # Bad: ρ·A, no more than 2.5·A and still with a gradient, nothing below 0.9.
    good, bad = A > 0, A < 0
    expected = torch.zeros_like(A)
    expected[good] = (A / RHO).minimum(2.5 * A)[good] * (RHO <= 1.3)[good]
    expected[bad] = (A * RHO).maximum(2.5 * A)[bad] * (RHO >= 0.9)[bad]
    torch.testing.assert_close(slope(ASPO), expected)
    # The same with the stopped factors frozen: J = Σ f·ρ·A, f = w/ρ.
    factor = torch.where(good, (1 / RHO).clamp(max=2.5) * (RHO <= 1.3), RHO.clamp(max=2.5) * (RHO >= 0.9)) / RHO
    frozen = central_differences(lambda x: (factor * (x - OLD).exp() * A).sum(), LOGP)
    torch.testing.assert_close(slope(ASPO), frozen, atol=1e-7, rtol=1e-6)


def test_the_constants_of_the_papers() -> None:
    # PPO clips at 0.2 on both sides, the dual clip holds at 3·A, ASPO caps 1/ρ at 3 and masks above 1.2.
    assert one(clipped, 1.5, 1.0)[0] == pytest.approx(1.2)
    assert one(clipped, 0.5, -1.0)[0] == pytest.approx(-0.8)
    assert one(dual_clipped, 9.0, -1.0)[:2] == pytest.approx((-3.0, 0.0))
    assert one(flipped, 0.1, 1.0)[1] == pytest.approx(3.0)
    assert one(flipped, 1.19, 1.0)[1] == pytest.approx(1 / 1.19)
    assert one(flipped, 1.21, 1.0)[1] == 0
    assert one(flipped, 0.79, -1.0)[1] == 0
    assert one(flipped, 9.0, -1.0)[1] == pytest.approx(-3.0)


@pytest.mark.parametrize("surrogate", [PPO, DUAL, CISPO, ASPO, reinforce])
def test_better_goes_up_and_worse_goes_down(surrogate: SurrogateFn) -> None:
    found = slope(surrogate)
    assert (found * A >= 0).all()
    assert (found[A == 0] == 0).all()
    assert ((found * A)[(RHO == 0.95) & (A != 0)] > 0).all()  # inside every clip


# Clip-Cov. Four tokens, Ā = 1 and mean logp −2: covariances 2·1 = 2, 2·(−1) = −2, −2·1 = −2 and −2·(−1) = 2; what is
# masked is not counted. Tokens 0 and 3 are eligible with the default 1 < cov < 5.

STEP = WholeStep(
    logp=torch.tensor([[-1.0, -3.0, 50.0], [-1.0, -3.0, 50.0]]),
    ratio=torch.ones(2, 3),
    advantages=torch.tensor([[3.0, 3.0, 90.0], [-1.0, -1.0, 90.0]]),
    mask=torch.tensor([[True, True, False], [True, True, False]]),
    noise=torch.tensor([[0.5, 0.1, 0.0], [0.2, 0.7, 0.0]]),
)


def free(step: WholeStep = STEP, **constants: float) -> list:
    """Which tokens lose their gradient."""
    ratio = step.ratio.clone().requires_grad_()
    tokens = Tokens(step.logp, ratio, step.advantages, step.mask, step, torch.arange(2))
    found = covariance_masked(tokens, **constants)
    (found.objective * step.mask).sum().backward()
    assert ratio.grad is not None
    lost = (ratio.grad == 0) & step.mask
    assert torch.equal(lost, found.clipped & step.mask)
    close(found.objective, clipped(tokens).objective.tolist())  # the value stays that of the clip
    return lost.nonzero().tolist()


def replaced(**changes: Tensor) -> WholeStep:
    return WholeStep(**{**vars(STEP), **changes})


def test_a_token_of_high_covariance_loses_its_gradient() -> None:
    # At least one, drawn by the least noise among those in between: token (0, 0) with 0.5, not (1, 1) with 0.7.
    assert free() == [[0, 0]]
    assert free(replaced(noise=1 - STEP.noise)) == [[1, 1]]


def test_how_many_is_a_share_of_all_tokens_rounded_down() -> None:
    assert free(share=0.49) == [[0, 0]]  # ⌊0.49·4⌋ = 1
    assert free(share=0.5) == [[0, 0], [1, 1]]
    assert free(share=1.0) == [[0, 0], [1, 1]]  # no more than are eligible


def test_the_band_of_covariances_is_open() -> None:
    assert free(low=2.0, share=1.0) == []
    assert free(high=2.0, share=1.0) == []
    assert free(low=-3.0, high=3.0, share=1.0) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_what_is_clipped_already_is_not_drawn() -> None:
    step = replaced(ratio=torch.tensor([[1.5, 1.0, 1.0], [1.0, 1.0, 1.0]]))
    assert free(step) == [[0, 0], [1, 1]]  # the first by the clip, the second drawn in its place


def test_the_draw_is_uniform_among_the_eligible() -> None:
    chance = torch.Generator().manual_seed(1)
    draws = [free(replaced(noise=torch.rand(2, 3, generator=chance))) for _ in range(300)]
    assert 110 < draws.count([[0, 0]]) < 190
    assert draws.count([[0, 0]]) + draws.count([[1, 1]]) == 300


def test_a_part_of_the_step_gets_its_part_of_the_draw() -> None:
    step = replaced(noise=1 - STEP.noise)
    for row, width, expected in ((0, 2, [[False, False]]), (1, 2, [[False, True]])):
        part = [x[row : row + 1, :width] for x in (step.logp, step.ratio, step.advantages, step.mask)]
        found = covariance_masked(Tokens(*part, step=step, rows=torch.tensor([row])))
        assert found.clipped.tolist() == expected
    with pytest.raises(ValueError, match="needs the whole step"):
        covariance_masked(Tokens(STEP.logp, STEP.ratio, STEP.advantages, STEP.mask))
