"""Choosing and changing a recipe by name: `[recipe]` of a run file, and the list that `prefloop recipes` prints."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

from labeling.records import UserError
from labeling.toml_values import echoed
from rlhf.auxiliary import PositiveTerm, PretrainingTerm, TemperedTerm
from rlhf.majority import EXTRACTORS
from rlhf.recipes import ESTIMATORS, RECIPES, STAGES, CriticSettings, LossKL, Recipe, RewardKL, stage_function
from rlhf.step_splitting import SPLITTERS

# Parts that a recipe has or has not: true gives them, false takes them away.
PARTS: Mapping[str, type] = {
    "reward_kl": RewardKL,
    "loss_kl": LossKL,
    "critic": CriticSettings,
    "pretraining": PretrainingTerm,
    "positive": PositiveTerm,
    "tempered": TemperedTerm,
}
PLAIN = (
    "entropy_bonus",
    "running_scores",
    "score_clip",
    "attempts",
    "epochs",
    "minibatches",
    "learning_rate",
    "max_grad_norm",
)
CHOICES: Mapping[str, tuple[str, ...]] = {
    "estimator": tuple(ESTIMATORS),
    "split": tuple(SPLITTERS),
    "extract": tuple(EXTRACTORS),
}


@dataclass(frozen=True)
class Bounds:
    """What a number may be: from low to high; without `closed`, low itself is too low."""

    low: float = 0.0
    high: float = math.inf
    closed: bool = True

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"from {self.low:g} to {self.high:g}"
        return f"{'>=' if self.closed else '>'} {self.low:g}" if self.low > -math.inf else "of any size"

    def hold(self, value: float) -> bool:
        """Whether a finite value is inside; a whole number that no float can hold is not finite."""
        if abs(value) > sys.float_info.max:
            return False
        return (self.low <= value if self.closed else self.low < value) and value <= self.high


BOUNDS: Mapping[str, Bounds] = {
    **dict.fromkeys(("epochs", "minibatches", "attempts", "horizon", "texts"), Bounds(1)),
    **dict.fromkeys(("gamma", "lam", "critic_lam", "eps_low", "share"), Bounds(0, 1)),
    **dict.fromkeys(
        ("target", "score_clip", "eps", "alpha", "high_temperature", "low_temperature"), Bounds(0, closed=False)
    ),
    **dict.fromkeys(("learning_rate", "critic_learning_rate", "max_grad_norm", "rest"), Bounds(0, closed=False)),
    "cache": Bounds(0, 1, closed=False),
    **dict.fromkeys(("c", "cap"), Bounds(1)),
    **dict.fromkeys(("correct_above", "low", "high"), Bounds(-math.inf)),
}


def make_recipe(name: str, options: Mapping[str, Any]) -> Recipe:
    """The named recipe with some stages, parts or constants changed.

    A stage is replaced by the name of another (`surrogate = "dual_clipped"`), which keeps the constants that both have;
    a part is given or taken away by true or false (`loss_kl = true`); everything else is a constant of what the recipe
    then consists of. A critic comes and goes with the advantage that needs it.

    Raises UserError for an unknown recipe, stage or constant, with the list of what there is, and for values that no
    constant can have.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {echoed(name)}: choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    known = {*STAGES, *PARTS, *PLAIN, *all_constants()}
    for key in options:
        if key not in known:
            own = ", ".join([*STAGES, *PARTS, *constants(recipe)])
            raise UserError(f"recipe {name!r} has no constant {echoed(key)}: choose among {own}")
    for kind in STAGES:
        if kind in options:
            stage: Any = _stage(kind, options[kind], getattr(recipe, kind))
            recipe = replace(recipe, **{kind: stage})
    if recipe.needs("critic") != (recipe.critic is not None) and "critic" not in options:
        recipe = replace(recipe, critic=CriticSettings() if recipe.needs("critic") else None)
    for key in PARTS:
        if key in options:
            recipe = replace(recipe, **{key: _part(key, options[key], getattr(recipe, key))})
    for key, value in options.items():
        if key not in STAGES and key not in PARTS:
            recipe = _with_constant(recipe, key, value)
    return _checked(recipe)


def constants(recipe: Recipe) -> dict[str, Any]:
    """Every constant of a recipe with its value: those of its stages, of its parts, and its own."""
    found: dict[str, Any] = {}
    for kind in STAGES:
        found |= stage_constants(getattr(recipe, kind))
    for key in PARTS:
        part = getattr(recipe, key)
        if part is not None:
            found |= {f.name: _plain(getattr(part, f.name)) for f in fields(part)}
    return found | {key: getattr(recipe, key) for key in PLAIN}


def stage_constants(stage: Callable[..., Any]) -> dict[str, Any]:
    """The constants of a stage: the keyword-only parameters of its function, with the values bound to them."""
    parameters = inspect.signature(stage_function(stage)).parameters.values()
    bound = stage.keywords if isinstance(stage, partial) else {}
    return {p.name: bound.get(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def describe(recipe: Recipe) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What a recipe consists of: (place, name, constants) of each stage and part, then its own constants."""
    for kind in STAGES:
        stage = getattr(recipe, kind)
        yield kind, stage_function(stage).__name__, stage_constants(stage)
    for key in PARTS:
        part = getattr(recipe, key)
        if part is not None:
            yield key, "", {f.name: _plain(getattr(part, f.name)) for f in fields(part)}
    yield "update", "", {key: getattr(recipe, key) for key in PLAIN}


def _plain(value: Any) -> Any:
    return value.__name__ if callable(value) else value


def all_constants() -> set[str]:
    """The constants of every stage and part there is, whether or not a recipe ships with it."""
    stages = {key for functions in STAGES.values() for f in functions.values() for key in stage_constants(f)}
    return stages | {f.name for part in PARTS.values() for f in fields(part)}


def _stage(kind: str, name: Any, before: Callable[..., Any]) -> Callable[..., Any]:
    if not isinstance(name, str) or name not in STAGES[kind]:
        raise UserError(f"there is no {kind} {echoed(name)}: choose one of {', '.join(STAGES[kind])}")
    function = STAGES[kind][name]
    bound = before.keywords if isinstance(before, partial) else {}
    kept = {key: value for key, value in bound.items() if key in stage_constants(function)}
    return partial(function, **kept) if kept else function


def _part(key: str, wanted: Any, before: Any) -> Any:
    if not isinstance(wanted, bool):
        raise UserError(f"{key} = {echoed(wanted)}: true gives the recipe this part, false takes it away")
    return (before or PARTS[key]()) if wanted else None


def _with_constant(recipe: Recipe, key: str, value: Any) -> Recipe:
    if key in PLAIN:
        return replace(recipe, **{key: _checked_value(key, value, getattr(recipe, key))})
    changed: dict[str, Any] = {}
    for kind in STAGES:
        stage = getattr(recipe, kind)
        mine = stage_constants(stage)
        if key in mine:
            bound = stage.keywords if isinstance(stage, partial) else {}
            changed[kind] = partial(stage_function(stage), **{**bound, key: _checked_value(key, value, mine[key])})
    for name in PARTS:
        part = getattr(recipe, name)
        if is_dataclass(part) and key in {f.name for f in fields(part)}:
            changed[name] = replace(part, **{key: _checked_value(key, value, getattr(part, key))})  # type: ignore[type-var]
    if not changed:
        raise UserError(
            f"recipe {recipe.name!r} uses no {key!r}: remove it from [recipe], or add the stage or part that does"
        )
    return replace(recipe, **changed)


def _checked_value(key: str, value: Any, default: Any) -> Any:
    if key in CHOICES:
        if value not in CHOICES[key]:
            raise UserError(f"{key} = {echoed(value)}: choose one of {', '.join(CHOICES[key])}")
        return ESTIMATORS[value] if key == "estimator" else value
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise UserError(f"{key} = {echoed(value)}: it must be true or false")
        return value
    whole = isinstance(default, int)
    bounds = BOUNDS.get(key, Bounds())
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not bounds.hold(value):
        raise UserError(f"{key} = {echoed(value)}: it must be a {'whole ' if whole else ''}number {bounds}")
    return value


def _checked(recipe: Recipe) -> Recipe:
    """What no single option shows."""
    surrogate = stage_function(recipe.surrogate).__name__
    if surrogate == "reinforce" and recipe.epochs > 1:
        raise UserError(f"surrogate = 'reinforce' may use each sample once: set epochs = 1, not {recipe.epochs}")
    if recipe.needs("critic") and recipe.critic is None:
        advantage = stage_function(recipe.advantage).__name__
        raise UserError(f"advantage = {advantage!r} needs a critic: remove critic = false")
    if recipe.critic is not None and not recipe.needs("critic"):
        raise UserError(f"critic = true: recipe {recipe.name!r} uses none; choose advantage = 'gae'")
    reward = stage_function(recipe.reward).__name__
    if reward == "majority_vote" and recipe.needs("greedy"):
        raise UserError("reward = 'majority_vote' tells a single greedy response nothing: choose another advantage")
    found = constants(recipe)
    for low, high in (("low", "high"), ("low_temperature", "high_temperature")):
        if low in found and not found[low] < found[high]:
            raise UserError(f"{low} = {found[low]} must be below {high} = {found[high]}")
    for name, kl in (("reward_kl", recipe.reward_kl), ("loss_kl", recipe.loss_kl)):
        if kl is not None and kl.target is not None and kl.beta == 0:
            raise UserError(f"{name} with beta = 0 never reaches target = {kl.target}: set beta above 0, or no target")
    if reward == "step_rewards" and recipe.running_scores:
        raise UserError("running_scores = true has no unit for reward = 'step_rewards': set one of them otherwise")
    return recipe
