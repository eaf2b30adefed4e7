"""The recipes as text, for a terminal and for the README."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labeling.records import UserError
from rlhf.recipe_options import PARTS, describe, make_recipe
from rlhf.recipes import RECIPES, Recipe, stage_function

COLUMNS = ("recipe", "paper (arXiv)", "advantage", "ratio · surrogate", "aggregation", "KL", "what differs")


def row(recipe: Recipe) -> tuple[str, ...]:
    """One recipe in the columns above."""
    names = {kind: stage_function(getattr(recipe, kind)).__name__ for kind in ("advantage", "ratio", "surrogate")}
    kl = "in the reward" if recipe.reward_kl else "none"
    if recipe.loss_kl:
        kl = f"{recipe.loss_kl.estimator.__name__} loss"
    return (
        recipe.name,
        recipe.paper,
        names["advantage"],
        f"{names['ratio'].removesuffix('_ratio')} · {names['surrogate']}",
        stage_function(recipe.aggregation).__name__,
        kl,
        recipe.differs,
    )


def markdown() -> str:
    """All recipes as a Markdown table."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for recipe in RECIPES.values():
        name, *rest = row(recipe)
        lines.append(f"| {' | '.join((f'`{name}`', *rest))} |")
    return "\n".join(lines)


def print_recipes() -> None:
    """All recipes, one a line and what differs below."""
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold", no_wrap=column != "what differs")
    for recipe in RECIPES.values():
        table.add_row(*row(recipe))
    console = Console()
    if not console.is_terminal:
        console = Console(width=220)
    console.print(table)
    more = "\n`prefloop recipes NAME` prints one with every constant; [recipe] in a run file changes any of them."
    console.print(more, markup=False, highlight=False)


def print_recipe(name: str) -> None:
    """One recipe with its stages and constants, as a run file may write them. Raises UserError for an unknown name."""
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}: choose one of {', '.join(RECIPES)}")
    recipe = make_recipe(name, {})
    lines = [f"# {recipe.differs} (arXiv {recipe.paper})", "[recipe]", f'name = "{name}"']
    for place, function, constants in describe(recipe):
        if function:
            lines.append(f'{place} = "{function}"')
        elif place in PARTS:
            lines.append(f"{place} = true")
        indent = "" if place == "update" else "    "
        lines += [f"{indent}{_toml(key, value)}" for key, value in constants.items()]
    Console(highlight=False, soft_wrap=True).print(Text("\n".join(lines)))


def _toml(key: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return f"# {key} is not set"
    if isinstance(value, bool):
        return f"{key} = {str(value).lower()}"
    return f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"
