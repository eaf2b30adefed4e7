"""An agent learns Pendulum-like behaviour from a simulated annotator's labels alone, and not from flipped ones.

The reward is hidden: the agent is paid by the reward model, which sees nothing but comparisons, a tenth of them wrong.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from control_world import ControlWorld, run_agent
from side_by_side import side_by_side

from labeling.intervals import bootstrap
from rlhf.control.control_config import ControlConfig, parse_control

SEEDS = (0, 1, 2)


def pendulum(seed: int, iterations: int) -> ControlConfig:
    """A short Pendulum: four seconds from hanging or lying, so that a few thousand steps tell."""
    options = {
        "n_steps": 256,
        "batch_size": 128,
        "n_epochs": 10,
        "gamma": 0.9,
        "gae_lambda": 0.95,
        "learning_rate": 2e-3,
    }
    options |= {"use_sde": True, "sde_sample_freq": 4}
    return parse_control(
        {
            "question": "Which pendulum comes closer to standing upright and still?",
            "seed": seed,
            "iterations": iterations,
            "environment": {"id": "Pendulum-v1", "max_steps": 100},
            "labels": {"total": 300, "first_slates": 70, "heldout_share": 0.15, "humans": False, "oracle": {}},
            "reward_model": {"updates": 60, "first_updates": 150},
            "agent": {"steps": 2048, "parallel": 8, "normalise": True, "anneal": True, "options": options},
            "evaluation": {"episodes": 10},
        }
    )


def gain(folder: Path, iterations: int, world: dict[str, bool], seed: int) -> tuple[float, float]:
    """Mean true return of the last three evaluations less that before; and the reward model's last accuracy."""
    lived = ControlWorld(seed, **world)
    run_agent(pendulum(seed, iterations), folder / f"{seed}", lived)
    golds = [e["gold"] for e in lived.of_kind("evaluation")]
    return sum(golds[-3:]) / 3 - golds[0], lived.of_kind("fit")[-1]["heldout_accuracy"]


def test_labels_alone_teach_the_agent_and_flipped_ones_the_opposite(tmp_path: Path) -> None:
    # What is taught the opposite shows it sooner: it is easier to hang than to stand.
    learned, flipped = side_by_side(
        (SEEDS, partial(gain, tmp_path / "true", 9, {})),
        (SEEDS[:2], partial(gain, tmp_path / "flipped", 5, {"flip": True})),
    )
    assert all(accuracy > 0.6 for _, accuracy in learned), learned  # of labels of which a tenth is wrong
    assert bootstrap([returns for returns, _ in learned]).low > 80, learned
    assert bootstrap([returns for returns, _ in flipped]).high < 0, flipped
