"""Environments: any Gymnasium id, made from one line of text, with a flat observation and nothing that surprises later.

What cannot work (no such id, a picture without an encoder, NaN, …) is said in one line before any training.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation

from labeling.records import UserError
from rlhf.control.control_config import EnvironmentConfig, spec

__all__ = ["EnvironmentConfig", "action_features", "check", "make", "require_finite", "spec"]

PICTURE_SIDE = 24
PROBE_STEPS = 50


def make(environment: str, render: bool = False) -> gym.Env:
    """The environment of a `spec`, encoded, with a time limit. render: it can draw itself (`rgb_array`).

    Raises UserError for an unknown id, options that it does not take, a missing library, no way to be drawn,
    an observation or action that no agent here can use.
    """
    config = EnvironmentConfig(**json.loads(environment))
    name = f"environment.id = {config.id!r}"
    mode: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
    try:
        _quieten(config.id)
        env = gym.make(config.id, config.max_steps, **config.options, **mode)
    except gym.error.DependencyNotInstalled as error:
        raise UserError(
            f"{name} needs a library that is missing ({_line(error)}): pip install 'prefloop[control]'"
        ) from error
    except gym.error.Error as error:
        raise UserError(f"{name}: {_line(error)}") from error
    except TypeError as error:
        raise UserError(f"{name} does not take environment.options = {config.options}: {_line(error)}") from error
    except Exception as error:  # an environment's own constructor may fail in any way, with text from outside
        raise UserError(f"{name} cannot be made ({type(error).__name__}: {_line(error)})") from error
    if render and "rgb_array" not in env.metadata.get("render_modes", ()):
        raise UserError(f"{name} cannot be drawn as pictures (no rgb_array mode): people need one that can")
    if env.spec is None or env.spec.max_episode_steps is None:
        env.close()
        raise UserError(f"{name} has no time limit: set environment.max_steps")
    return _encoded(env, config.encoder, name)


_TOLD: set[str] = set()


def _quieten(id: str) -> None:
    """Have MuJoCo tell each warning once, and write no MUJOCO_LOG.TXT into the current folder.

    By itself it tells a warning about a model whenever one is made, and a run makes one for each clip. It has to be
    told before the environment is made.
    """
    made_by = [str(found.entry_point) for found in gym.registry.values() if id in (found.id, found.name)]
    if any("mujoco" in entry for entry in made_by):
        with suppress(ImportError):  # Gymnasium itself says what is missing
            import mujoco

            log = mujoco.MjLogConfig.get()
            log.logto_file = False
            log.set()
            mujoco.set_mju_user_warning(_tell_once)


def _tell_once(warning: str) -> None:
    if warning not in _TOLD:
        _TOLD.add(warning)
        print(f"MuJoCo warns: {warning}", file=sys.stderr)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _encoded(env: gym.Env, encoder: str, name: str) -> gym.Env:
    """The environment with a one-dimensional float observation and an action that is a vector or a choice."""
    seen, acts = env.observation_space, env.action_space
    if not isinstance(acts, spaces.Box | spaces.Discrete) or (isinstance(acts, spaces.Box) and len(acts.shape) != 1):
        raise UserError(f"{name} takes actions of {acts}: Prefloop's agents give a vector (Box) or a choice (Discrete)")
    kind = type(seen).__name__
    if encoder == "pixels":
        if not _is_picture(seen):
            raise UserError(f'{name} shows no picture but a {kind}: set environment.encoder to "none" or "flatten"')
        return Grey(env)
    if encoder == "flatten":
        if not seen.is_np_flattenable:
            raise UserError(f"{name} observes a {kind} of varying size, which cannot be flattened: choose another")
        return FlattenObservation(env)
    if _is_picture(seen):
        raise UserError(f'{name} observes a picture {seen.shape}: set environment.encoder = "pixels"')
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
        raise UserError(f'{name} observes a {kind}, not a vector: set environment.encoder = "flatten"')
    return env


def _is_picture(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and len(space.shape) in (2, 3) and space.dtype == np.uint8


class Grey(gym.ObservationWrapper):
    """A picture as a vector of at most 24 × 24 shades of grey in [0, 1]: means over blocks of pixels."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        assert env.observation_space.shape is not None
        height, width = env.observation_space.shape[:2]
        self.block = max(1, -(-max(height, width) // PICTURE_SIDE))
        size = (height // self.block) * (width // self.block)
        self.observation_space = spaces.Box(0.0, 1.0, (size,), np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """(height, width[, 3]) uint8 to (side², ) float32."""
        grey = observation if observation.ndim == 2 else observation.mean(-1)
        rows, columns = grey.shape[0] // self.block, grey.shape[1] // self.block
        cut = grey[: rows * self.block, : columns * self.block]
        return (cut.reshape(rows, self.block, columns, self.block).mean((1, 3)) / 255).ravel().astype(np.float32)


def check(environment: str) -> None:
    """Make the environment and act at random for a moment.

    Raises UserError as `make` does, and for what is not finite.
    """
    env = make(environment)
    try:
        env.action_space.seed(0)
        observation, _ = env.reset(seed=0)
        for _ in range(PROBE_STEPS):
            require_finite(observation, env)
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            require_finite(np.asarray(reward), env)
            if terminated or truncated:
                observation, _ = env.reset(seed=0)
    finally:
        env.close()


def require_finite(values: np.ndarray, env: gym.Env) -> None:
    """Raise UserError when an environment gives NaN or infinity: whatever learned from it would be lost."""
    if not np.isfinite(values).all():
        name = env.spec.id if env.spec else "the environment"
        raise UserError(
            f"{name} gave a value that is not finite (NaN or infinity): mend the environment or its options"
        )


def action_features(space: spaces.Space, actions: np.ndarray) -> np.ndarray:
    """(T, A) float32: an action's vector as it is, a choice as one-hot."""
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(actions, dtype=np.int64) - int(space.start)]
    return np.asarray(actions, dtype=np.float32)
