"""Scores of segments against numbers worked out by hand, for each way in which steps make a score."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlhf.control.segment_model import AGGREGATIONS, ATTENTION_WIDTH, SegmentModel

ALL = sorted(AGGREGATIONS)
# Three steps of one feature each, x = 0, 1, 2.
STEPS = torch.tensor([[[0.0], [1.0], [2.0]]])
WHOLE = torch.ones(1, 3, dtype=torch.bool)


def lines(aggregation: str) -> SegmentModel:
    """Two members of one unit: r_0(x) = x and r_1(x) = 2x + 1 where x ≥ 0; the attention of a step is a_m(x) below.

    a_0(x) = 0, so all steps weigh alike; a_1(x) = x·ln 2, so weights go as 2^x.
    """
    model = SegmentModel(1, members=2, hidden=1, aggregation=aggregation).eval()  # type: ignore[arg-type]
    first, second, out = model.layers
    for layer in (first, second):
        layer.weight.data.fill_(1)
        layer.bias.data.zero_()
    first.weight.data[:, 1] = 0  # the square
    out.weight.data[:, 0, 0] = torch.tensor([1.0, 2.0])
    out.bias.data[:, 0, 0] = torch.tensor([0.0, 1.0])
    if out.weight.shape[2] == 2:
        out.weight.data[:, 0, 1] = torch.tensor([0.0, 2.0]).log().clamp(min=0)
        out.bias.data[:, 0, 1] = 0.0
    return model


def random_model(aggregation: str, features: int = 4, members: int = 3) -> SegmentModel:
    """Random weights, also where a new model has zeros; inputs in another unit."""
    torch.manual_seed(5)
    model = SegmentModel(features, members, 8, aggregation).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.feature_mean.copy_(torch.linspace(-1, 1, features))
    model.feature_std.copy_(torch.linspace(0.5, 2, features))
    return model


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sum", [3.0, 9.0]),  # 0 + 1 + 2; 1 + 3 + 5
        ("last", [2.0, 5.0]),
        # Member 0: 3·(0 + 1 + 2)/3. Member 1: weights 1/7, 2/7, 4/7 and T = 3, so 3·(1 + 6 + 20)/7 = 81/7.
        ("weighted_sum", [3.0, 81 / 7]),
        ("transformer", [3.0, 9.0]),  # every step matters alike before anything is learned: T·mean = sum
    ],
)
def test_three_steps_by_hand(aggregation: str, expected: list[float]) -> None:
    assert lines(aggregation).scores(STEPS, WHOLE)[:, 0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("sum", [1.0, 4.0]),  # 0 + 1; 1 + 3
        ("last", [1.0, 3.0]),  # the last step of its own, not that of the padding
        ("weighted_sum", [1.0, 2 * (1 / 3 * 1 + 2 / 3 * 3)]),  # weights 1/3, 2/3 and T = 2
        ("transformer", [1.0, 4.0]),
    ],
)
def test_two_steps_and_a_padded_third_by_hand(aggregation: str, expected: list[float]) -> None:
    mask = torch.tensor([[True, True, False]])
    assert lines(aggregation).scores(STEPS, mask)[:, 0].tolist() == pytest.approx(expected, rel=1e-5)


def test_the_transformer_weighs_steps_by_their_time_worked_out_by_hand() -> None:
    # With nothing entering but time, and neither attention nor feed-forward adding anything, the layer gives the
    # normalised place of a step, (p − mean p)/std p, whose first number has p = sin t. Attention is 3 × that.
    model = lines("transformer")
    for attend in model.attention:
        for part in (attend.enter, attend.layer.self_attn.out_proj, attend.layer.linear2):
            part.weight.data.zero_()
            part.bias.data.zero_()
        attend.leave.weight.data[0, 0] = 3.0
    attention = []
    for t in range(3):
        rates = [1000 ** (-n / ATTENTION_WIDTH) for n in range(0, ATTENTION_WIDTH, 2)]
        place = torch.tensor([f(torch.tensor(t * r)) for f in (torch.sin, torch.cos) for r in rates])
        attention.append(3 * ((place - place.mean()) / place.std(unbiased=False))[0].item())
    weights = torch.tensor(attention).exp() / torch.tensor(attention).exp().sum()
    assert weights.max() > 2 * weights.min()  # so that it matters
    expected = [3 * (weights[1] + 2 * weights[2]).item(), 3 * (weights @ torch.tensor([1.0, 3.0, 5.0])).item()]
    assert model.scores(STEPS, WHOLE)[:, 0].tolist() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("aggregation", "sees_others"), [("weighted_sum", False), ("transformer", True)])
def test_only_the_transformer_weighs_a_step_by_the_others(aggregation: str, sees_others: bool) -> None:
    # d score / d r_t = T·w_t. The ratio w_0/w_1 of two steps moves with a third one only if a step sees the others.
    model = random_model(aggregation)
    seen: list[Tensor] = []

    def pool(rewards: Tensor, attention: Tensor, mask: Tensor) -> Tensor:
        seen.append(attention)
        return rewards.sum(-1)

    model.aggregator = type(model.aggregator)(pool, model.aggregator.attends)
    steps = torch.randn(1, 3, 4)
    other = steps.clone()
    other[0, 2] += 3.0
    with torch.no_grad():
        for x in (steps, other):
            model.scores(x, torch.ones(1, 3, dtype=torch.bool))
    before, after = (a[:, 0, 0] - a[:, 0, 1] for a in seen)
    assert torch.allclose(before, after, atol=1e-5) is not sees_others


@pytest.mark.parametrize("learning", [False, True])
@pytest.mark.parametrize("aggregation", ALL)
def test_padding_changes_nothing(aggregation: str, learning: bool) -> None:
    model = random_model(aggregation).train(learning)
    lengths = (3, 1, 5)
    segments = [torch.randn(t, 4) for t in lengths]
    steps, mask = torch.full((3, 7, 4), 50.0), torch.zeros(3, 7, dtype=torch.bool)
    for n, segment in enumerate(segments):
        steps[n, : len(segment)], mask[n, : len(segment)] = segment, True
    with torch.set_grad_enabled(learning):
        together = model.scores(steps, mask)
        alone = [model.scores(s[None], torch.ones(1, len(s), dtype=torch.bool))[:, 0] for s in segments]
    assert torch.allclose(together, torch.stack(alone, 1), atol=1e-4)


@pytest.mark.parametrize("aggregation", ALL)
def test_the_score_of_one_step_is_its_reward(aggregation: str) -> None:
    model = random_model(aggregation)
    steps = torch.randn(6, 4)
    with torch.no_grad():
        scores = model.scores(steps[:, None], torch.ones(6, 1, dtype=torch.bool))
        assert torch.allclose(scores, model.step_rewards(steps), atol=1e-5)
    assert scores.std(1).min() > 0.05  # they differ, so that equality says something


@pytest.mark.parametrize("aggregation", ALL)
def test_members_know_nothing_of_each_other(aggregation: str) -> None:
    model = random_model(aggregation)
    model.scores(torch.randn(5, 3, 4), torch.ones(5, 3, dtype=torch.bool))[1].sum().backward()
    for layer in model.layers:
        for parameter in layer.parameters():
            assert parameter.grad is not None
            assert parameter.grad[1].abs().sum() > 0
            assert not parameter.grad[[0, 2]].any()
    for number, attend in enumerate(model.attention):
        got = [p.grad is not None and bool(p.grad.any()) for p in attend.parameters()]
        assert any(got) == (number == 1)
    rewards = SegmentModel(4, 3, 8, aggregation).step_rewards(torch.randn(50, 4))  # type: ignore[arg-type]
    assert torch.corrcoef(rewards).triu(1).max() < 0.99  # nor do they begin alike


def test_the_direct_term_by_hand() -> None:
    model = lines("sum")
    model.feature_mean.fill_(-1.0)
    model.feature_std.fill_(0.5)
    model.direct.weight.data[:, :, 0] = torch.tensor([[0.5, 0.25], [0.0, -1.0]])
    model.direct.bias.data[:, 0, 0] = torch.tensor([0.0, 10.0])
    # x = (1 + 1)/0.5 = 4: r_0 = 4 + 0.5·4 + 0.25·9 and r_1 = 9 − 9 + 10, for a square is that of 3 at most.
    assert model.step_rewards(torch.tensor([[1.0]]))[:, 0].tolist() == [8.25, 10.0]
    model.layers[0].weight.data[:, 1] = 1.0  # the network sees the square too: r_0 = 13 + 4.25, r_1 = 2·13 + 1 + 1
    assert model.step_rewards(torch.tensor([[1.0]]))[:, 0].tolist() == [17.25, 28.0]


def test_inputs_enter_in_their_own_unit() -> None:
    model = lines("sum")
    model.feature_mean.fill_(-1.0)
    model.feature_std.fill_(0.5)
    # (1 − (−1))/0.5 = 4: r_0 = 4, r_1 = 9.
    assert model.step_rewards(torch.tensor([[1.0]]))[:, 0].tolist() == [4.0, 9.0]


def test_what_an_agent_is_paid_is_the_mean_of_the_normalised_members() -> None:
    model = lines("last")
    model.mean.copy_(torch.tensor([1.0, 3.0]))
    model.std.copy_(torch.tensor([0.5, 4.0]))
    # x = 2: ((2 − 1)/0.5 + (5 − 3)/4)/2 = (2 + 0.5)/2. x = 0: ((0 − 1)/0.5 + (1 − 3)/4)/2 = (−2 − 0.5)/2.
    paid = model.reward(torch.tensor([[2.0], [0.0]]))
    assert paid.tolist() == [1.25, -1.25]
    assert not paid.requires_grad
