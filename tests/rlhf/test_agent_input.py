"""What cannot work is said in one line, before any training: environments of agents."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from control_world import ControlWorld, Here, run_agent
from strange_environment import (
    forbid_training,
    one_line,
    refused,
    registered,
    run_file,
)

from labeling.records import UserError
from labeling.segments import Segment
from rlhf.control.agent import learn, make_agent
from rlhf.control.control_config import EnvironmentConfig, spec
from rlhf.control.control_subject import make_control_subject
from rlhf.control.descriptions import describe
from rlhf.control.environments import PROBE_STEPS, check, make
from rlhf.control.segment_model import SegmentModel
from rlhf.online_loop import phase


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


@pytest.fixture
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_training(monkeypatch)


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
