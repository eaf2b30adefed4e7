"""Gradients of several forwards lie where they were laid out; those of one come as they like."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_noted_forward import WHOLE, improved, learner_of, once, rolled
from torch import Tensor, nn

from labeling.records import Preference
from rlhf import optimiser_step, reward_training
from rlhf.backbones import load_backbone
from rlhf.gradients import lay_out_gradients
from rlhf.packing import Group
from rlhf.recipes import PPO
from rlhf.reward_model import make_reward_model
from rlhf.reward_training import Example, Fit, fit


class Words(nn.Module):
    """A table whose weights are the head too, one that does not learn, and a bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.fixed = nn.Embedding(20, 4), nn.Embedding(20, 4).requires_grad_(False)
        self.head = nn.Linear(4, 20)
        self.head.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids) + self.fixed(ids)).log_softmax(-1)[:, 3].sum()


def gradients(forwards: int, told: int) -> list[Tensor]:
    """Of several forwards, where `told` were said to come."""
    model = Words()
    lay_out_gradients(model, told)
    for ids in torch.arange(12).chunk(forwards):
        model(ids).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def test_the_sum_is_the_same_however_it_was_laid_out() -> None:
    expected = gradients(1, 1)
    assert len(expected) == 2
    for forwards, told in ((1, 2), (2, 2), (3, 3)):
        for a, b in zip(gradients(forwards, told), expected, strict=True):
            assert not a.is_sparse
            assert torch.allclose(a, b, atol=1e-6)


def test_what_there_was_before_is_forgotten() -> None:
    model = Words()
    for forwards in (1, 2):
        model(torch.arange(3)).backward()
        lay_out_gradients(model, forwards)
        assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_several_forwards_add_to_zeros_by_looked_up_rows_and_one_finds_nothing() -> None:
    model = Words()
    lay_out_gradients(model, 2)
    laid = {name: p.grad for name, p in model.named_parameters()}
    assert laid["fixed.weight"] is None
    assert (model.table.sparse, model.fixed.sparse) == (True, False)
    places = [g.data_ptr() for g in laid.values() if g is not None]
    for _ in range(2):
        model(torch.arange(3)).backward()
    assert [p.grad.data_ptr() for p in model.parameters() if p.grad is not None] == places
    lay_out_gradients(model, 1)
    assert not any(p.grad is not None or m.sparse for m in (model.table, model.fixed) for p in m.parameters())


@pytest.mark.parametrize(("budget", "forwards"), [(1000, 1), (1, 3)])
def test_a_fit_tells_how_many_forwards_there_will_be(
    budget: int, forwards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(reward_training, "lay_out_gradients", lambda model, n: told.append(n))
    model = make_reward_model(load_backbone("tiny"), "head", 4)
    example = Example(Group((60, 61), ((70, 71), (80,))), (Preference("", 0, 1, 1.0),))
    settings = replace(Fit(), slates_per_step=3, token_budget=budget)
    fit(model, [example] * 3, settings, 0, torch.Generator().manual_seed(0))
    assert told == [forwards]


@pytest.mark.parametrize(("budget", "forwards"), [(WHOLE, 1), (1, 3)])
def test_an_update_tells_how_many_forwards_there_will_be(
    budget: int, forwards: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, told = learner_of(PPO), []
    rollout = rolled(learner, 0)

    def tell(model: nn.Module, n: int) -> None:
        told.append((model, n))
        lay_out_gradients(model, n)

    monkeypatch.setattr(optimiser_step, "lay_out_gradients", tell)
    improved(learner, rollout, once(PPO), budget)
    assert told == [(learner.policy.model, forwards), (learner.critic, forwards)]
