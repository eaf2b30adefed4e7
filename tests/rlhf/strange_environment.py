"""An environment in which anything can go wrong, and small run files about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from control_world import ControlWorld, Here
from gymnasium import spaces

from labeling.records import UserError
from rlhf.control.control_config import ControlConfig, parse_control
from rlhf.control.control_subject import make_control_subject

VECTOR = spaces.Box(-1, 1, (2,), np.float32)
OBSERVATIONS: dict[str, spaces.Space] = {
    "vector": VECTOR,
    "dict": spaces.Dict({"a": VECTOR, "b": spaces.Discrete(3)}),
    "picture": spaces.Box(0, 255, (30, 40, 3), np.uint8),
    "choice": spaces.Discrete(5),
    "matrix": spaces.Box(-1, 1, (2, 3), np.float32),
    "sequence": spaces.Sequence(VECTOR),
    "colours first": spaces.Box(0, 255, (3, 30, 40), np.uint8),
    "nothing": spaces.Box(-1, 1, (0,), np.float32),
    "wide": spaces.Box(-1, 1, (30_000,), np.float32),
}
ACTIONS: dict[str, spaces.Space] = {
    "choice": spaces.Discrete(2),
    "vector": spaces.Box(-1, 1, (2,), np.float32),
    "dict": spaces.Dict({"a": spaces.Discrete(2)}),
    "choices": spaces.MultiDiscrete([2, 2]),
    "matrix": spaces.Box(-1, 1, (2, 2), np.float32),
    "from 5": spaces.Discrete(2, start=5),
    "whole numbers": spaces.Box(0, 9, (2,), np.int64),
    "no bound": spaces.Box(-1, np.inf, (2,), np.float32),
    "no room": spaces.Box(np.zeros(2, np.float32), np.zeros(2, np.float32)),
    "no numbers": spaces.Box(-1, 1, (0,), np.float32),
}


class Strange(gym.Env):
    """Any spaces. From the `breaks`-th observation of all its instances on, what it observes is `value` (NaN).

    A value that is a text is an error, a list is observed in place of a vector. It takes no action but one of its own.
    """

    observed = 0
    metadata = {"render_modes": ["human"]}  # noqa: RUF012 (Gymnasium's own way)

    def __init__(
        self,
        seen: str = "vector",
        acts: str = "choice",
        breaks: int | None = None,
        value: Any = float("nan"),
        pay: Any = 0.0,
        fails: bool = False,
        cut: int = 1000,
        render_mode: str | None = None,
    ) -> None:
        self.observation_space, self.action_space = OBSERVATIONS[seen], ACTIONS[acts]
        self.breaks, self.value, self.pay, self.render_mode = breaks, value, pay, render_mode
        self.cut, self.done = cut, 0
        if fails:
            raise RuntimeError("no such\nplace")

    def observe(self) -> Any:
        Strange.observed += 1
        if self.breaks is not None and Strange.observed >= self.breaks:
            if isinstance(self.value, str):
                raise RuntimeError(self.value)
            if isinstance(self.value, list):
                return np.array(self.value, dtype=np.float32)
            return np.array([0.0, self.value], dtype=np.float32)
        return self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.done = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        self.done += 1
        return self.observe(), self.pay, False, self.done >= self.cut, {}


@contextmanager
def registered() -> Iterator[None]:
    """Within it, Gymnasium knows the environment as Strange-v0."""
    Strange.observed = 0
    gym.register("Strange-v0", Strange, disable_env_checker=True)
    try:
        yield
    finally:
        del gym.registry["Strange-v0"]


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever trains or tries out fails from now on."""

    def trains(*given: Any, **more: Any) -> None:
        raise AssertionError("something was trained or tried out")

    for name in ("learn", "explore", "play", "fit_segments"):
        monkeypatch.setattr(f"rlhf.control.control_subject.{name}", trains)


def run_file(*, environment: dict[str, Any] | None = None, **sections: Any) -> ControlConfig:
    """A small run; of the environment only the keys that are given differ, of other sections the whole."""
    data: dict[str, Any] = {
        "question": "Which is better?",
        "iterations": 2,
        "environment": {"id": "Strange-v0", "max_steps": 20} | (environment or {}),
        "segments": {"length": 5, "pool": 2},
        "labels": {"slates": 6, "humans": False, "oracle": {}},
        "reward_model": {"updates": 2, "first_updates": 2, "hidden": 4},
        "agent": {"steps": 64, "parallel": 2, "network": [4], "options": {"n_steps": 32, "batch_size": 32}},
        "evaluation": {"episodes": 1},
    }
    return parse_control(data | sections, "my.toml")


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    """The message, of which there is one line."""
    message = str(error.value)
    assert "\n" not in message
    assert 10 < len(message) < 450
    assert "Traceback" not in message
    return message


def refused(run: ControlConfig) -> str:
    """What is said when the subject of a run is made."""
    with pytest.raises(UserError) as caught:
        make_control_subject(run, ControlWorld(0), Here())
    return one_line(caught)


def mistake(data: dict[str, Any]) -> str:
    """What is said about a run file."""
    with pytest.raises(UserError) as caught:
        run_file(**data)
    message = one_line(caught)
    assert message.startswith("my.toml: ")
    return message
