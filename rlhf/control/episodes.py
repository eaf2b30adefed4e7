"""Episodes: what an agent did, from which segments are cut; the true reward is written down and never passed on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np

from labeling.segments import Segment
from rlhf.control.environments import action_features


@dataclass
class Episode:
    """One episode as it grows. Row t of each list belongs to step t; seed is what the episode was reset with."""

    seed: int
    observations: list[np.ndarray] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False

    def __len__(self) -> int:
        return len(self.actions)


class Recorder(gym.Wrapper):
    """Writes down every episode and hands the agent a reward of 0: what it learns from comes from elsewhere.

    seed_of: the seed of the n-th episode, whatever the caller asks for, so that any episode can be done again.
    begun: how many episodes began. finished: those that ended and were not taken yet.
    """

    def __init__(self, env: gym.Env, seed_of: Callable[[int], int]) -> None:
        super().__init__(env)
        self.seed_of = seed_of
        self.begun = 0
        self.episode = Episode(0)
        self.finished: list[Episode] = []
        self._last: np.ndarray = np.zeros(0)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode with a seed of our own."""
        self.episode = Episode(self.seed_of(self.begun))
        self.begun += 1
        observation, info = self.env.reset(seed=self.episode.seed, options=options)
        self._last = np.array(observation)  # a copy: an environment may write its next one into the same array
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take a step."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        episode = self.episode
        episode.observations.append(self._last)
        episode.actions.append(np.array(action))
        episode.rewards.append(float(reward))
        self._last = np.array(observation)
        if terminated or truncated:
            episode.terminated = terminated
            self.finished.append(episode)
        return observation, 0.0, terminated, truncated, info

    def take_finished(self) -> list[Episode]:
        """The episodes that ended since the last call."""
        taken, self.finished = self.finished, []
        return taken

    def replay(self, seed: int, actions: Sequence[Any]) -> np.ndarray:
        """Bring a fresh environment to where an episode had come; returns the observation there."""
        self.episode = Episode(seed)
        self._last = np.array(self.env.reset(seed=seed)[0])
        for action in actions:
            self.step(action)
        return self._last


def cut(episode: Episode, start: int, length: int, env: gym.Env, environment: str) -> Segment:
    """The segment of an episode from step `start`, `length` steps or up to the episode's end."""
    end = min(start + length, len(episode))
    actions = np.asarray(episode.actions[:end])
    seen = np.asarray(episode.observations[start:end], dtype=np.float32)
    steps = np.concatenate([seen, action_features(env.action_space, actions[start:])], axis=1)
    ended = episode.terminated and end == len(episode)
    return Segment(environment, episode.seed, start, actions, steps, sum(episode.rewards[start:end]), ended)


def draw_start(episode: Episode, length: int, chance: random.Random) -> int | None:
    """Where a segment of an episode may begin, uniformly; None when the episode has no room for one.

    An episode that terminated may give a segment that ends with it: of at least half the length, or the whole episode
    where that is shorter.
    """
    last = len(episode) - (length // 2 if episode.terminated else length)
    if last < 0:
        return 0 if episode.terminated and len(episode) else None
    return chance.randint(0, last)


def draw_segments(
    episodes: Sequence[Episode], count: int, length: int, env: gym.Env, environment: str, chance: random.Random
) -> list[Segment]:
    """Up to `count` different segments; an episode is drawn with a chance in proportion to its steps."""
    usable = [e for e in episodes if draw_start(e, length, random.Random(0)) is not None]
    found: dict[tuple[int, int], Segment] = {}
    for _ in range(4 * count if usable else 0):
        if len(found) == count:
            break
        (episode,) = chance.choices(usable, [len(e) for e in usable])
        start = draw_start(episode, length, chance)
        assert start is not None
        if (episode.seed, start) not in found:
            found[episode.seed, start] = cut(episode, start, length, env, environment)
    return list(found.values())
