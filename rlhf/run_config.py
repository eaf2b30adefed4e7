"""The run file: one TOML with nested sections, checked into frozen values before anything is loaded."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from labeling.records import MAX_CANDIDATES, UserError
from labeling.toml_values import NumberTooLong, echoed, parsed_toml
from rlhf.recipe_options import make_recipe
from rlhf.recipes import Recipe, stage_function
from rlhf.rewards import majority_vote

STRICT = ConfigDict(extra="forbid", strict=False)
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Config = TypeVar("Config")
# What pydantic calls by its Python name.
PLAIN_WORDS = {
    "tuple_type": 'it must be a list, such as [2, 4] or ["criteria"]',
    "dataclass_type": "it must be a section of its own",
    "dict_type": "it must be a section of its own",
}


@dataclass(frozen=True, config=STRICT)
class ModelConfig:
    """The language model. adaptation: "lora" trains adapters, "full" all weights."""

    name: str = "smollm2-135m-instruct"
    adaptation: Literal["lora", "full"] = "lora"
    lora_rank: Positive = 16


@dataclass(frozen=True, config=STRICT)
class SamplingConfig:
    """Each iteration's samples: prompts × responses, at most max_new_tokens tokens each.

    temperature: of the first iteration, and of every evaluation. With `entropy_target` (nats per token) or
    `distinct_target` (share of different bigrams) it follows what is measured, within `temperature_range`.
    old_logp: log-probabilities of the sampling policy are those noted while sampling, or "recomputed" by a forward.
    """

    prompts: Positive = 12
    responses: Annotated[int, Field(ge=2)] = 4
    max_new_tokens: Positive = 48
    temperature: Rate = 1.0
    entropy_target: Rate | None = None
    distinct_target: Annotated[float, Field(gt=0, le=1)] | None = None
    temperature_range: tuple[Rate, Rate] = (0.7, 1.3)
    old_logp: Literal["sampled", "recomputed"] = "sampled"


@dataclass(frozen=True, config=STRICT)
class OracleConfig:
    """A simulated annotator: P(i ≻ j) = σ((gold_i − gold_j)/temperature), errors uniform at rate flip_rate.

    random_labels: answer by coin toss; the control that must not learn.
    """

    temperature: Rate = 0.1
    flip_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    random_labels: bool = False


@dataclass(frozen=True, config=STRICT)
class LabelConfig:
    """What is asked in each iteration, and who answers.

    slates: how many are asked about in each iteration (in the first, `first_slates` if given). anneal: requests fall
    over the iterations, as anneal/(anneal + iteration). total: how many in the whole run; then `slates` counts for
    nothing after the first iteration, and the rest is spread over the others. candidates: their
    sizes, taken in turn: [2, 4] makes pairs and rankings of four. heldout_share: the share of slates whose
    prompts are held out; they measure the reward model and never train it. selector: "large_gap" prefers
    candidates whose predicted scores lie far apart, with `random_share` of the slates drawn at random all the same.
    humans: people are a source; what they answer in the browser enters the next fit either way. wait_for_humans:
    labels by people to wait for in each iteration (in the first, `first_wait_for_humans` if given).
    judges: names of shipped judges or paths of judge files. audit: the share of what a judge ranked that people are to
    answer too, drawn at random; route: so many of its most doubtful slates. oracle: a simulated annotator on the gold
    score.
    """

    slates: Positive = 12
    first_slates: Positive | None = None
    total: Positive | None = None
    anneal: Rate | None = None
    candidates: Annotated[tuple[Annotated[int, Field(ge=2, le=MAX_CANDIDATES)], ...], Field(min_length=1)] = (4,)
    heldout_share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    selector: Literal["random", "large_gap"] = "random"
    random_share: Share = 0.2
    humans: bool = True
    wait_for_humans: Annotated[int, Field(ge=0)] = 0
    first_wait_for_humans: Annotated[int, Field(ge=0)] | None = None
    judges: tuple[str, ...] = ()
    audit: Annotated[float, Field(ge=0, le=1)] = 0.0
    route: Annotated[int, Field(ge=0)] = 0
    oracle: OracleConfig | None = None

    def asked(self, iteration: int, iterations: int) -> int:
        """How many slates are asked about in an iteration (from 1) of a run of so many."""
        first = self.first_slates or self.slates
        if iteration == 1:
            return self.total if self.total and iterations == 1 else first
        shares = [self.anneal / (self.anneal + i) if self.anneal else 1.0 for i in range(2, iterations + 1)]
        unit = self.slates if self.total is None else (self.total - first) / sum(shares)
        # Rounded sums, so that fractions of a slate are not lost on the way.
        before, after = (round(sum(shares[:n]) * unit) for n in (iteration - 2, iteration - 1))
        return after - before


@dataclass(frozen=True, config=STRICT)
class RewardModelConfig:
    """The reward model and its refits. refit: "every" iteration, or only "first" and frozen from then on.

    adaptation: "head" solves the head alone over frozen hidden states, with `ridge` as its penalty: for few labels;
    "lora" and "full" also train the backbone, by gradient steps. replay: slates fitted earlier that each new one is
    mixed with.
    """

    adaptation: Literal["head", "lora", "full"] = "head"
    refit: Literal["every", "first"] = "every"
    replay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 100.0
    ridge: Rate = 20.0
    epochs: Positive = 2
    learning_rate: Rate = 2e-4
    head_learning_rate: Rate = 2e-3
    slates_per_step: Positive = 4
    centring: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.001


@dataclass(frozen=True, config=STRICT)
class EvaluationConfig:
    """Held-out evaluation: so many held-out prompts, one response each, scored by the rubric `gold`."""

    prompts: Positive = 24
    gold: str = "concise"


@dataclass(frozen=True, config=STRICT)
class RewardConfig:
    """What the policy is rewarded by. source: the reward "model" that is fitted to labels, or the rubric `rule`."""

    source: Literal["model", "rule"] = "model"
    rule: str | None = None


@dataclass(frozen=True, config=STRICT)
class RunConfig:
    """One online loop. recipe: `name` and what it changes. token_budget: padded tokens in one forward.

    pretraining_texts: a file of texts for recipes that have a pretraining term, or the name of a shipped one.
    """

    name: RunName = "run"
    seed: Seed = 0
    iterations: Positive = 6
    token_budget: Positive = 2048
    keep_checkpoints: Positive = 1
    model: ModelConfig = ModelConfig()
    sampling: SamplingConfig = SamplingConfig()
    labels: LabelConfig = LabelConfig()
    reward_model: RewardModelConfig = RewardModelConfig()
    reward: RewardConfig = RewardConfig()
    recipe: dict[str, Any] | str = Field(default_factory=lambda: {"name": "grpo"})
    pretraining_texts: str = "plain"
    evaluation: EvaluationConfig = EvaluationConfig()

    def make_recipe(self) -> Recipe:
        """The recipe with what the run changes in it."""
        options = {"name": self.recipe} if isinstance(self.recipe, str) else dict(self.recipe)
        return make_recipe(str(options.pop("name", "grpo")), options)

    @property
    def needs_labels(self) -> bool:
        """Whether the policy is rewarded by what labels say."""
        return self.reward.source == "model" and not self.votes

    @property
    def votes(self) -> bool:
        """Whether the policy is rewarded by the majority of its own answers."""
        return stage_function(self.make_recipe().reward) is majority_vote

    def to_dict(self) -> dict[str, Any]:
        """The resolved configuration as plain data."""
        return dataclasses.asdict(self)


def load_run(path: Path, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read and check the run file of a language model; see `read_run_file` and `parse_run`."""
    return parse_run(read_run_file(path, overrides), str(path))


def read_run_file(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a run file and apply overrides of the form `section.key=value` (the value in TOML; bare words are text).

    Raises UserError that names the file, the key, the value and what is allowed.
    """
    try:
        data = parsed_toml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"there is no run file {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the run file {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
    data.setdefault("name", path.stem)
    for override in overrides:
        _override(data, override)
    return data


def parse_run(data: dict[str, Any], source: str = "the run") -> RunConfig:
    """Check plain data into a RunConfig. Raises UserError, one line for the first mistake."""
    config = validate(RunConfig, data, source)
    try:
        config.make_recipe()
    except UserError as error:
        raise UserError(f"{source}: [recipe] {error}") from error
    if max(config.labels.candidates) > config.sampling.responses:
        raise UserError(
            f"{source}: labels.candidates = {list(config.labels.candidates)} asks for more than sampling.responses = "
            f"{config.sampling.responses}: lower the first or raise the second"
        )
    check_labels(config.labels, source, config.needs_labels)
    if (config.reward.source == "rule") != (config.reward.rule is not None):
        raise UserError(f'{source}: reward.source = "rule" and reward.rule go together: name a rubric such as "brief"')
    if config.reward.source == "rule" and config.votes:
        raise UserError(
            f"{source}: reward = 'majority_vote' in [recipe] asks no rule: remove [reward], or choose another"
        )
    low, high = config.sampling.temperature_range
    if not low <= config.sampling.temperature <= high and (
        config.sampling.entropy_target or config.sampling.distinct_target
    ):
        raise UserError(
            f"{source}: sampling.temperature = {config.sampling.temperature} is outside sampling.temperature_range = "
            f"[{low}, {high}]"
        )
    if config.sampling.entropy_target and config.sampling.distinct_target:
        raise UserError(
            f"{source}: sampling.entropy_target and sampling.distinct_target pull at one temperature: drop one"
        )
    return config


def validate(config: type[Config], data: dict[str, Any], source: str) -> Config:
    """Plain data as a config of that type. Raises UserError for the first key that does not fit."""
    try:
        return TypeAdapter(config).validate_python(data)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, config)}") from error


def check_labels(labels: LabelConfig, source: str, needed: bool = True) -> None:
    """What no single key of [labels] shows. needed: whether the run learns from labels. Raises UserError."""
    if needed and not (labels.humans or labels.judges or labels.oracle):
        raise UserError(f"{source}: nobody labels: set labels.humans, labels.judges or [labels.oracle]")
    first = labels.first_slates or labels.slates
    for key, wait, slates in (
        ("wait_for_humans", labels.wait_for_humans, labels.slates),
        ("first_wait_for_humans", labels.first_wait_for_humans or 0, first),
    ):
        if wait and not labels.humans:
            raise UserError(f"{source}: labels.{key} needs labels.humans = true")
        if wait > slates:
            of = "first_slates" if key.startswith("first") and labels.first_slates else "slates"
            cure = "lower the first or raise the second"
            raise UserError(f"{source}: labels.{key} = {wait} is more than labels.{of} = {slates}: {cure}")
    if labels.total is not None and labels.total < first:
        raise UserError(f"{source}: labels.total = {labels.total} is less than the first iteration's {first} slates")


def explain(error: ValidationError, root: Any) -> str:
    """The first mistake of a validation in one line: key, value, what is allowed."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    key = ".".join(place) or "the file"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        section = root
        for part in place[:-1]:
            kind = get_type_hints(section).get(part, root)
            section = next((k for k in (kind, *get_args(kind)) if dataclasses.is_dataclass(k)), root)
        known = ", ".join(f.name for f in dataclasses.fields(section))
        return f"unknown key {key!r}; known here: {known}"
    wrong = PLAIN_WORDS.get(first["type"], first["msg"][0].lower() + first["msg"][1:])
    return f"{key} = {echoed(first['input'])}: {wrong}"


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {echoed(override)}: write section.key=value, such as sampling.temperature=0.8")
    try:
        value = parsed_toml(f"value = {text}")["value"]
    except NumberTooLong as error:
        raise UserError(f"--set {echoed(override)}: {key.strip()}: a whole number has 64 bits at most") from error
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.strip().split(".")
    if sections == ["recipe"] and isinstance(data.get("recipe"), str):  # the short form
        data["recipe"] = {"name": data["recipe"]}
    place = data
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"--set {echoed(override)}: {section!r} is not a section")
    place[last] = value
