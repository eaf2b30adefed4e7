"""An agent's run that stops goes on exactly as if it had not, environments in the middle of an episode included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from control_world import ControlWorld, run_agent

from rlhf.control.control_config import ControlConfig, parse_control

PPO: dict[str, Any] = {"n_steps": 24, "batch_size": 24, "n_epochs": 2}
SAC: dict[str, Any] = {"learning_starts": 20, "batch_size": 8, "buffer_size": 100, "ent_coef": "auto"}
AGENTS: dict[str, dict[str, Any]] = {
    "ppo": {"algorithm": "ppo", "steps": 144, "parallel": 3, "normalise": True, "anneal": True, "options": PPO},
    "ppo with sde": {"algorithm": "ppo", "steps": 144, "parallel": 3, "options": PPO | {"use_sde": True}},
    "sac": {"algorithm": "sac", "steps": 70, "parallel": 1, "options": SAC},
    "sac side by side": {"algorithm": "sac", "steps": 70, "parallel": 2, "normalise": True, "options": SAC},
}


class Killed(Exception):
    """Stands for whatever ends a process in the middle of an iteration."""


class Deadly(list):
    """Events until the third iteration comes to a phase."""

    def __init__(self, phase: str) -> None:
        super().__init__()
        self.phase = phase

    def append(self, event: tuple[int, str, dict[str, Any]]) -> None:
        super().append(event)
        if event[0] == 3 and event[1] == "phase" and (event[2]["phase"], event[2]["state"]) == (self.phase, "start"):
            raise Killed


def config(agent: dict[str, Any], environment: str = "Pendulum-v1") -> ControlConfig:
    return parse_control(
        {
            "question": "Which is better?",
            "seed": 3,
            "iterations": 3,
            "environment": {"id": environment, "max_steps": 50},
            "segments": {"length": 10, "pool": 3},
            "labels": {"slates": 8, "candidates": [2, 3], "heldout_share": 0.25, "humans": False, "oracle": {}},
            "reward_model": {"updates": 6, "first_updates": 12, "hidden": 16},
            "agent": {"network": [16], **agent},
            "evaluation": {"episodes": 2, "clip_seconds": 0.5},
        }
    )


def compare(run: ControlConfig, folder: Path, dies_in: str) -> None:
    whole, parts = ControlWorld(0), ControlWorld(0)
    expected = run_agent(run, folder / "whole", whole)

    parts.events = Deadly(dies_in)
    with pytest.raises(Killed):
        run_agent(run, folder / "parts", parts)
    parts.events = []
    torch.manual_seed(1234)  # chance elsewhere may differ in a new process
    np.random.seed(1234)
    found = run_agent(run, folder / "parts", parts, resume=True)

    assert list(parts.labeled) == list(whole.labeled)
    assert parts.labeled == whole.labeled
    assert parts.fits == whole.fits
    assert set(parts.kept) == set(whole.kept)
    for kind in ("fit", "iteration", "evaluation", "update"):
        mine, theirs = parts.of_kind(kind)[-1], whole.of_kind(kind)[-1]
        for data in (mine, theirs):
            data.pop("seconds", None)
            data.pop("steps_per_second", None)
        assert mine == theirs, kind
    _same(expected.agent.model.policy.state_dict(), found.agent.model.policy.state_dict())
    _same(expected.reward_model.state_dict(), found.reward_model.state_dict())
    assert expected.decay == found.decay
    for one, other in zip(expected.agent.recorders, found.agent.recorders, strict=True):
        assert (one.episode.seed, len(one.episode), one.begun) == (other.episode.seed, len(other.episode), other.begun)
        assert np.array_equal(one._last, other._last)


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("agent", sorted(AGENTS))
def test_resuming_an_agent_continues_exactly(agent: str, tmp_path: Path) -> None:
    run = config(AGENTS[agent])
    steps = run.agent.steps / run.agent.parallel
    assert (2 * steps) % 50  # the checkpoint falls into the middle of an episode
    compare(run, tmp_path, "update")


@pytest.mark.parametrize("dies_in", ["label", "evaluate", "checkpoint"])
def test_wherever_the_iteration_was_cut_off(dies_in: str, tmp_path: Path) -> None:
    compare(config(AGENTS["ppo"]), tmp_path, dies_in)


def test_choices_and_episodes_that_terminate_go_on_too(tmp_path: Path) -> None:
    compare(config(AGENTS["ppo"], "CartPole-v1"), tmp_path, "update")
