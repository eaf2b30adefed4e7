"""The run file of an agent: the sections that only agents have; the rest is the run file of any loop."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from labeling.records import UserError
from rlhf.run_config import LabelConfig, Positive, Rate, RunName, Seed, check_labels, validate

STRICT = ConfigDict(extra="forbid", strict=False)
Aggregation = Literal["sum", "weighted_sum", "last", "transformer"]  # see `rlhf.control.segment_model`


@dataclass(frozen=True, config=STRICT)
class EnvironmentConfig:
    """A Gymnasium environment. options: keyword arguments of `gymnasium.make`. max_steps: length of an episode.

    encoder: what becomes of an observation that is no vector. "flatten" makes numbers, dicts, tuples and arrays into
    one vector (choices become one-hot); "pixels" makes a picture into at most 24 × 24 shades of grey.
    """

    id: str
    options: dict[str, Any] = Field(default_factory=dict)
    encoder: Literal["none", "flatten", "pixels"] = "none"
    max_steps: Positive | None = None


def spec(config: EnvironmentConfig) -> str:
    """The environment as one line of JSON, by which segments remember what to make again."""
    values = {"id": config.id, "options": config.options, "encoder": config.encoder, "max_steps": config.max_steps}
    return json.dumps(values, sort_keys=True)


@dataclass(frozen=True, config=STRICT)
class SegmentConfig:
    """What is compared: pieces of `length` steps; for each slate asked about, `pool` possible ones are looked at."""

    length: Annotated[int, Field(ge=2)] = 25
    pool: Positive = 10


@dataclass(frozen=True, config=STRICT)
class ClipLabelConfig(LabelConfig):
    """As for any loop, with other defaults. selector: "disagreement" asks where the ensemble disagrees most."""

    candidates: Annotated[tuple[Annotated[int, Field(ge=2, le=6)], ...], Field(min_length=1)] = (2,)
    heldout_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    selector: Literal["random", "disagreement"] = "disagreement"  # type: ignore[assignment]


@dataclass(frozen=True, config=STRICT)
class SegmentRewardConfig:
    """The reward model: an ensemble of `members` networks of two layers of `hidden` units on (s, a) and its squares.

    aggregation: how a segment's steps make its score. label_noise: ε of every annotator that says none itself: P' =
    (1−ε)P + ε/2. updates: steps of Adam in each refit, on `slates_per_step` slates; the first takes `first_updates`.
    refit: "every" iteration that brings new labels, or only the "first", and nothing is asked after it.
    """

    members: Positive = 3
    hidden: Positive = 64
    aggregation: Aggregation = "sum"
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.1
    updates: Positive = 100
    first_updates: Positive = 300
    slates_per_step: Positive = 64
    learning_rate: Rate = 1e-3
    refit: Literal["every", "first"] = "every"
    replay = math.inf  # no field: a refit always sees every label


@dataclass(frozen=True, config=STRICT)
class AgentConfig:
    """The policy: a stable-baselines3 algorithm with its own `options`, `steps` environment steps in each iteration.

    parallel: environments side by side. network: units of the hidden layers. normalise: observations and rewards are
    put into running units. anneal: the learning rate falls in proportion to the steps that are left of the run (PPO,
    arXiv 1707.06347), so that the last reward model does not turn a policy that is good already.
    """

    algorithm: Literal["ppo", "sac"] = "ppo"
    steps: Positive = 4096
    parallel: Positive = 4
    network: tuple[Positive, ...] = (64, 64)
    normalise: bool = False
    anneal: bool = False
    options: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class AgentEvaluationConfig:
    """Evaluation: whole episodes without exploration, from the same seeds each time.

    gold: "return", the sum of the environment's own reward, or "none" where that is not what is wanted. clip_seconds:
    length of the clip of the policy that is shown after each iteration.
    """

    episodes: Positive = 5
    gold: Literal["return", "none"] = "return"
    clip_seconds: Rate = 5.0


@dataclass(frozen=True, config=STRICT)
class ControlConfig:
    """One online loop of an agent. question: what people and judges are asked. guide: what to look for."""

    question: Annotated[str, Field(min_length=1, max_length=500)]
    environment: EnvironmentConfig
    name: RunName = "run"
    seed: Seed = 0
    iterations: Positive = 30
    keep_checkpoints: Positive = 1
    guide: Annotated[str, Field(max_length=2000)] = ""
    segments: SegmentConfig = SegmentConfig()
    labels: ClipLabelConfig = ClipLabelConfig()
    reward_model: SegmentRewardConfig = SegmentRewardConfig()
    agent: AgentConfig = AgentConfig()
    evaluation: AgentEvaluationConfig = AgentEvaluationConfig()
    needs_labels = True  # no field: an agent sees no other reward

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as plain data."""
        return dataclasses.asdict(self)


def parse_control(data: dict[str, Any], source: str = "the run") -> ControlConfig:
    """Check plain data into a ControlConfig. Raises UserError, one line for the first mistake."""
    config = validate(ControlConfig, data, source)
    config = dataclasses.replace(config, guide=" ".join(config.guide.split()))  # a file's line breaks mean nothing
    check_labels(config.labels, source)
    agent = config.agent
    if agent.algorithm == "ppo":
        rollout = agent.options.get("n_steps", 2048)
        if isinstance(rollout, int) and rollout > 0 and agent.steps % (rollout * agent.parallel):
            raise UserError(
                f"{source}: agent.steps = {agent.steps} is no multiple of agent.options.n_steps × agent.parallel = "
                f"{rollout * agent.parallel}: PPO learns from whole rollouts, so change one of them"
            )
    if config.evaluation.gold == "none" and config.labels.oracle is not None:
        raise UserError(f'{source}: [labels.oracle] answers from the true reward: set evaluation.gold = "return"')
    return config
