"""Run files and recipes: every mistake is one line that names the key, the value and what is allowed."""

import re
from pathlib import Path
from typing import Any

import pytest

from labeling.records import UserError
from rlhf.recipe_options import BOUNDS, CHOICES, PARTS, all_constants, constants, make_recipe
from rlhf.recipes import GRPO, PPO, RECIPES, STAGES
from rlhf.run_config import RunConfig, load_run, parse_run


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        parse_run(data, "my.toml")
    message = str(caught.value)
    assert message.startswith("my.toml: ")
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_defaults_and_what_is_given() -> None:
    config = parse_run(
        {"labels": {"candidates": [2, 4]}, "recipe": {"name": "ppo", "epochs": 3, "beta": 0.2, "lam": 0.9}}
    )
    assert config.labels.candidates == (2, 4)
    recipe = config.make_recipe()
    assert (recipe.name, recipe.epochs) == ("ppo", 3)
    assert recipe.reward_kl is not None
    assert (recipe.reward_kl.beta, recipe.reward_kl.target) == (0.2, 6.0)
    assert constants(recipe)["lam"] == 0.9
    assert parse_run({"recipe": {}}).make_recipe() == GRPO  # a section without a name
    assert parse_run(config.to_dict()) == config


@pytest.mark.parametrize(
    ("data", "key", "known"),
    [
        ({"iteration": 3}, "'iteration'", "iterations"),
        ({"model": {"nam": "tiny"}}, "'model.nam'", "lora_rank"),
        ({"sampling": {"temp": 1}}, "'sampling.temp'", "temperature"),
        ({"labels": {"slate": 1}}, "'labels.slate'", "heldout_share"),
        ({"labels": {"oracle": {"noise": 1}}}, "'labels.oracle.noise'", "flip_rate"),
        ({"reward_model": {"lr": 1}}, "'reward_model.lr'", "head_learning_rate"),
        ({"evaluation": {"golden": "x"}}, "'evaluation.golden'", "gold"),
    ],
)
def test_an_unknown_key_is_named_beside_those_that_are_known_there(data: dict[str, Any], key: str, known: str) -> None:
    message = refusal(data)
    assert f"unknown key {key}" in message
    assert known in message.split("known here: ")[1].split(", ")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"iterations": "many"}, "iterations = 'many': input should be a valid integer"),
        ({"iterations": 0}, "iterations = 0: input should be greater than or equal to 1"),
        ({"seed": -1}, "seed = -1: "),
        ({"seed": 2**63}, "seed = 9223372036854775808: "),
        ({"name": "a/b"}, "name = 'a/b': "),
        ({"name": "x" * 9000}, "name = 'xxx"),
        ({"sampling": {"temperature": 0}}, "sampling.temperature = 0: input should be greater than 0"),
        ({"sampling": {"temperature": float("inf")}}, "sampling.temperature = inf: "),
        ({"sampling": {"responses": 1}}, "sampling.responses = 1: "),
        ({"model": {"adaptation": "half"}}, "model.adaptation = 'half': input should be 'lora' or 'full'"),
        ({"model": 3}, "model = 3: it must be a section"),
        ({"recipe": 3}, "it must be a section"),
        ({"labels": {"judges": "criteria"}}, "labels.judges = 'criteria': it must be a list"),
        ({"labels": {"candidates": []}}, "labels.candidates = []: "),
        ({"labels": {"candidates": [10]}}, "labels.candidates.0 = 10: input should be less than or equal to 9"),
        ({"labels": {"heldout_share": 1.2}}, "labels.heldout_share = 1.2: "),
        ({"labels": {"oracle": {"flip_rate": 1.0}}}, "labels.oracle.flip_rate = 1.0: input should be less than 1"),
        ({"reward_model": {"replay": float("inf")}}, "reward_model.replay = inf: "),
        # Keys that do not go together.
        ({"labels": {"candidates": [5]}}, "labels.candidates = [5] asks for more than sampling.responses = 4"),
        ({"labels": {"humans": False}}, "nobody labels: set labels.humans"),
        ({"labels": {"humans": False, "wait_for_humans": 1, "oracle": {}}}, "wait_for_humans needs labels.humans"),
        ({"labels": {"wait_for_humans": 9, "slates": 8}}, "wait_for_humans = 9 is more than labels.slates = 8"),
        # Recipes.
        ({"recipe": {"name": "pppo"}}, "there is no recipe 'pppo': choose one of ppo, ppo_ptx"),
        (
            {"recipe": {"name": "grpo", "lambda": 1}},
            "has no constant 'lambda': choose among reward, score, samples, advantage",
        ),
        ({"recipe": {"name": "grpo", "lam": 0.9}}, "recipe 'grpo' uses no 'lam': remove it"),
        ({"recipe": {"name": "dapo", "target": 3}}, "recipe 'dapo' uses no 'target'"),
        (
            {"recipe": {"name": "grpo", "surrogate": "clip"}},
            "there is no surrogate 'clip': choose one of clipped, dual",
        ),
        ({"recipe": {"name": "grpo", "surrogate": 3}}, "there is no surrogate 3"),
        ({"recipe": {"name": "grpo", "loss_kl": 0.1}}, "loss_kl = 0.1: true gives the recipe this part"),
        ({"recipe": {"name": "grpo", "estimator": "k4"}}, "estimator = 'k4': choose one of k1, k2, k3"),
        ({"recipe": {"name": "ppo", "critic": False}}, "advantage = 'gae' needs a critic"),
        ({"recipe": {"name": "grpo", "critic": True}}, "critic = true: recipe 'grpo' uses none"),
        ({"recipe": {"name": "remax", "epochs": 2}}, "surrogate = 'reinforce' may use each sample once"),
        ({"recipe": {"name": "clip_cov", "low": 5}}, "low = 5 must be below high = 5.0"),
        (
            {"recipe": {"name": "aepo", "high_temperature": 0.5}},
            "low_temperature = 0.8 must be below high_temperature = 0.5",
        ),
        ({"recipe": {"name": "ppo", "beta": 0}}, "reward_kl with beta = 0 never reaches target = 6.0"),
        ({"recipe": {"name": "grpo", "beta": 0, "target": 1}}, "loss_kl with beta = 0 never reaches target = 1"),
        ({"recipe": "ttrl", "reward": {"source": "rule", "rule": "brief"}}, "'majority_vote' in [recipe] asks no rule"),
        ({"recipe": {"name": "ppo", "lam": 1.5}}, "lam = 1.5: it must be a number from 0 to 1"),
        ({"recipe": {"name": "grpo", "learning_rate": float("inf")}}, "learning_rate = inf: it must be a number > 0"),
        ({"recipe": {"name": "ppo", "whiten": 1}}, "whiten = 1: it must be true or false"),
        ({"recipe": {"name": "ppo", "target": 0}}, "target = 0: it must be a number > 0"),
        ({"recipe": {"name": "ppo", "epochs": 1.5}}, "epochs = 1.5: it must be a whole number >= 1"),
        ({"recipe": {"name": "ppo", "epochs": 0}}, "epochs = 0: it must be a whole number >= 1"),
        ({"recipe": {"name": "ppo", "beta": -1}}, "beta = -1: it must be a number >= 0"),
        ({"recipe": {"name": "ppo", "beta": "a"}}, "beta = 'a': it must be a number >= 0"),
        ({"recipe": {"name": "ppo", "epochs": True}}, "epochs = True: it must be"),
        ({"recipe": {"name": "ppo", "eps_low": float("nan")}}, "eps_low = nan: it must be"),
        ({"recipe": {"name": "grpo", "learning_rate": 10**400}}, f"learning_rate = 1{'0' * 78}…: it must be a number"),
        ({"recipe": {"name": "grpo", "low": -(10**400)}}, "uses no 'low'"),
        ({"recipe": {"name": "clip_cov", "low": -(10**400)}}, "…: it must be a number of any size"),
        ({"recipe": {"name": "ppo", "epochs": 16**5000}}, "epochs = a number of thousands of digits: it must be"),
        ({"recipe": {"name": "x" * 900}}, "…: choose one of"),
    ],
)
def test_wrong_values(data: dict[str, Any], expected: str) -> None:
    assert expected in refusal(data)


def other(key: str, value: Any) -> Any:
    """Another value that the constant may have."""
    if key in CHOICES:
        return next(c for c in CHOICES[key] if c != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int) or key.startswith("high"):
        return value + 1
    return 0.37 if key not in BOUNDS or BOUNDS[key].hold(0.37) else 1.37


@pytest.mark.parametrize("name", RECIPES)
def test_every_constant_lands_where_it_belongs_or_is_refused(name: str) -> None:
    before = constants(RECIPES[name])
    for key in all_constants() - set(STAGES) - set(PARTS):
        if key not in before:
            with pytest.raises(UserError, match=f"uses no {key!r}"):
                make_recipe(name, {key: other(key, 1)})
            continue
        value = other(key, before[key])
        if key == "epochs" and name == "remax":
            value = 1  # it may use each sample once
        after = constants(make_recipe(name, {key: value}))
        assert after.pop(key) == value
        # Nothing else has changed (NaN is not equal to itself).
        assert repr(after) == repr({k: v for k, v in before.items() if k != key})


def test_another_stage_keeps_the_constants_that_both_have() -> None:
    found = constants(make_recipe("dapo", {"surrogate": "dual_clipped"}))
    assert (found["eps_low"], found["eps_high"], found["c"]) == (0.2, 0.28, 3.0)
    found = constants(make_recipe("gspo", {"surrogate": "flipped"}))
    assert (found["eps_low"], found["eps_high"], found["cap"]) == (3e-4, 4e-4, 3.0)


def test_a_critic_comes_and_goes_with_the_advantage_that_needs_it() -> None:
    assert make_recipe("grpo", {"advantage": "gae"}).critic == PPO.critic
    assert make_recipe("vapo", {"advantage": "gae"}).critic == RECIPES["vapo"].critic  # with its pretraining
    assert make_recipe("ppo", {"advantage": "group_centered"}).critic is None


def test_a_recipe_is_a_value_that_constants_do_not_change() -> None:
    before = repr(PPO)
    assert make_recipe("ppo", {"lam": 0.5, "beta": 0.9, "value_clip": 0.1, "critic_learning_rate": 1e-6}) != PPO
    assert repr(PPO) == before


def test_the_vetted_constants() -> None:
    # arXiv 1707.06347 (clips 0.2), 2203.02155 (token KL in the reward), 1909.08593 (target 6 nats), 2402.03300 (k3).
    for recipe in (PPO, GRPO):
        assert (constants(recipe)["eps_low"], constants(recipe)["eps_high"]) == (0.2, 0.2)
    assert PPO.reward_kl is not None
    assert (PPO.reward_kl.beta, PPO.reward_kl.target, PPO.loss_kl) == (0.05, 6.0, None)
    assert PPO.critic is not None
    assert PPO.critic.value_clip == 0.2
    assert GRPO.loss_kl is not None
    assert (GRPO.loss_kl.beta, GRPO.loss_kl.estimator.__name__, GRPO.reward_kl) == (0.04, "k3", None)
    assert GRPO.critic is None


# Files and overrides


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    return load_run(write(folder, text), overrides)


def test_a_run_is_named_after_its_file_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert load(tmp_path, "").name == "mine"
    assert load(tmp_path, 'name = "other"').name == "other"


def test_overrides_come_last_and_reach_any_depth(tmp_path: Path) -> None:
    text = "iterations = 3\n[sampling]\ntemperature = 0.5\n"
    config = load(
        tmp_path,
        text,
        "sampling.temperature=0.9",
        "labels.oracle.flip_rate=0.1",
        "labels.candidates=[2, 3]",
        "recipe.name=ppo",  # a bare word is text
        'model.name="tiny"',
        "labels.humans=false",
        "seed = 4",
    )
    assert (config.iterations, config.sampling.temperature, config.seed) == (3, 0.9, 4)
    assert config.labels.oracle is not None
    assert (config.labels.oracle.flip_rate, config.labels.candidates, config.labels.humans) == (0.1, (2, 3), False)
    assert (config.make_recipe().name, config.model.name) == ("ppo", "tiny")


def test_the_short_form_of_a_recipe_takes_overrides(tmp_path: Path) -> None:
    recipe = load(tmp_path, 'recipe = "dapo"', "recipe.eps_high=0.3", "recipe.surrogate=dual_clipped").make_recipe()
    assert (recipe.name, constants(recipe)["eps_high"], constants(recipe)["c"]) == ("dapo", 0.3, 3.0)
    assert load(tmp_path, 'recipe = "dapo"', "recipe=grpo").make_recipe() == GRPO


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("iterations", "--set 'iterations': write section.key=value"),
        ("=3", "--set '=3': write section.key=value"),
        ("iterations.x=3", "'iterations' is not a section"),
        ("sampling.tempo=1", "unknown key 'sampling.tempo'"),
        ("iterations=zwei", "iterations = 'zwei'"),
        (f"iterations=1{'0' * 400}", "…: iterations: a whole number has 64 bits at most"),
        (f"labels.candidates=[2, 1{'0' * 400}]", "…: labels.candidates: a whole number has 64 bits at most"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)) as caught:
        load(tmp_path, "iterations = 2", override)
    assert len(str(caught.value)) < 400


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run file .*gone\.toml"):
        load_run(tmp_path / "gone.toml")
    with pytest.raises(UserError, match=r"mine\.toml is not valid TOML: .*line 2"):
        load(tmp_path, "iterations = 3\nseed == 4\n")
    for number in (f"1{'0' * 400}", f"1{'0' * 5000}", f"0x1{'0' * 5000}"):
        with pytest.raises(UserError, match=r"mine\.toml is not valid TOML: .* 64 bits") as caught:
            load(tmp_path, f"[sampling]\nresponses = {number}\n")
        assert len(str(caught.value)) < 400
    assert load(tmp_path, f"seed = {2**63 - 1}\n").seed == 2**63 - 1
    path = write(tmp_path, "")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read the run file .*mine"):
        load_run(path)
    with pytest.raises(UserError, match="cannot read the run file"):
        load_run(tmp_path)
