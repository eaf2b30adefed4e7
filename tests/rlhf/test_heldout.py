"""Held-out prompts are sampled and asked about, and nothing is ever learned from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from loop_world import World, run_tiny, tiny_config

from rlhf import scoring
from rlhf.answers import Answers


@pytest.mark.parametrize("prompts", [4, 200])
def test_the_policy_learns_from_train_prompts_alone(
    prompts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewarded: list[Answers] = []
    scores = scoring.reward_scores

    def watched(model: object, backbone: object, answers: Answers, budget: int) -> object:
        rewarded.append(answers)
        return scores(model, backbone, answers, budget)  # type: ignore[arg-type]

    monkeypatch.setattr(scoring, "reward_scores", watched)
    sampling = {"prompts": prompts, "responses": 2, "max_new_tokens": 4}
    config = tiny_config(
        "grpo", iterations=1, sampling=sampling, labels={"slates": 8, "candidates": [2], "heldout_share": 0.5}
    )
    world = World(0)
    run_tiny(config, tmp_path, world)
    assert {p.split for answers in rewarded for p in answers.prompts} == {"train"}
    asked = {s.slate.prompt.split for s in world.labeled.values()}
    assert asked == {"train", "heldout"}
    fitted = set(world.fits[1])
    assert fitted == {s.labels[0].client_key for s in world.labeled.values() if s.slate.prompt.split == "train"}
