"""The recipes as they are printed: the README has them all, and what is printed of one can be read back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import app
from labeling.records import UserError
from rlhf.recipe_options import STAGES, all_constants, constants, make_recipe
from rlhf.recipe_table import markdown, print_recipe, print_recipes
from rlhf.recipes import RECIPES

HERE = Path(app.__file__).resolve().parent


def test_the_readme_has_the_table() -> None:
    assert markdown() in (HERE / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_printed_makes_the_same_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_recipe(name)
    options = tomllib.loads(capsys.readouterr().out)["recipe"]
    assert options.pop("name") == name
    assert repr(constants(make_recipe(name, options))) == repr(constants(RECIPES[name]))


def test_all_are_listed_and_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    print_recipes()
    lines = capsys.readouterr().out.splitlines()
    assert [name for name in RECIPES if not any(line.startswith(f"{name} ") for line in lines)] == []
    assert lines[-1].endswith("; [recipe] in a run file changes any of them.")


def test_an_unknown_recipe_is_answered_with_the_list() -> None:
    with pytest.raises(UserError, match=r"there is no recipe 'gppo': choose one of ppo, ppo_ptx, .*ttrl"):
        print_recipe("gppo")


def test_the_files_readme_names_every_stage_and_constant() -> None:
    text = (HERE / "data" / "README.md").read_text(encoding="utf-8")
    names = [*STAGES, *(f for functions in STAGES.values() for f in functions), *all_constants()]
    assert [n for n in names if f"`{n}`" not in text] == []
