"""What cannot work is said in one line, before any training: options and run files of agents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from control_world import ControlWorld, Here
from strange_environment import (
    forbid_training,
    mistake,
    one_line,
    refused,
    registered,
    run_file,
)

from labeling.records import Candidate, Message, Prompt, Slate, UserError
from labeling.segments import Segment
from rlhf.control.agent import learn, make_agent
from rlhf.control.control_config import spec
from rlhf.control.control_subject import make_control_subject
from rlhf.control.segment_model import SegmentModel


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_training(monkeypatch)


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
