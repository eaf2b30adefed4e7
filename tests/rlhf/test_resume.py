"""A run that stops goes on exactly as if it had not: same labels asked, same figures, same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from loop_world import World, run_tiny, tiny_config

from labeling.records import UserError

SMALL = {
    "sampling": {"prompts": 4, "responses": 4, "max_new_tokens": 6},
    "labels": {"slates": 6},
    "reward_model": {"epochs": 1},
    "evaluation": {"prompts": 4},
}


class Killed(Exception):
    """Stands for whatever ends a process in the middle of an iteration."""


@pytest.mark.parametrize(("recipe", "adaptation"), [("ppo", "lora"), ("grpo", "full")])
@pytest.mark.parametrize("dies_in", ["label", "update", "checkpoint"])
def test_resuming_continues_exactly(recipe: str, adaptation: str, dies_in: str, tmp_path: Path) -> None:
    model = {"name": "tiny", "adaptation": adaptation, "lora_rank": 4}
    fit = {"epochs": 1, "adaptation": "head" if recipe == "ppo" else "full"}
    config = tiny_config(recipe, iterations=4, model=model, **SMALL | {"reward_model": fit})
    whole = World(0)
    expected = run_tiny(config, tmp_path / "whole", whole)

    parts = World(0)
    events = parts.events.append

    def die(event: tuple[int, str, dict]) -> None:
        events(event)
        if event[0] == 3 and event[1] == "phase" and event[2]["phase"] == dies_in and event[2]["state"] == "start":
            raise Killed

    class Deadly(list):
        append = staticmethod(die)

    parts.events = Deadly()
    with pytest.raises(Killed):
        run_tiny(config, tmp_path / "parts", parts)
    parts.events = []
    found = run_tiny(config, tmp_path / "parts", parts, resume=True)

    assert parts.labeled == whole.labeled
    assert parts.fits == whole.fits
    for mine, theirs in zip(parts.of_kind("iteration"), whole.of_kind("iteration")[2:], strict=True):
        del mine["seconds"], theirs["seconds"]
        assert mine == theirs
    for name, weight in expected.policy.model.state_dict().items():
        assert torch.equal(weight, found.policy.model.state_dict()[name]), name


def test_a_run_that_exists_is_not_started_again_by_mistake(tmp_path: Path) -> None:
    config = tiny_config("grpo", iterations=1, **SMALL)
    run_tiny(config, tmp_path, World(0))
    with pytest.raises(UserError, match="--resume"):
        run_tiny(config, tmp_path, World(0))
    again = World(0)
    run_tiny(config, tmp_path, again, resume=True)
    assert not again.of_kind("iteration")  # there was nothing left to do
