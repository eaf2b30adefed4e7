"""The head alone: solved exactly, from states computed once."""

from __future__ import annotations

import pytest
import torch

from labeling.records import Preference
from rlhf.backbones import Backbone, load_backbone
from rlhf.bradley_terry import pair_targets, slate_loss
from rlhf.packing import Group
from rlhf.reward_head import States, fit_head, last_states
from rlhf.reward_model import ScoreModel, make_reward_model
from rlhf.reward_training import Example, measure

GOOD, BAD = 70, 90


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny")


def examples(count: int, flip: bool = False) -> list[Example]:
    """Slates of three whose best candidate ends with GOOD, and whose worst ends with BAD."""
    chance = torch.Generator().manual_seed(count)
    made = []
    for n in range(count):
        tokens = torch.randint(3, 60, (3, 4), generator=chance).tolist()
        candidates = tuple((*row, end) for row, end in zip(tokens, (BAD, GOOD, 80), strict=True))
        worse = 1.0 if flip else 0.0
        prefer = (
            Preference(f"s{n}", 0, 1, worse),
            Preference(f"s{n}", 0, 2, worse),
            Preference(f"s{n}", 1, 2, 1 - worse),
        )
        made.append(Example(Group((5, 6, 7 + n % 9), candidates), prefer))
    return made


def fitted(backbone: Backbone, train: list[Example], ridge: float = 1.0) -> ScoreModel:
    model = make_reward_model(backbone, "head", lora_rank=1)
    fit_head(model, train, ridge, backbone.pad_id, {})
    return model


def test_it_learns_and_flipped_labels_teach_the_opposite(backbone: Backbone) -> None:
    unseen = examples(11)
    assert measure(fitted(backbone, examples(20)), unseen, backbone.pad_id, 4096).accuracy > 0.95
    assert measure(fitted(backbone, examples(20, flip=True)), unseen, backbone.pad_id, 4096).accuracy < 0.05


def test_the_gradient_vanishes_at_the_solution(backbone: Backbone) -> None:
    train, ridge = examples(12), 2.0
    model = make_reward_model(backbone, "head", lora_rank=1)
    model.decoder.norm.weight.mul_(torch.linspace(0.2, 3.0, 128))  # features of very different units
    fit_head(model, train, ridge, backbone.pad_id, {})
    states = torch.cat([last_states(model, e.group, backbone.pad_id) for e in train])
    targets = pair_targets([(3, e.preferences) for e in train])

    def gradient(weight: torch.Tensor) -> torch.Tensor:
        # Σ over slates is the mean times their number: 12·mean + ridge·‖w∘s‖², as the docstring says.
        weight = weight.detach().clone().requires_grad_()
        objective = 12 * slate_loss(states @ weight, targets) + ridge * ((weight * states.std(0)) ** 2).sum()
        return torch.autograd.grad(objective, weight)[0]

    best = model.head.weight[0]
    assert gradient(best).norm() < 1e-3 * gradient(torch.zeros_like(best)).norm()


def test_a_stronger_prior_pulls_the_scores_together(backbone: Backbone) -> None:
    loose, tight = (fitted(backbone, examples(8), ridge).head.weight.norm() for ridge in (0.1, 100.0))
    assert tight < 0.5 * loose


def test_a_slate_is_computed_once_and_where_the_head_stood_does_not_matter(backbone: Backbone) -> None:
    model, known = make_reward_model(backbone, "head", lora_rank=1), States()
    rows: list[int] = []
    model.decoder.register_forward_hook(lambda module, args, kwargs, out: rows.append(1), with_kwargs=True)
    fit_head(model, examples(4), 1.0, backbone.pad_id, known)
    assert len(rows) == 4
    fit_head(model, examples(4) + examples(5), 1.0, backbone.pad_id, known)
    assert len(rows) == 9
    again = fitted(backbone, examples(4) + examples(5))
    assert torch.allclose(again.head.weight, model.head.weight, rtol=1e-2, atol=1e-4)
    assert not any(p.requires_grad for p in model.decoder.parameters())
