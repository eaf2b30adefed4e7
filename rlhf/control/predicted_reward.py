"""The predicted reward in place of the environment's: for all parallel environments at once, and in a replay buffer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from rlhf.control.environments import action_features
from rlhf.control.segment_model import SegmentModel

CHUNK = 16_384


class PredictedReward(VecEnvWrapper):
    """Rewards each step by r(s, a) of the reward model: one forward for all environments.

    model: replaced after each refit. total: the sum of what was paid since `take_mean`, over `paid` steps.
    """

    def __init__(self, environments: VecEnv, model: SegmentModel) -> None:
        super().__init__(environments)
        self.model = model
        self.total, self.paid = 0.0, 0
        self._seen: np.ndarray = np.zeros(0)
        self._done: np.ndarray = np.zeros(0)

    def reset(self) -> Any:
        """Begin new episodes."""
        self._seen = self.venv.reset()  # type: ignore[assignment]
        return self._seen

    def resume(self, observations: np.ndarray) -> None:
        """Go on from observations that came from elsewhere."""
        self._seen = observations

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions: the reward is theirs."""
        self._done = actions
        self.venv.step_async(actions)

    def step_wait(self) -> Any:
        """The step with the predicted reward of (s_t, a_t)."""
        observations, _, ended, infos = self.venv.step_wait()
        rewards = predict(self.model, self._seen, action_features(self.action_space, self._done))
        self.total, self.paid = self.total + float(rewards.sum()), self.paid + len(rewards)
        self._seen = observations  # type: ignore[assignment]
        return observations, rewards, ended, infos

    def take_mean(self) -> float:
        """The mean reward of a step since the last call."""
        mean = self.total / max(1, self.paid)
        self.total, self.paid = 0.0, 0
        return mean


def predict(model: SegmentModel, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """(B,) rewards of B steps given as (B, D) observations and (B, A) action features."""
    steps = np.concatenate([observations.reshape(len(actions), -1), actions], axis=1, dtype=np.float32)
    return model.reward(torch.from_numpy(steps)).numpy()


def relabel(buffer: ReplayBuffer, model: SegmentModel, low: np.ndarray, high: np.ndarray) -> None:
    """Give every stored step the reward that the model gives it now.

    The buffer keeps actions scaled to [−1, 1]; low and high are the bounds of the environment's own.
    """
    end = buffer.buffer_size if buffer.full else buffer.pos
    observations = buffer.observations[:end].reshape(end * buffer.n_envs, -1)
    actions = low + (buffer.actions[:end].reshape(end * buffer.n_envs, -1) + 1) / 2 * (high - low)
    rewards = [
        predict(model, observations[i : i + CHUNK], actions[i : i + CHUNK]) for i in range(0, len(actions), CHUNK)
    ]
    buffer.rewards[:end] = np.concatenate(rewards).reshape(end, buffer.n_envs)
