"""Recipes: named values that say how the policy is updated. A variant is `dataclasses.replace` of another.

The update knows no recipe's name; it asks the value. Defaults are the paper's unless a comment says why not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

from labeling.records import UserError
from rlhf.advantages import AdvantageFn, gae, group_standardized
from rlhf.aggregation import AggregationFn, sequence_mean, token_mean
from rlhf.divergences import Estimator, k3
from rlhf.ratios import RatioFn, token_ratio
from rlhf.surrogates import SurrogateFn, clipped


@dataclass(frozen=True)
class RewardKL:
    """KL penalty inside the token rewards. With a target (nats per sequence) β adapts to it over `horizon` samples."""

    beta: float
    target: float | None = None
    horizon: int = 10_000


@dataclass(frozen=True)
class LossKL:
    """KL penalty as a term of the loss: β times the estimator, aggregated like the surrogate."""

    beta: float
    estimator: Estimator


@dataclass(frozen=True)
class CriticSettings:
    """A critic beside the policy: the value clip ε_v and its learning rate."""

    value_clip: float = 0.2
    learning_rate: float = 1e-4


@dataclass(frozen=True)
class Recipe:
    """One way to update a policy: its stages, and how often they pass over a batch.

    epochs: passes over each batch of samples. minibatches: optimiser steps in each pass.
    """

    name: str
    paper: str
    advantage: AdvantageFn
    ratio: RatioFn
    surrogate: SurrogateFn
    aggregation: AggregationFn
    reward_kl: RewardKL | None = None
    loss_kl: LossKL | None = None
    critic: CriticSettings | None = None
    epochs: int = 1
    minibatches: int = 1
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0


PPO = Recipe(
    name="ppo",
    paper="arXiv 1707.06347, 2203.02155",
    advantage=partial(gae, gamma=1.0, lam=0.95, whiten=True),
    ratio=token_ratio,
    surrogate=partial(clipped, eps_low=0.2, eps_high=0.2),
    aggregation=token_mean,
    reward_kl=RewardKL(beta=0.05, target=6.0),
    critic=CriticSettings(),
    epochs=2,
    minibatches=2,
)

GRPO = Recipe(
    name="grpo",
    paper="arXiv 2402.03300",
    advantage=group_standardized,
    ratio=token_ratio,
    surrogate=partial(clipped, eps_low=0.2, eps_high=0.2),
    aggregation=sequence_mean,
    loss_kl=LossKL(beta=0.04, estimator=k3),
    epochs=2,
    minibatches=2,
)

RECIPES = {recipe.name: recipe for recipe in (PPO, GRPO)}

# Where each constant that a run file may set lives: in the recipe, in one of its parts, or bound to a stage.
PARTS = {
    "beta": ("reward_kl", "loss_kl"),
    "target": ("reward_kl",),
    "horizon": ("reward_kl",),
    "value_clip": ("critic",),
    "critic_learning_rate": ("critic",),
    "gamma": ("advantage",),
    "lam": ("advantage",),
    "eps_low": ("surrogate",),
    "eps_high": ("surrogate",),
}
PLAIN = ("epochs", "minibatches", "learning_rate", "max_grad_norm")
CONSTANTS = (*PLAIN, *PARTS)


def make_recipe(name: str, constants: dict[str, Any]) -> Recipe:
    """The named recipe with some constants changed.

    Raises UserError for an unknown recipe, and for a constant that the recipe has no place for.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    for key, value in constants.items():
        if key not in CONSTANTS:
            raise UserError(f"recipe {name!r} has no constant {key!r}: choose among {', '.join(CONSTANTS)}")
        whole = key in ("epochs", "minibatches", "horizon")
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not (1 if whole else 0) <= value < math.inf or (key == "target" and value == 0):
            allowed = "whole number >= 1" if whole else "number > 0" if key == "target" else "number >= 0"
            raise UserError(f"{key} = {value!r}: it must be a {allowed}")
        recipe = replace(recipe, **{key: value}) if key in PLAIN else _replace_part(recipe, key, value)
    return recipe


def _replace_part(recipe: Recipe, key: str, value: Any) -> Recipe:
    field = "learning_rate" if key == "critic_learning_rate" else key
    for part in PARTS[key]:
        stage = getattr(recipe, part)
        changed: Any = None
        if isinstance(stage, partial) and field in stage.keywords:
            changed = partial(stage.func, **{**stage.keywords, field: value})
        elif is_dataclass(stage) and field in {f.name for f in fields(stage)}:
            changed = replace(stage, **{field: value})  # type: ignore[type-var]
        if changed is not None:
            return replace(recipe, **{part: changed})
    raise UserError(f"recipe {recipe.name!r} uses no {key!r}: remove it from [recipe]")
