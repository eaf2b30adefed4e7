"""A clip in words: numbers worked out by hand, names that fit the environments, and nothing about what it was worth."""

from __future__ import annotations

import json
import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from labeling.segments import Segment
from rlhf.control.descriptions import LONGEST, describe
from rlhf.control.dimensions import KNOWN
from rlhf.control.environments import EnvironmentConfig, action_features, make, spec


def segment(name: str, seen: np.ndarray, actions: np.ndarray, choices: int = 0, **more: object) -> Segment:
    """A segment from its first step on. choices: how many there are, where an action is one of them."""
    done = np.eye(choices, dtype=np.float32)[actions] if choices else actions
    steps = np.concatenate([seen, done], axis=1).astype(np.float32)
    values = {"environment": spec(EnvironmentConfig(name)), "seed": 1, "start": 0, "gold": 987.5, **more}
    return Segment(actions=actions, steps=steps, **values)  # type: ignore[arg-type]


def hopper(**more: Any) -> Segment:
    """Five steps of 0.1 s: half around backward, always at 0.5 m/s, the height rising from 1 m by 0.1 m a step."""
    seen = np.zeros((5, 11))
    seen[:, 0] = [1.0, 1.1, 1.2, 1.3, 1.4]
    seen[:, 1] = [0, -1, -2, -3, -math.pi]
    seen[:, 5] = 0.5
    return segment("Hopper-v5", seen, np.full((5, 3), 0.25), **more)


def test_a_hopper_by_hand() -> None:
    lines = describe(hopper(), 0.1).splitlines()
    assert lines[:4] == [
        "A clip of Hopper-v5: 5 steps (0.50 s).",
        "The episode did not terminate in it.",
        "The torso turned 180° backward from first to last step.",
        "It moved 0.25 m forward.",  # 5 steps · 0.5 m/s · 0.1 s
    ]
    assert "torso height (m): 1 1.1 1.2 1.3 1.4 | 1, 1.4, 1.2" in lines
    assert "forward velocity (m/s): 0.5 0.5 0.5 0.5 0.5 | 0.5, 0.5, 0.5" in lines
    assert "torque foot (-1 to 1): 0.25 … 0.25 | 0.25, 0.25, 0.25" in lines  # the 14th: a summary only
    assert len(lines) == 4 + 1 + 11 + 3


def test_without_a_clock_nothing_is_told_in_seconds_or_metres_travelled() -> None:
    text = describe(hopper(), None)
    assert text.startswith("A clip of Hopper-v5: 5 steps.\n")
    assert "moved" not in text


def test_an_end_is_told_in_the_words_of_its_environment() -> None:
    assert "The episode ended with its last step: the hopper fell." in describe(hopper(ended=True), 0.1)


def test_what_it_was_worth_is_never_told() -> None:
    assert describe(hopper(gold=1e6), 0.1) == describe(hopper(gold=-3.25), 0.1)


def test_choices_are_told_as_shares() -> None:
    """Two left and three right: 40 % and 60 %. The pole leans 0.2 rad = 11.5° at most."""
    seen = np.zeros((5, 4))
    seen[:, 2] = [0, 0.1, -0.2, 0.1, 0]
    text = describe(segment("CartPole-v1", seen, np.array([0, 1, 1, 1, 0]), choices=2), 0.02)
    assert "Actions: push left 40 %, push right 60 %." in text
    assert "The pole leant at most 11.5° from upright." in text
    assert "pole angle (rad): 0 0.1 -0.2 0.1 0 | -0.2, 0.1, 0" in text
    assert "action" not in text  # a one-hot is no line of its own


def test_a_choice_that_was_never_made_counts_among_the_choices() -> None:
    text = describe(segment("LunarLander-v3", np.zeros((4, 8)), np.zeros(4, dtype=np.int64), choices=4), None)
    assert "Actions: no engine 100 %, left engine 0 %, main engine 0 %, right engine 0 %." in text


def test_a_pendulum_swung_up() -> None:
    """From hanging (180°) by 45° a step, past the left (270°) to 10° before upright: 170° counter-clockwise."""
    angles = np.radians([180, 225, 270, 315, 350])
    seen = np.stack([np.cos(angles), np.sin(angles), np.ones(5)], axis=1)
    text = describe(segment("Pendulum-v1", seen, np.ones((5, 1))), 0.05)
    assert "180° at first, 10° at least, 10° at last; within 20° of upright in 20 % of the steps." in text
    assert "It swung 170° counter-clockwise in all." in text


def test_two_poles_lean_apart() -> None:
    """The first leans by 30°, the second by 30° + 20° = 50° from upright."""
    first, between = np.radians(30), np.radians(20)
    seen = np.zeros((2, 9))
    seen[:, 1:5] = [math.sin(first), math.sin(between), math.cos(first), math.cos(between)]
    text = describe(segment("InvertedDoublePendulum-v5", seen, np.zeros((2, 1))), 0.05)
    assert "The first pole leant at most 30.0° from upright." in text
    assert "The second pole leant at most 50.0° from upright." in text


def test_acrobot_and_reacher_by_hand() -> None:
    """θ1 = 180°, θ2 = −90°: −(−1) − cos 90° = 1 link up. A fingertip 3 cm and 4 cm off is 5 cm off."""
    seen = np.tile([-1.0, 0, 0, -1, 0, 0], (2, 1))
    text = describe(segment("Acrobot-v1", seen, np.array([0, 2]), choices=3), 0.2)
    assert "(goal: 1): 1.00 at first, 1.00 at most, 1.00 at last." in text
    seen = np.zeros((2, 10))
    seen[1, 8:] = [0.03, 0.04]
    text = describe(segment("Reacher-v5", seen, np.zeros((2, 2))), 0.02)
    assert "0.000 m at first, 0.000 m at least, 0.050 m at last." in text


def test_names_are_used_only_where_they_fit() -> None:
    """With its position observed too, everything in a Hopper's observation stands one place further on."""
    shifted = segment("Hopper-v5", np.zeros((3, 12)), np.zeros((3, 3)))
    text = describe(shifted, 0.008)
    assert "torso" not in text
    assert "observation 12: 0 0 0 | 0, 0, 0" in text
    encoded = json.dumps({**json.loads(hopper().environment), "encoder": "flatten"})
    assert "torso" not in describe(hopper(environment=encoded), 0.1)


def test_a_stranger_is_described_by_numbers() -> None:
    """Values at steps 0, 1, 2, 4 and 5 of 0..5: the places 0, 1.25, 2.5, 3.75 and 5, rounded."""
    text = describe(segment("my/Maze-v0", np.arange(12.0).reshape(6, 2), np.array([0, 1, 0, 1, 0, 1]), choices=3), None)
    assert "observation 1: 0 2 4 8 10 | 0, 10, 5" in text
    assert "Actions: action 1 50 %, action 2 50 %, action 3 0 %." in text


@pytest.mark.parametrize("steps", [1, 500])
def test_it_never_grows_too_long_and_says_what_it_left_out(steps: int) -> None:
    wild = np.random.default_rng(0).normal(0, 1e6, (steps, 576))
    text = describe(segment("x" * 300 + "-v0", wild, np.zeros((steps, 40))), 0.01)
    assert len(text) <= LONGEST
    shown = text.count("observation ")
    assert text.endswith(f"… and {576 + 40 - shown} more.")


VERSIONS = {"Pendulum": 1, "CartPole": 1, "Acrobot": 1, "MountainCar": 0, "MountainCarContinuous": 0, "LunarLander": 3}


@pytest.mark.parametrize("family", KNOWN)
def test_the_names_fit_the_real_environments(family: str) -> None:
    env = make(spec(EnvironmentConfig(f"{family}-v{VERSIONS.get(family, 5)}")))
    known = KNOWN[family]
    assert env.observation_space.shape == (len(known.observations),)
    if isinstance(env.action_space, gym.spaces.Discrete):
        assert len(known.choices) == env.action_space.n
    else:
        assert env.action_space.shape == (len(known.actions),)
    observation, _ = env.reset(seed=0)
    action = np.asarray([env.action_space.sample()])
    steps = np.concatenate([[observation], action_features(env.action_space, action)], axis=1).astype(np.float32)
    text = describe(Segment(spec(EnvironmentConfig(env.spec.id)), 0, 0, action, steps, 0.0), 0.05)  # type: ignore[union-attr]
    assert "observation" not in text
    assert "action " not in text
    env.close()


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5"])
def test_a_growing_angle_tips_a_real_walker_forward(name: str) -> None:
    env = gym.make(name).unwrapped
    env.reset(seed=0)
    place = env.init_qpos.copy()  # type: ignore[attr-defined]
    place[2] = 0.3
    env.set_state(place, env.init_qvel)  # type: ignore[attr-defined]
    up = env.data.body("torso").xmat.reshape(3, 3)[:, 2]  # type: ignore[attr-defined]
    assert up[0] == pytest.approx(math.sin(0.3))
    env.close()
