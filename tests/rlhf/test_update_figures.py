"""What a run tells of an update beside the update's own figures: rewards as they were earned, and their absence."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from loop_world import PROMPTS, World, gold, tiny_config

from labeling.records import Candidate, Prompt
from rlhf.language_subject import make_language_subject
from rlhf.online_loop import GoldFn, run_loop


def one_update(recipe: str, rule: GoldFn, folder: Path) -> World:
    """A loop of one iteration whose policy is paid by a rule."""
    sizes = {"prompts": 3, "responses": 4, "max_new_tokens": 4}
    paid = {"source": "rule", "rule": "brief"}
    run = tiny_config(
        recipe, iterations=1, sampling=sizes, reward=paid, labels={"slates": 2}, evaluation={"prompts": 2}
    )
    world = World(0)
    run_loop(run, "tiny", lambda: make_language_subject(run, PROMPTS, gold, rule), world.surroundings(), folder)
    return world


def nothing(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
    return [None for _ in pairs]


def test_a_reward_that_is_missing_everywhere_is_no_zero(tmp_path: Path) -> None:
    world = one_update("grpo", nothing, tmp_path)
    (figures,), (row,) = world.of_kind("update"), world.of_kind("iteration")
    assert figures["missing_rewards"] == 12
    assert figures["steps"] == 0
    assert not {"reward_mean", "reward_std", "zero_std_groups", "entropy"} & set(figures)
    assert row["proxy_train"] is None


def test_the_best_by_reward_and_the_temperature_of_aepo(tmp_path: Path) -> None:
    world = one_update("aepo", gold, tmp_path)
    (figures,), (row,) = world.of_kind("update"), world.of_kind("iteration")
    assert row["proxy_train"] == row["gold_train"] == pytest.approx(figures["reward_mean"])
    assert figures["gold_of_best"] > figures["reward_mean"]  # paid by gold itself, the best is the best
    assert figures["sampling_entropy"] > 1.0
    assert figures["tempered_temperature"] == 0.8
