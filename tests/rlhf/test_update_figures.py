"""How an update of a run comes to its samples, at which temperatures, and what is told of their rewards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from loop_world import PROMPTS, World, gold, tiny_config

from labeling.records import Candidate, Prompt
from rlhf import language_subject
from rlhf.answers import Answers
from rlhf.language_subject import make_language_subject
from rlhf.online_loop import GoldFn, run_loop
from rlhf.shaping import adapt_temperature


@dataclass(frozen=True)
class Drawn:
    """One call for samples: to which prompts, how many to each, at which temperature, from which stream."""

    prompts: tuple[str, ...]
    each: int
    temperature: float | None
    stream: int


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Drawn]:
    """Everything that is sampled, but for evaluations."""
    seen: list[Drawn] = []
    real = language_subject.answer

    def answer(*args: Any, **options: Any) -> Answers:
        found = real(*args, **options)
        temperature = args[7] if len(args) > 7 else options.get("temperature")
        seen.append(Drawn(tuple(p.id for p in found.prompts), args[2], temperature, args[5].initial_seed()))
        return found

    monkeypatch.setattr(language_subject, "answer", answer)
    return seen


def run(recipe: dict[str, Any], rule: GoldFn, folder: Path, iterations: int = 1, **sampling: Any) -> World:
    """A small loop whose policy is paid by a rule."""
    sizes = {"prompts": 3, "responses": 4, "max_new_tokens": 4} | sampling
    made = tiny_config(
        recipe["name"],
        iterations=iterations,
        sampling=sizes,
        reward={"source": "rule", "rule": "brief"},
        recipe=recipe,
        labels={"slates": 2},
        evaluation={"prompts": 2},
    )
    world = World(0)
    run_loop(made, "tiny", lambda: make_language_subject(made, PROMPTS, gold, rule), world.surroundings(), folder)
    return world


def nothing(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
    return [None for _ in pairs]


def the_same(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
    return [1.0 for _ in pairs]


def test_a_reward_that_is_missing_everywhere_is_no_zero(tmp_path: Path) -> None:
    world = run({"name": "grpo"}, nothing, tmp_path)
    (figures,), (row,) = world.of_kind("update"), world.of_kind("iteration")
    assert figures["missing_rewards"] == 12
    assert figures["steps"] == 0
    assert not {"reward_mean", "reward_std", "zero_std_groups", "entropy"} & set(figures)
    assert row["proxy_train"] is None


@pytest.mark.parametrize(("target", "temperature"), [(0.1, 0.8), (99.0, 1.2)])
def test_aepo_samples_hotter_below_its_target_and_colder_above(
    target: float, temperature: float, calls: list[Drawn], tmp_path: Path
) -> None:
    world = run({"name": "aepo", "entropy_target": target}, gold, tmp_path)
    (figures,), (row,) = world.of_kind("update"), world.of_kind("iteration")
    assert figures["tempered_temperature"] == temperature
    first, tempered = calls
    assert (tempered.prompts, tempered.each, tempered.temperature) == (first.prompts[:3], 4, temperature)
    assert tempered.stream != first.stream
    # Paid by gold itself, the best by reward is the best.
    assert row["proxy_train"] == row["gold_train"] == pytest.approx(figures["reward_mean"])
    assert figures["gold_of_best"] > figures["reward_mean"]


def test_the_baseline_is_greedy_and_the_temperature_follows_its_target(calls: list[Drawn], tmp_path: Path) -> None:
    world = run({"name": "remax"}, gold, tmp_path, iterations=2, temperature=0.8, entropy_target=99.0)
    first, greedy, second, again = calls
    for drawn, baseline in ((first, greedy), (second, again)):
        assert (baseline.prompts, baseline.each, baseline.temperature) == (drawn.prompts[:3], 1, 0.0)
    one, two = world.of_kind("update")
    # Sampled, trained and compared with the reference at one temperature: else these would not be 0.
    assert one["sampling_mismatch"] == pytest.approx(0, abs=1e-4)
    assert one["kl_per_sequence"] == pytest.approx(0, abs=1e-3)
    assert two["sampling_mismatch"] == pytest.approx(0, abs=1e-4)
    assert one["temperature"] == first.temperature == 0.8
    expected = adapt_temperature(0.8, one["sampling_entropy"], 99.0, 0.7, 1.3)
    assert two["temperature"] == second.temperature == pytest.approx(expected)
    assert expected > 0.8


def test_groups_without_contrast_are_replaced_by_other_prompts_until_the_attempts_end(
    calls: list[Drawn], tmp_path: Path
) -> None:
    world = run({"name": "dapo", "attempts": 3}, the_same, tmp_path)
    (figures,) = world.of_kind("update")
    assert (figures["attempts"], figures["groups_short"], figures["zero_std_groups"]) == (3, 3, 1)
    assert (figures["reward_mean"], figures["steps"]) == (1.0, 0)
    assert [(len(c.prompts), c.each, c.temperature) for c in calls[1:]] == [(3, 4, 1.0)] * 2
    drawn = [*calls[0].prompts[:3], *(p for c in calls[1:] for p in c.prompts)]
    assert len(set(drawn)) == 9
    assert len({c.stream for c in calls}) == 3
