"""Environments: any Gymnasium id, made from one line of text, with a flat observation and nothing that surprises later.

What cannot work (no such id, a picture without an encoder, NaN, …) is said in one line before any training.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TransformAction

from labeling.records import UserError
from rlhf.control.control_config import EnvironmentConfig, spec

__all__ = ["EnvironmentConfig", "action_features", "check", "make", "spec", "steps_per_second"]

PICTURE_SIDE = 24
COLOURS = (1, 3, 4)
PROBE_STEPS = 50


def make(environment: str, render: bool = False) -> gym.Env:
    """The environment of a `spec`, encoded, guarded, with a time limit. render: it can draw itself (`rgb_array`).

    Raises UserError for an unknown id, options that it does not take, a missing library, no way to be drawn,
    an observation or action that no agent here can use; and in each reset and step as `Guarded` does.
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
    except ModuleNotFoundError as error:
        raise UserError(f"{name} needs the library {error.name!r}, which cannot be found: install it") from error
    except TypeError as error:
        raise UserError(f"{name} does not take environment.options = {config.options}: {_line(error)}") from error
    except Exception as error:  # an environment's own constructor may fail in any way, with text from outside
        raise UserError(f"{name} cannot be made ({type(error).__name__}: {_line(error)})") from error
    if render and "rgb_array" not in env.metadata.get("render_modes", ()):
        raise UserError(f"{name} cannot be drawn as pictures (no rgb_array mode): people need one that can")
    if env.spec is None or env.spec.max_episode_steps is None:
        env.close()
        raise UserError(f"{name} has no time limit: set environment.max_steps")
    env = _encoded(_countable(env, name), config.encoder, name)
    if env.observation_space.shape == (0,):
        raise UserError(f"{name} observes nothing: choose another")
    return Guarded(env)


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


def _countable(env: gym.Env, name: str) -> gym.Env:
    """The environment with an action that is a vector between bounds, or a choice counted from 0."""
    acts = env.action_space
    if isinstance(acts, spaces.Discrete):
        first = int(acts.start)
        return TransformAction(env, lambda n: n + first, spaces.Discrete(int(acts.n))) if first else env
    if not isinstance(acts, spaces.Box) or len(acts.shape) != 1:
        raise UserError(f"{name} takes actions of {acts}: Prefloop's agents give a vector (Box) or a choice (Discrete)")
    bounded = np.isfinite(acts.low).all() and np.isfinite(acts.high).all() and (acts.low < acts.high).all()
    if not (acts.shape[0] and bounded and np.issubdtype(acts.dtype, np.floating)):
        raise UserError(
            f"{name} takes actions of {acts}: Prefloop's agents give real numbers between finite bounds, the lower "
            "below the upper one; wrap it in such an action space"
        )
    return env


def _encoded(env: gym.Env, encoder: str, name: str) -> gym.Env:
    """The environment with a one-dimensional float observation."""
    seen = env.observation_space
    kind = type(seen).__name__
    if encoder == "pixels":
        if not _is_picture(seen):
            raise UserError(
                f"{name} shows no uint8 picture of (height, width, colours) but {_shaped(seen)}: set "
                'environment.encoder to "none" or "flatten"'
            )
        return Grey(env)
    if encoder == "flatten":
        if not seen.is_np_flattenable:
            raise UserError(f"{name} observes a {kind} of varying size, which cannot be flattened: choose another")
        return FlattenObservation(env)
    if _is_picture(seen):
        raise UserError(f'{name} observes a picture {seen.shape}: set environment.encoder = "pixels"')
    if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
        raise UserError(f'{name} observes {_shaped(seen)}, not a vector: set environment.encoder = "flatten"')
    return env


def _shaped(space: spaces.Space) -> str:
    """The kind of a space, with its shape where that is part of what is wrong."""
    shape = f" of shape {space.shape}" if isinstance(space, spaces.Box) else ""
    return f"a {type(space).__name__}{shape}"


def _is_picture(space: spaces.Space) -> bool:
    """Colours come last: where they come first, means over blocks of pixels would mix them with places."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or 0 in space.shape:
        return False
    return len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in COLOURS)


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


class Guarded(gym.Wrapper):
    """Ends with one line whatever goes wrong in an environment, which may be anybody's.

    `reset` and `step` raise UserError for an exception, for an observation of another shape than its space has, and for
    an observation or reward that is not finite: whatever learned from it would be lost. A reward is a plain number.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        with self._one_line():
            observation, info = self.env.reset(seed=seed, options=options)
            self._require(observation, 0.0)
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        with self._one_line():
            observation, reward, terminated, truncated, info = self.env.step(action)
            paid = float(np.asarray(reward, dtype=np.float64).reshape(()))
            self._require(observation, paid)
        return observation, paid, bool(terminated), bool(truncated), info

    def _require(self, observation: Any, reward: float) -> None:
        shape = self.observation_space.shape
        if np.shape(observation) != shape:
            raise UserError(
                f"{self._name} observed an array of shape {np.shape(observation)}, and its space says {shape}"
            )
        if not (math.isfinite(reward) and np.isfinite(observation).all()):
            raise UserError(
                f"{self._name} gave a value that is not finite (NaN or infinity): mend the environment or its options"
            )

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self._name} failed ({type(error).__name__}: {_line(error)}): mend the environment or its options"
            ) from error

    @property
    def _name(self) -> str:
        return self.env.spec.id if self.env.spec else "the environment"


def check(environment: str) -> None:
    """Make the environment and act at random for a moment. Raises UserError as `make` does."""
    env = make(environment)
    try:
        env.action_space.seed(0)
        env.reset(seed=0)
        for _ in range(PROBE_STEPS):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset(seed=0)
    finally:
        env.close()


def steps_per_second(env: gym.Env) -> float | None:
    """By the environment's own clock; None where it states none."""
    stated = env.metadata.get("render_fps")
    rate = float(stated) if isinstance(stated, Real) else 0.0
    return rate if 0 < rate < math.inf else None


def action_features(space: spaces.Space, actions: np.ndarray) -> np.ndarray:
    """(T, A) float32: an action's vector as it is, a choice, counted from 0, as one-hot."""
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(actions, dtype=np.int64)]
    return np.asarray(actions, dtype=np.float32)
