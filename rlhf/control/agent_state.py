"""An agent's whole state for a checkpoint, environments in the middle of an episode included.

An environment cannot be saved; its episode can be done again, from the seed and the actions so far.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from rlhf.control.agent import Agent

STORED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def save_agent(agent: Agent) -> dict[str, Any]:
    """All that the agent has learned and where its environments stand, as tensors and plain data."""
    model: Any = agent.model  # what is only some algorithms' is asked for by name
    entropy = getattr(model, "log_ent_coef", None)
    return {
        "parameters": model.get_parameters(),
        "entropy": None if entropy is None else entropy.detach().clone(),
        "steps": model.num_timesteps,
        "updates": model._n_updates,
        "starts": _tensor(model._last_episode_starts),
        "episodes": [[r.episode.seed, _tensor(r.episode.actions), r.begun] for r in agent.recorders],
        "units": _save_units(agent.environments) if isinstance(agent.environments, VecNormalize) else None,
        "replay": _save_replay(model.replay_buffer) if hasattr(model, "replay_buffer") else None,
    }


def load_agent(agent: Agent, state: dict[str, Any]) -> None:
    """Put a saved state into an untrained agent of the same config."""
    model: Any = agent.model  # what is only some algorithms' is asked for by name
    model.set_parameters(state["parameters"])
    if state["entropy"] is not None:
        model.log_ent_coef.data.copy_(state["entropy"])
    model.num_timesteps, model._n_updates = state["steps"], state["updates"]
    seen = []
    for recorder, (seed, actions, begun) in zip(agent.recorders, state["episodes"], strict=True):
        seen.append(recorder.replay(seed, list(actions.numpy())))
        recorder.begun = begun
    observations = np.stack(seen)
    agent.rewarded.resume(observations)
    model._last_obs = model._last_original_obs = observations
    if isinstance(agent.environments, VecNormalize):
        _load_units(agent.environments, state["units"])
        model._last_obs = agent.environments.normalize_obs(observations)
    if state["starts"] is not None:
        model._last_episode_starts = state["starts"].numpy()
    if state["replay"] is not None:
        _load_replay(model.replay_buffer, state["replay"])


def _save_units(scale: VecNormalize) -> dict[str, Any]:
    return {"seen": _moments(scale.obs_rms), "paid": _moments(scale.ret_rms), "returns": _tensor(scale.returns)}  # type: ignore[arg-type]


def _load_units(scale: VecNormalize, state: dict[str, Any]) -> None:
    for rms, (mean, var, count) in ((scale.obs_rms, state["seen"]), (scale.ret_rms, state["paid"])):
        assert isinstance(rms, RunningMeanStd)
        rms.mean, rms.var, rms.count = mean.numpy(), var.numpy(), count
    scale.returns = state["returns"].numpy()


def _moments(rms: RunningMeanStd) -> list[Any]:
    return [_tensor(rms.mean), _tensor(rms.var), float(rms.count)]


def _save_replay(buffer: ReplayBuffer) -> dict[str, Any]:
    end = buffer.buffer_size if buffer.full else buffer.pos
    return {"pos": buffer.pos, "full": buffer.full} | {name: _tensor(getattr(buffer, name)[:end]) for name in STORED}


def _load_replay(buffer: ReplayBuffer, state: dict[str, Any]) -> None:
    buffer.pos, buffer.full = state["pos"], state["full"]
    for name in STORED:
        getattr(buffer, name)[: len(state[name])] = state[name].numpy()


def _tensor(array: Any) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(np.array(array))
