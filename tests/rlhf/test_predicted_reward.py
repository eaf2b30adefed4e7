"""The agent is paid r(s, a) of the state it acted in, whatever the environment itself pays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from rlhf.control.agent import Agent, install, learn, make_agent
from rlhf.control.control_config import AgentConfig, EnvironmentConfig, spec
from rlhf.control.episodes import Recorder
from rlhf.control.predicted_reward import PredictedReward, predict
from rlhf.control.segment_model import SegmentModel

LOW, HIGH = np.array([-1.0, 0.0], dtype=np.float32), np.array([3.0, 0.5], dtype=np.float32)
LENGTH = 5


class Counter(gym.Env):
    """Observes (step of the episode, last action's sum); terminates after LENGTH steps. Pays `pay` for each."""

    observation_space = spaces.Box(-100, 100, (2,), np.float32)

    def __init__(self, kind: str = "box", pay: float = 0.0) -> None:
        self.action_space = spaces.Box(LOW, HIGH) if kind == "box" else spaces.Discrete(3)
        self.pay, self.count = pay, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        seen = np.array([self.count, np.sum(action)], dtype=np.float32)
        return seen, self.pay, self.count == LENGTH, False, {"reward": self.pay}


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register("Counter-v0", Counter, max_episode_steps=100)
    yield
    del gym.registry["Counter-v0"]


def linear(*weights: float) -> SegmentModel:
    """One member with r(s, a) = w·(s, a): leaky units pass x and −x, and x = (u(x) − u(−x))/1.01 undoes them."""
    f = len(weights)
    model = SegmentModel(f, 1, 2 * f).eval()
    first, second, out = model.layers
    eye = torch.eye(f)
    both = torch.cat([eye, -eye], 1)
    back = torch.cat([eye, -eye]) / 1.01
    first.weight.data[0], second.weight.data[0], out.weight.data[0, :, 0] = (
        torch.cat([both, torch.zeros_like(both)]),  # squares say nothing
        back @ both,
        back @ torch.tensor(weights),
    )
    return model


def environment(kind: str = "box", pay: float = 0.0) -> str:
    return spec(EnvironmentConfig("Counter-v0", {"kind": kind, "pay": pay}))


def agent_of(
    algorithm: str, reward: SegmentModel, kind: str = "box", pay: float = 0.0, parallel: int = 1, **options: Any
) -> Agent:
    config = AgentConfig(algorithm, steps=1, parallel=parallel, network=(8,), options=options)  # type: ignore[arg-type]
    return make_agent(config, environment(kind, pay), reward, 0)


def test_the_model_of_these_tests_is_linear() -> None:
    found = linear(1.0, -2.0, 0.5).reward(torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, -4.0]]))
    assert found.tolist() == pytest.approx([1 - 4 + 1.5, -1 - 2])


@pytest.mark.parametrize("kind", ["box", "discrete"])
def test_a_step_is_paid_for_the_state_before_it_and_its_action(kind: str) -> None:
    # r = 10·(step of the episode) + features of the action, weighed 1, 2, 3.
    model = linear(10.0, 0.0, 1.0, 2.0) if kind == "box" else linear(10.0, 0.0, 1.0, 2.0, 3.0)
    made = [Counter(kind, pay=1e6) for _ in range(2)]
    rewarded = PredictedReward(DummyVecEnv([lambda e=e: Recorder(e, int) for e in made]), model)  # type: ignore[misc]
    rewarded.reset()
    total = 0.0
    for t in range(2 * LENGTH + 2):  # two ends of episodes: the first step of the next is paid for its own reset
        if kind == "box":
            actions = np.array([[0.1 * t, 0.2], [-0.5, 0.3]], dtype=np.float32)
            expected = 10 * (t % LENGTH) + actions @ np.array([1.0, 2.0])
        else:
            actions = np.array([t % 3, 2])
            expected = 10 * (t % LENGTH) + actions + 1.0  # choice 0 has weight 1
        _, rewards, ended, infos = rewarded.step(actions)
        assert rewards == pytest.approx(expected, rel=1e-4, abs=1e-4)
        assert ended.all() == (t % LENGTH == LENGTH - 1)
        assert all("episode" not in info for info in infos)
        total += rewards.sum()
    assert rewarded.take_mean() == pytest.approx(total / (2 * (2 * LENGTH + 2)), rel=1e-4)
    assert rewarded.take_mean() == 0.0


class Seen(BaseCallback):
    """Keeps what PPO has stored of each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.rollouts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        b = self.locals["rollout_buffer"]
        self.rollouts.append((b.observations.copy(), b.actions.copy(), b.rewards.copy()))


def test_ppo_learns_from_the_reward_of_clipped_actions() -> None:
    model = linear(10.0, 0.0, 1.0, 2.0)
    agent = agent_of("ppo", model, pay=1e6, parallel=2, n_steps=16, batch_size=16, n_epochs=1)
    seen = Seen()
    agent.model.learn(32, callback=seen)
    ((observations, actions, rewards),) = seen.rollouts
    clipped = np.clip(actions, LOW, HIGH)
    assert (clipped != actions).any()
    expected = 10 * observations[..., 0] + clipped @ np.array([1.0, 2.0])
    assert rewards == pytest.approx(expected, rel=1e-4, abs=1e-3)
    assert set(observations[..., 0].ravel()) == set(range(LENGTH))


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_true_reward_changes_nothing_that_is_learned(algorithm: str) -> None:
    options: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2}
    if algorithm == "sac":
        options = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100}
    weights, paid, returns = [], [], []
    for pay in (0.0, 1e6):
        agent = agent_of(algorithm, linear(1.0, 0.0, 1.0, -1.0), pay=pay, **options)
        before = {k: v.clone() for k, v in agent.model.policy.state_dict().items()}
        episodes, figures = learn(agent, 32, 0, 1)
        after = agent.model.policy.state_dict()
        assert any(not torch.equal(before[k], after[k]) for k in before)
        weights.append(after)
        paid.append(figures["predicted_reward"])
        returns.append(sum(episodes[0].rewards))
        assert not agent.model.ep_info_buffer
    assert all(torch.equal(weights[0][k], weights[1][k]) for k in weights[0])
    assert paid[0] == paid[1]
    assert returns == [0.0, LENGTH * 1e6]  # though it was written down


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_the_learning_rate_falls_to_nothing_at_the_end_of_the_run(algorithm: str) -> None:
    options: dict[str, Any] = {"n_steps": 16, "batch_size": 16, "n_epochs": 2}
    if algorithm == "sac":
        options = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100}
    agent = agent_of(algorithm, linear(1.0, 0.0, 1.0, -1.0), learning_rate=0.01, **options)
    policy: Any = agent.model.policy
    optimizer = policy.optimizer if algorithm == "ppo" else policy.actor.optimizer
    rates = []
    for iteration in (1, 2, 3):
        learn(agent, 32, 0, iteration, run_steps=96)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.01 * 2 / 3, 0.01 / 3, 0.0], abs=1e-9)


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize(("size", "steps"), [(64, 24), (24, 24), (24, 60)], ids=["not full", "just full", "wrapped"])
def test_a_replay_buffer_is_rewarded_anew(parallel: int, size: int, steps: int) -> None:
    old, new = linear(0.0, 0.0, 0.0, 0.0), linear(10.0, 0.5, 1.0, -2.0)
    agent = agent_of("sac", old, pay=1e6, parallel=parallel, buffer_size=size, learning_starts=10_000)
    episodes, _ = learn(agent, steps, 0, 1)
    buffer: Any = agent.model.replay_buffer
    rows, each = size // parallel, steps // parallel
    assert (buffer.full, buffer.pos) == (each >= rows, each % rows)
    assert not buffer.rewards.any()

    install(agent, new)
    assert agent.rewarded.model is new
    # Every step as its environment saw it, in order; step n of an environment lies in row n mod rows.
    for number in range(parallel):
        own = {_episode_seed(number, n) for n in range(agent.recorders[number].begun)}
        mine = [e for e in episodes if e.seed in own]
        mine.sort(key=lambda e, n=number: [_episode_seed(n, i) for i in range(100)].index(e.seed))
        observations = np.array([o for e in mine for o in e.observations])
        actions = np.array([a for e in mine for a in e.actions])
        assert len(actions) == each
        assert (actions > 1).any()  # not what the buffer keeps
        expected = predict(new, observations, actions)
        for step in range(max(0, each - rows), each):
            assert buffer.rewards[step % rows, number] == pytest.approx(expected[step], rel=1e-4, abs=1e-4)
    assert not buffer.rewards[each:].any()  # what was never filled


def _episode_seed(number: int, count: int) -> int:
    from rlhf.random_streams import stream_seed

    return stream_seed(0, "train", number, count) % 2**31


def test_a_long_buffer_is_rewarded_in_pieces_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear(10.0, 0.5, 1.0, -2.0)
    agent = agent_of("sac", linear(0.0, 0.0, 0.0, 0.0), buffer_size=64, learning_starts=10_000)
    learn(agent, 20, 0, 1)
    buffer: Any = agent.model.replay_buffer
    install(agent, model)
    whole = buffer.rewards.copy()
    buffer.rewards[:] = 0
    monkeypatch.setattr("rlhf.control.predicted_reward.CHUNK", 7)
    install(agent, model)
    assert buffer.rewards == pytest.approx(whole, rel=1e-5)
    assert whole[:20].any()


def test_the_true_reward_is_written_down_and_goes_no_further() -> None:
    recorder = Recorder(Counter(pay=7.0), int)
    recorder.reset()
    assert [recorder.step(np.zeros(2, dtype=np.float32))[1] for _ in range(3)] == [0.0, 0.0, 0.0]
    assert recorder.episode.rewards == [7.0, 7.0, 7.0]


class Reused(Counter):
    """Hands out the same array each time, as some environments do."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.state, info = super().reset(seed=seed)
        return self.state, info

    def step(self, action: Any) -> Any:
        self.state[:], *rest = super().step(action)
        return self.state, *rest


def test_what_was_observed_stays_when_the_environment_reuses_its_array() -> None:
    recorder = Recorder(Reused(), int)
    recorder.reset()
    for _ in range(3):
        recorder.step(np.zeros(2))
    assert [o[0] for o in recorder.episode.observations] == [0, 1, 2]
