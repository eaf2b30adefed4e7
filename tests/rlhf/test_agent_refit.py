"""A refit owes nothing to the weights before it, and takes no chance from the agent."""

from __future__ import annotations

import torch
from control_world import ControlWorld, Here

from labeling.records import LabeledSlate
from rlhf.control.control_config import parse_control
from rlhf.control.control_subject import ControlSubject, make_control_subject


def asked(seed: int = 0) -> tuple[ControlSubject, list[LabeledSlate]]:
    """An agent after random play, and a few labelled slates of it."""
    config = parse_control(
        {
            "question": "Which stands more upright?",
            "seed": seed,
            "environment": {"id": "Pendulum-v1", "max_steps": 50},
            "segments": {"length": 5},
            "labels": {"slates": 12, "humans": False, "oracle": {}},
            "reward_model": {"updates": 20, "hidden": 8},
            "agent": {"steps": 200, "parallel": 1, "network": [4], "options": {"n_steps": 200, "batch_size": 50}},
        }
    )
    world = ControlWorld(seed)
    subject = make_control_subject(config, world, Here())
    subject.sample(1, 12, 0, lambda name, note: torch.no_grad())
    return subject, world.ask(1, subject.slates(1, 12, 0, ""))


def refit(subject: ControlSubject, labeled: list[LabeledSlate], iteration: int) -> torch.Tensor:
    subject.begin_fit(iteration, labeled, lambda done, total: None)()
    return subject.reward_model.layers[0].weight.detach().clone()  # type: ignore[union-attr, operator, return-value]


def test_a_refit_starts_from_fresh_weights() -> None:
    subject, labeled = asked()
    first = refit(subject, labeled, 1)
    with torch.no_grad():
        for parameter in subject.reward_model.parameters():
            parameter.mul_(-3)
    assert torch.equal(refit(subject, labeled, 1), first)
    assert not torch.allclose(refit(subject, labeled, 2), first, atol=1e-2)


def test_before_any_label_no_clip_is_better_than_another() -> None:
    subject, _ = asked()
    assert not subject.reward_model.reward(torch.randn(9, 4)).any()


def test_two_runs_start_from_other_weights() -> None:
    (one, _), (same, _), (other, _) = asked(0), asked(0), asked(1)
    weights = [s.reward_model.layers[0].weight for s in (one, same, other)]
    assert torch.equal(weights[0], weights[1])  # type: ignore[arg-type]
    assert not torch.equal(weights[0], weights[2])  # type: ignore[arg-type]


def test_a_refit_takes_no_chance_from_elsewhere() -> None:
    subject, labeled = asked()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    refit(subject, labeled, 1)
    assert torch.equal(torch.rand(3), expected)
