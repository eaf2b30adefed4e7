"""What cannot work is said in one line, before any training: environments, options, run files of agents."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from control_world import ControlWorld, Here, run_agent
from gymnasium import spaces

from labeling.records import Candidate, Message, Prompt, Slate, UserError
from labeling.segments import Segment
from rlhf.control.agent import learn, make_agent
from rlhf.control.control_config import ControlConfig, EnvironmentConfig, parse_control, spec
from rlhf.control.control_subject import make_control_subject
from rlhf.control.descriptions import describe
from rlhf.control.environments import PROBE_STEPS, check, make
from rlhf.control.segment_model import SegmentModel
from rlhf.online_loop import phase

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


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    Strange.observed = 0
    gym.register("Strange-v0", Strange, disable_env_checker=True)
    yield
    del gym.registry["Strange-v0"]


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_strange_environment_works_when_nothing_is_asked_of_it(tmp_path: Path) -> None:
    world = ControlWorld(0)
    run_agent(run_file(), tmp_path, world)
    assert len(world.of_kind("iteration")) == 2


# Environments


@pytest.mark.parametrize("id", ["HalfCheetah-v5", "HalfCheetah"])
def test_a_model_that_mujoco_warns_about_leaves_no_log_file_and_one_line(
    id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rlhf.control.environments._TOLD", set())
    for _ in range(2):
        make(spec(EnvironmentConfig(id))).close()
    assert not list(tmp_path.iterdir())
    told = capfd.readouterr()
    assert (told.out, told.err.count("settotalmass")) == ("", 1)


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"id": "Pendulumm-v1"}, ["environment.id = 'Pendulumm-v1'", "Pendulum"]),
        ({"id": "Nowhere-v3"}, ["environment.id = 'Nowhere-v3'"]),
        ({"id": "no_such_module:Thing-v0"}, ["environment.id = 'no_such_module:Thing-v0'", "no_such_module"]),
        ({"id": "Pendulum-v7"}, ["environment.id = 'Pendulum-v7'", "v1"]),
        ({"id": "Pendulum-v0"}, ["environment.id = 'Pendulum-v0'"]),
        ({"id": "Pendulum-v1", "options": {"gee": 1}}, ["environment.options = {'gee': 1}", "gee"]),
        ({"options": {"seen": "no such thing"}}, ["environment.id = 'Strange-v0'", "no such thing"]),
        ({"options": {"fails": True}}, ["environment.id = 'Strange-v0'", "RuntimeError: no such place"]),
        ({"options": {"seen": "dict"}}, ["observes a Dict", 'environment.encoder = "flatten"']),
        ({"options": {"seen": "choice"}}, ["observes a Discrete", 'environment.encoder = "flatten"']),
        ({"options": {"seen": "matrix"}}, ["observes a Box", 'environment.encoder = "flatten"']),
        ({"options": {"seen": "picture"}}, ["picture (30, 40, 3)", 'environment.encoder = "pixels"']),
        ({"options": {"seen": "sequence"}, "encoder": "flatten"}, ["Sequence", "cannot be flattened"]),
        ({"encoder": "pixels"}, ["no uint8 picture", "but a Box of shape (2,)", '"none" or "flatten"']),
        ({"options": {"acts": "dict"}}, ["actions of Dict", "Box", "Discrete"]),
        ({"options": {"acts": "choices"}}, ["actions of MultiDiscrete", "Discrete"]),
        ({"options": {"acts": "matrix"}}, ["actions of Box", "vector"]),
        ({"options": {"seen": "colours first"}, "encoder": "pixels"}, ["no uint8 picture", "(3, 30, 40)", '"flatten"']),
        ({"options": {"seen": "colours first"}}, ["Box of shape (3, 30, 40)", 'environment.encoder = "flatten"']),
        ({"options": {"seen": "nothing"}}, ["environment.id = 'Strange-v0' observes nothing"]),
        ({"options": {"seen": "nothing"}, "encoder": "flatten"}, ["environment.id = 'Strange-v0' observes nothing"]),
        ({"options": {"acts": "whole numbers"}}, ["actions of Box(0, 9, (2,), int64)", "real numbers"]),
        ({"options": {"acts": "no bound"}}, ["actions of Box(-1.0, inf", "finite bounds"]),
        ({"options": {"acts": "no room"}}, ["actions of Box(0.0, 0.0", "below the upper"]),
        ({"options": {"acts": "no numbers"}}, ["(0,), float32)", "real numbers"]),
        ({"max_steps": 4}, ["segments.length = 5", "4 steps of an episode of Strange-v0", "environment.max_steps"]),
        ({"options": {"breaks": 1, "value": "lost\nit"}}, ["Strange-v0 failed (RuntimeError: lost it)"]),
        ({"options": {"breaks": 9, "value": "lost\nit"}}, ["Strange-v0 failed (RuntimeError: lost it)"]),
        ({"options": {"breaks": 9, "value": [1, 2, 3]}}, ["Strange-v0 observed", "(3,)", "(2,)"]),
        ({"options": {"pay": None}}, ["Strange-v0", "not finite"]),
        ({"options": {"pay": [1, 2]}}, ["Strange-v0 failed", "ValueError"]),
        ({"max_steps": None}, ["environment.id = 'Strange-v0'", "no time limit", "environment.max_steps"]),
        ({"options": {"breaks": 1}}, ["Strange-v0", "NaN"]),
        ({"options": {"breaks": 7}}, ["Strange-v0", "NaN"]),
        ({"options": {"breaks": 1, "value": float("inf")}}, ["Strange-v0", "infinity"]),
        ({"options": {"pay": float("nan")}}, ["Strange-v0", "NaN"]),
    ],
    ids=lambda x: json.dumps(x)[:60] if isinstance(x, dict) else "",
)
def test_an_environment_that_cannot_work(environment: dict[str, Any], words: list[str]) -> None:
    message = refused(run_file(environment=environment))
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("seen", "encoder", "size"),
    [
        ("dict", "flatten", 2 + 3),
        ("choice", "flatten", 5),
        ("matrix", "flatten", 6),
        ("picture", "pixels", 15 * 20),  # blocks of 2 × 2
    ],
)
def test_with_its_encoder_it_works(seen: str, encoder: str, size: int) -> None:
    environment = spec(EnvironmentConfig("Strange-v0", {"seen": seen}, encoder, 20))  # type: ignore[arg-type]
    check(environment)
    env = make(environment)
    assert env.observation_space.shape == (size,)
    assert np.asarray(env.reset(seed=0)[0]).shape == (size,)


def test_episodes_that_are_cut_short_by_the_environment_itself_have_no_room_for_a_clip(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_agent(run_file(environment={"options": {"cut": 4}}), tmp_path, ControlWorld(0))
    message = one_line(caught)
    assert "no two clips of segments.length = 5 steps" in message
    assert "episodes of at most 4 steps" in message


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_who_answers_half_of_what_is_asked_answers_held_out_slates_too(seed: int) -> None:
    config = run_file(seed=seed, labels={"slates": 24, "heldout_share": 0.5, "humans": True})
    subject = make_control_subject(config, ControlWorld(0), Here())
    subject.sample(1, 12, 12, partial(phase, ControlWorld(0).surroundings(), 1))
    splits = [slate.prompt.split for slate in subject.slates(1, 12, 12, "")]
    subject.close()
    assert splits.count("heldout") == splits.count("train") == 12
    for half in (splits[:12], splits[12:]):
        assert half.count("heldout") >= 2  # of 12 drawn from 24, fewer have a chance of one in a thousand


def test_a_wide_observation_is_described_at_once() -> None:
    env = make(spec(EnvironmentConfig("Strange-v0", {"seen": "wide"}, max_steps=20)))
    actions, steps = np.zeros(5, int), np.zeros((5, 30_002), np.float32)
    steps[:, -2] = 1  # the choice, as one-hot
    segment = Segment(spec(EnvironmentConfig("Strange-v0")), 0, 0, actions, steps, 0.0)
    assert env.observation_space.shape == (30_000,)
    began = time.monotonic()
    assert re.search(r"… and \d{5} more\.$", describe(segment, None))
    assert time.monotonic() - began < 2  # a look at every line for every line took minutes


def test_what_people_cannot_see_is_refused_when_it_is_to_be_drawn() -> None:
    with pytest.raises(UserError) as caught:
        make(spec(EnvironmentConfig("Strange-v0", max_steps=20)), render=True)
    assert "no rgb_array mode" in one_line(caught)
    assert "people" in str(caught.value)


def test_choices_that_are_not_counted_from_0_are_made_and_told_as_any_others(tmp_path: Path) -> None:
    world = ControlWorld(0)
    run_agent(run_file(environment={"options": {"acts": "from 5"}}), tmp_path, world)
    for segment in world.kept.values():
        done = segment.actions[segment.start :]
        assert set(done.tolist()) <= {0, 1}
        assert segment.steps[:, 2:].argmax(1).tolist() == done.tolist()  # one-hot, beside two numbers observed


@pytest.mark.parametrize(
    ("after", "value"), [(100, float("nan")), (200, float("inf")), (300, float("nan")), (300, "!")]
)
def test_what_breaks_in_the_middle_of_a_run_ends_it_with_one_line(after: int, value: Any, tmp_path: Path) -> None:
    world = ControlWorld(0)
    with pytest.raises(UserError) as caught:
        run_agent(run_file(environment={"options": {"breaks": after, "value": value}}), tmp_path, world)
    message = one_line(caught)
    assert (
        "Strange-v0 " + ("failed (RuntimeError: !)" if value == "!" else "gave a value that is not finite") in message
    )
    assert all(np.isfinite(s.steps).all() for s in world.kept.values())


@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_nan_in_the_middle_of_training_ends_it_with_one_line(algorithm: str) -> None:
    options = {"n_steps": 32, "batch_size": 32} if algorithm == "ppo" else {"learning_starts": 10, "buffer_size": 100}
    config = run_file(agent={"algorithm": algorithm, "steps": 64, "parallel": 1, "network": [4], "options": options})
    environment = spec(EnvironmentConfig("Strange-v0", {"acts": "vector", "breaks": PROBE_STEPS}, max_steps=20))
    agent = make_agent(config.agent, environment, SegmentModel(4), 0)
    with pytest.raises(UserError) as caught:
        learn(agent, 64, 0, 1)
    assert "not finite" in one_line(caught)
    assert 0 < agent.model.num_timesteps < PROBE_STEPS


# Agents


@pytest.mark.usefixtures("_no_training")
@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ({"algorithm": "sac"}, ['agent.algorithm = "sac"', "Discrete(2)", '"ppo"']),
        ({"options": {"n_stepz": 8}}, ["agent.options has no key 'n_stepz'", "'ppo'", "n_steps, "]),
        ({"algorithm": "sac", "options": {"clip_range": 0.1}}, ["no key 'clip_range'", "'sac'", "learning_starts"]),
        ({"options": {"seed": 8}}, ["no key 'seed'"]),  # what is ours to give
        ({"options": {"policy_kwargs": {}}}, ["no key 'policy_kwargs'"]),
        ({"options": {"gamma": "high"}}, ["agent.options.gamma = 'high'", "0.99"]),
        ({"options": {"n_epochs": 2.5}}, ["agent.options.n_epochs = 2.5", "10"]),
        ({"options": {"use_sde": 1}}, ["agent.options.use_sde = 1", "False"]),
        ({"options": {"learning_rate": [1]}}, ["agent.options.learning_rate = [1]", "0.0003"]),
        ({"options": {"gamma": 5.0}}, ["agent.options.gamma = 5.0", "from 0 to 1"]),
        ({"options": {"gae_lambda": float("nan")}}, ["agent.options.gae_lambda = nan", "from 0 to 1"]),
        ({"algorithm": "sac", "options": {"tau": -0.1}}, ["agent.options.tau = -0.1", "from 0 to 1"]),
        ({"options": {"n_epochs": 0}}, ["agent.options.n_epochs = 0", "at least 1"]),
        ({"options": {"target_kl": "x"}}, ["agent.options.target_kl = 'x'", "above 0"]),
        ({"options": {"clip_range": -0.2}}, ["agent.options.clip_range = -0.2", "above 0"]),
        ({"options": {"learning_rate": float("inf")}}, ["agent.options.learning_rate = inf", "above 0"]),
        ({"options": {"learning_rate": 10**400}}, [f"agent.options.learning_rate = 1{'0' * 78}… does", "above 0"]),
        ({"algorithm": "sac", "options": {"ent_coef": "high"}}, ["agent.options", "high"]),
        ({"options": {"n_epochs": 1, "batch_size": 1}}, ["agent.options"]),
    ],
)
def test_options_that_the_algorithm_does_not_have(agent: dict[str, Any], words: list[str]) -> None:
    acts = "choice" if agent == {"algorithm": "sac"} else "vector"
    message = refused(run_file(environment={"options": {"acts": acts}}, agent={"parallel": 1, "steps": 2048, **agent}))
    for word in words:
        assert word in message


def test_training_that_blows_up_ends_with_one_line() -> None:
    config = run_file(
        environment={"options": {"acts": "vector"}},
        agent={
            "steps": 64,
            "parallel": 1,
            "network": [4],
            "options": {"n_steps": 32, "batch_size": 32, "learning_rate": 1e30},
        },
    )
    agent = make_agent(config.agent, spec(config.environment), SegmentModel(4), 0)
    with pytest.raises(UserError) as caught:
        learn(agent, 64, 0, 1)
    assert "the agent's training failed in iteration 1 (" in one_line(caught)


def test_ppo_learns_from_whole_rollouts() -> None:
    message = mistake({"agent": {"steps": 1000, "parallel": 4, "options": {"n_steps": 64}}})
    assert "agent.steps = 1000" in message
    assert "n_steps × agent.parallel = 256" in message
    assert "2048" in mistake({"agent": {"steps": 1000, "parallel": 1}})  # the default of n_steps
    assert "192" in mistake(
        {"agent": {"steps": 192, "parallel": 4, "options": {"n_steps": 64}}}
    )  # whole for one of four
    run_file(agent={"steps": 1024, "parallel": 4, "options": {"n_steps": 64}})
    run_file(agent={"algorithm": "sac", "steps": 1000, "parallel": 3})


def test_segments_that_came_from_another_environment_are_named() -> None:
    world = ControlWorld(0)
    subject = make_control_subject(run_file(), world, Here())
    actions, steps = np.zeros((5, 2), np.float32), np.zeros((5, 9), np.float32)
    foreign = [Segment("elsewhere", seed, 0, actions, steps, float(seed)) for seed in (1, 2)]
    world.add_segments(foreign)
    slate = Slate(Prompt((Message("user", "Which?"),)), tuple(Candidate(s.id, clip=s.id) for s in foreign))
    with pytest.raises(UserError) as error:
        subject.measure(world.ask(1, [slate]))
    assert f"the segment {foreign[0].id} of slate {slate.id} has 9 numbers a step" in one_line(error)
    subject.close()


# Run files


def test_an_oracle_needs_the_true_reward() -> None:
    message = mistake({"evaluation": {"gold": "none"}})
    assert "[labels.oracle]" in message
    assert 'evaluation.gold = "return"' in message
    run_file(evaluation={"gold": "none"}, labels={"humans": True})


@pytest.mark.parametrize(
    ("data", "key", "known"),
    [
        ({"iteration": 3}, "'iteration'", "iterations"),
        ({"model": {}}, "'model'", "reward_model"),  # a language model's
        ({"environment": {"id": "A-v0", "steps": 3}}, "'environment.steps'", "max_steps"),
        ({"segments": {"size": 3}}, "'segments.size'", "length"),
        ({"labels": {"slate": 1}}, "'labels.slate'", "heldout_share"),
        ({"labels": {"oracle": {"noise": 1}}}, "'labels.oracle.noise'", "flip_rate"),
        ({"reward_model": {"ensemble": 1}}, "'reward_model.ensemble'", "members"),
        ({"reward_model": {"replay": 1}}, "'reward_model.replay'", "updates"),
        ({"agent": {"lr": 1}}, "'agent.lr'", "normalise"),
        ({"evaluation": {"prompts": 1}}, "'evaluation.prompts'", "clip_seconds"),
    ],
)
def test_an_unknown_key_is_named_beside_those_that_are_known_there(data: dict[str, Any], key: str, known: str) -> None:
    message = mistake(data)
    assert f"unknown key {key}" in message
    assert known in message.split("known here: ")[1].split(", ")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"labels": {"total": 11, "humans": True}}, ["labels.total = 11", "12"]),
        ({"labels": {"total": 20, "first_slates": 30, "humans": True}}, ["labels.total = 20", "30"]),
        ({"labels": {"total": 0}}, ["labels.total = 0"]),
        ({"labels": {"humans": False}}, ["nobody labels"]),
        ({"labels": {"selector": "large_gap"}}, ["labels.selector = 'large_gap'", "disagreement"]),
        ({"labels": {"candidates": [7]}}, ["labels.candidates", "6"]),
        ({"segments": {"length": 1}}, ["segments.length = 1"]),
        ({"agent": {"algorithm": "dqn"}}, ["agent.algorithm = 'dqn'", "'ppo'", "'sac'"]),
        ({"reward_model": {"aggregation": "mean"}}, ["reward_model.aggregation = 'mean'", "weighted_sum"]),
        ({"environment": {"id": "A-v0", "encoder": "cnn"}}, ["environment.encoder = 'cnn'", "flatten"]),
        ({"evaluation": {"gold": "concise"}}, ["evaluation.gold = 'concise'", "return"]),
        ({"question": ""}, ["question = ''"]),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_is_allowed(data: dict[str, Any], words: list[str]) -> None:
    message = mistake(data)
    for word in words:
        assert word in message
