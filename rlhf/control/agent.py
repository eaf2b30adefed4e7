"""The agent: a stable-baselines3 algorithm on the predicted reward, trained in pieces and taken up where it stopped."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from labeling.records import UserError
from labeling.toml_values import echoed
from rlhf.control.control_config import AgentConfig
from rlhf.control.environments import make
from rlhf.control.episodes import Episode, Recorder
from rlhf.control.predicted_reward import PredictedReward, relabel
from rlhf.control.segment_model import SegmentModel
from rlhf.random_streams import stream_seed

ALGORITHMS: Mapping[str, type[BaseAlgorithm]] = {"ppo": PPO, "sac": SAC}
# By the type of an option's default: what else it may be. The algorithms themselves take anything until they use it.
KINDS: Mapping[type, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (float, int)}
# What the algorithms take without a word, and cannot train with.
SHARES = {"gamma", "gae_lambda", "tau"}
COUNTS = {"n_epochs", "buffer_size"}
AMOUNTS = {"learning_rate", "clip_range", "max_grad_norm", "target_kl"}
OURS = {"policy", "env", "verbose", "seed", "device", "tensorboard_log", "_init_setup_model", "policy_kwargs"}


@dataclass
class Agent:
    """An algorithm with its environments: `recorders` below, the predicted reward around them, normalisation on top."""

    model: BaseAlgorithm
    recorders: list[Recorder]
    rewarded: PredictedReward
    environments: VecEnv


def make_agent(config: AgentConfig, environment: str, reward: SegmentModel, seed: int) -> Agent:
    """An untrained agent.

    Raises UserError for an option that the algorithm does not have or rejects, and for SAC where actions are choices.
    """
    recorders = [Recorder(make(environment), _episode_seeds(seed, "train", n)) for n in range(config.parallel)]
    rewarded = PredictedReward(DummyVecEnv([lambda r=r: r for r in recorders]), reward)  # type: ignore[misc]
    environments = normalised(rewarded, config)
    return Agent(make_algorithm(config, environments, seed), recorders, rewarded, environments)


def normalised(environments: VecEnv, config: AgentConfig) -> VecEnv:
    """Observations and rewards in running units, if the config says so (γ is the algorithm's)."""
    if not config.normalise:
        return environments
    return VecNormalize(environments, gamma=config.options.get("gamma", 0.99))


def make_algorithm(config: AgentConfig, environments: VecEnv, seed: int) -> BaseAlgorithm:
    """The stable-baselines3 algorithm that the config describes."""
    algorithm = ALGORITHMS[config.algorithm]
    parameters = inspect.signature(algorithm.__init__).parameters
    known = sorted(set(parameters) - OURS - {"self"})
    for key, value in config.options.items():
        if key not in known:
            raise UserError(
                f"agent.options has no key {echoed(key)} for {config.algorithm!r}: known are {', '.join(known)}"
            )
        default = parameters[key].default
        if type(default) in KINDS and type(value) not in KINDS[type(default)]:
            raise UserError(f"agent.options.{key} = {echoed(value)} does not fit: give a value such as {default!r}")
        if allowed := _allowed(key, value):
            raise UserError(f"agent.options.{key} = {echoed(value)} does not fit: it must be {allowed}")
    if config.algorithm == "sac" and not isinstance(environments.action_space, spaces.Box):
        raise UserError(
            f'agent.algorithm = "sac" needs actions that are vectors, not {environments.action_space}: use "ppo"'
        )
    try:
        made = algorithm(
            "MlpPolicy",
            environments,
            seed=stream_seed(seed, "agent") % 2**32,
            device="cpu",
            policy_kwargs={"net_arch": list(config.network)},
            **config.options,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(
            f"agent.options = {echoed(config.options)} does not work: {' '.join(str(error).split())[:200]}"
        ) from error
    made.set_logger(Logger(None, []))  # its own would leave an empty folder behind for each piece of training
    return made


def _allowed(key: str, value: Any) -> str:
    """What an option must be, in words, if it is not; otherwise nothing."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key in SHARES and not (number and 0 <= value <= 1):
        return "from 0 to 1"
    if key in COUNTS and not (number and value >= 1):
        return "at least 1"
    if key in AMOUNTS and not (number and 0 < value <= sys.float_info.max):
        return "a number above 0"
    return ""


def _episode_seeds(*name: object) -> Callable[[int], int]:
    """The seeds of the episodes of one environment, in [0, 2³¹)."""
    return lambda count: stream_seed(*name, count) % 2**31


class _Progress(BaseCallback):
    def __init__(self, on_step: Callable[[int, int], None], total: int) -> None:
        super().__init__()
        self.report, self.total, self.first = on_step, total, -1

    def _on_step(self) -> bool:
        if self.first < 0:
            self.first = self.num_timesteps
        self.report(min(self.num_timesteps - self.first, self.total), self.total)
        return True


def anneal(model: BaseAlgorithm, run_steps: int) -> None:
    """Let the learning rate fall with each step, to 0 at the last of `run_steps`: `α·(1 − t/T)`."""
    rate = float(model.learning_rate)  # type: ignore[arg-type] # a number, as the options are checked
    model.lr_schedule = lambda _: rate * max(0.0, 1 - model.num_timesteps / run_steps)


def learn(
    agent: Agent,
    steps: int,
    seed: int,
    iteration: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    run_steps: int | None = None,
) -> tuple[list[Episode], dict[str, float]]:
    """Train for `steps` environment steps. Returns the episodes so far unseen (the last unfinished), and figures.

    run_steps: those of the whole run, over which the learning rate falls to 0; without them it stays what it is.
    All chance in it follows from the seed and the iteration, so a resumed run draws the same. Raises UserError when the
    algorithm fails, as it does once its numbers have grown beyond all bounds.
    """
    model = agent.model
    model.set_random_seed(stream_seed(seed, iteration, "update") % 2**32)
    before, began = model.num_timesteps, time.monotonic()
    if run_steps is not None:
        anneal(model, run_steps)
    try:
        model.learn(steps, callback=_Progress(on_step, steps), reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]
    except UserError:
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(
            f"the agent's training failed in iteration {iteration} ({why}): "
            "change agent.options, such as the learning rate"
        ) from error
    done = model.num_timesteps - before
    ended = [episode for recorder in agent.recorders for episode in recorder.take_finished()]
    lengths = [len(e) for e in ended]
    figures = {
        "environment_steps": float(model.num_timesteps),
        "steps_per_second": done / max(1e-9, time.monotonic() - began),
        "predicted_reward": agent.rewarded.take_mean(),
        "episodes": float(len(ended)),
    }
    if ended:
        figures["episode_length"] = sum(lengths) / len(lengths)
    return [*ended, *(r.episode for r in agent.recorders)], figures


def install(agent: Agent, reward: SegmentModel) -> None:
    """Reward the agent by another model from now on; what is stored of earlier steps is rewarded anew."""
    agent.rewarded.model = reward
    buffer = getattr(agent.model, "replay_buffer", None)
    if buffer is not None and buffer.size():  # empty before the first update
        space = agent.model.action_space
        assert isinstance(space, spaces.Box)
        relabel(buffer, reward, space.low, space.high)


def best_action(agent: Agent, observations: np.ndarray) -> np.ndarray:
    """The policy's most likely action for each of (B, D) plain observations."""
    if isinstance(agent.environments, VecNormalize):
        observations = agent.environments.normalize_obs(observations)  # type: ignore[assignment]
    return agent.model.predict(observations, deterministic=True)[0]


def play(agent: Agent, environment: str, episodes: int, seed: int) -> list[Episode]:
    """Whole episodes of the policy without exploration, from the same `episodes` seeds at every call."""
    recorders = [Recorder(make(environment), _episode_seeds(seed, "evaluate", n)) for n in range(episodes)]
    try:
        seen = np.stack([recorder.reset()[0] for recorder in recorders])
        going = list(range(episodes))
        while going:
            actions = best_action(agent, seen[going])
            for n, action in zip(tuple(going), actions, strict=True):
                seen[n], _, terminated, truncated, _ = recorders[n].step(action)
                if terminated or truncated:
                    going.remove(n)
        return [recorder.episode for recorder in recorders]
    finally:
        for recorder in recorders:
            recorder.close()


def explore(environment: str, steps: int, seed: int) -> list[Episode]:
    """Episodes of actions drawn at random, `steps` in all: what there is to compare before anything was learned."""
    recorder = Recorder(make(environment), _episode_seeds(seed, "explore"))
    recorder.action_space.seed(stream_seed(seed, "explore") % 2**32)
    recorder.reset()
    for _ in range(steps):
        _, _, terminated, truncated, _ = recorder.step(recorder.action_space.sample())
        if terminated or truncated:
            recorder.reset()
    recorder.close()
    return [*recorder.take_finished(), recorder.episode]
