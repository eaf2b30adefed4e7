"""The core claim, in seconds: with a simulated annotator's labels alone, held-out gold rises; with random ones not.

Gold (the share of lower-case letters) is computed for the oracle's labels and for watching; the reward model and
the policy never see it. Gains are after − before on the same held-out prompts, pooled over three seeds.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from loop_world import World, run_tiny, tiny_config
from side_by_side import side_by_side

from labeling.intervals import Interval, bootstrap

SEEDS = (0, 1, 2)


def differences(recipe: str, folder: Path, world: dict[str, bool], seed: int) -> list[float]:
    """Gain in gold of each held-out prompt."""
    lived = World(seed, **world)
    run_tiny(tiny_config(recipe, seed, iterations=4), folder / f"{seed}", lived)
    before, *_, after = [e["gold_by_prompt"] for e in lived.of_kind("evaluation")]
    return [b - a for a, b in zip(before, after, strict=True)]


def gain(found: list[list[float]]) -> Interval:
    """Mean gain in held-out gold with its 95 % interval over prompts and seeds."""
    return bootstrap(list(chain.from_iterable(found)))


@pytest.mark.parametrize("recipe", ["grpo", pytest.param("ppo", marks=pytest.mark.long)])
def test_held_out_gold_rises_from_labels_alone_and_not_from_random_ones(recipe: str, tmp_path: Path) -> None:
    learned, control = map(
        gain,
        side_by_side(
            (SEEDS, partial(differences, recipe, tmp_path / "true", {})),
            (SEEDS[:2], partial(differences, recipe, tmp_path / "random", {"random_labels": True})),
        ),
    )
    assert learned.low > 0.03, f"gold rose by {learned}"
    assert control.low <= 0, f"random labels taught something: {control}"
    assert control.mean < learned.mean / 2


@pytest.mark.long
def test_flipped_labels_teach_the_opposite(tmp_path: Path) -> None:
    (found,) = side_by_side((SEEDS, partial(differences, "grpo", tmp_path, {"flip": True})))
    assert gain(found).high < 0
