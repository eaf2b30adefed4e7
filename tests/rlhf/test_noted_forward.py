"""Forwards that are kept: the update from them is the update without them, and products are spared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import loop_world
import pytest
import torch
from loop_world import World, run_tiny, tiny_config
from torch import Tensor, nn

from rlhf import loop_steps, nameless_file, noted_forward, sampling
from rlhf.backbones import load_backbone
from rlhf.linear_layers import of_few_rows, plain, wide_layers
from rlhf.loop_steps import answer, encode_prompt
from rlhf.nameless_file import NamelessFile
from rlhf.noted_forward import Notes, Places, joined, noted_bytes
from rlhf.optimiser_step import Learner, Setting, make_learner
from rlhf.policy import make_policy
from rlhf.policy_update import update
from rlhf.recipes import GRPO, PPO, RECIPES, Recipe
from rlhf.reward_model import Adaptation, make_critic, make_reward_model
from rlhf.rollout import Rollout, assemble, collect
from rlhf.sampling import Sampled, sample

PROMPTS = [tuple(range(60, 72)), (80, 81, 82), (90, 91, 92, 93, 94)]
TEMPERATURE = 0.8
LONGEST = 12
WHOLE = 1000


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOOP_CACHE", str(tmp_path))
    nameless_file.drop_spare()


def learner_of(recipe: Recipe, adaptation: Adaptation = "full") -> Learner:
    """On a tiny model that ends a response at any of 20 tokens, with plain gradient steps."""
    backbone = replace(load_backbone("tiny"), eos_ids=tuple(range(20)))
    reward_model = make_reward_model(backbone, "full", 4)
    torch.manual_seed(5)
    nn.init.normal_(reward_model.head.weight, std=0.05)
    policy = make_policy(backbone, adaptation, 4)
    learner = make_learner(policy, make_critic(reward_model) if recipe.critic else None, recipe)
    learner.policy_optimizer = torch.optim.SGD(policy.trained().values(), lr=1.0)
    if learner.critic is not None:
        learner.critic_optimizer = torch.optim.SGD(learner.critic.parameters(), lr=0.01)
    return learner


def drawn(learner: Learner, note: int) -> list[list[Sampled]]:
    backbone, stream = learner.policy.backbone, torch.Generator().manual_seed(0)
    return sample(backbone, learner.policy.model, PROMPTS, 4, LONGEST, TEMPERATURE, stream, note=note)


def rolled(learner: Learner, note: int, budget: int = WHOLE, lost: tuple[int, int] | None = None) -> Rollout:
    """lost: a prompt and the response to it that has no reward."""
    rows = drawn(learner, note)
    scores: list[list[float | None]] = [[float(sum(s.ids) % 7) for s in row] for row in rows]
    if lost:
        scores[lost[0]][lost[1]] = None
    groups, missing = collect(PROMPTS, rows, scores)
    return assemble(learner.policy, learner.critic, groups, LONGEST, TEMPERATURE, budget, missing, note=note > 0)


def improved(learner: Learner, rollout: Rollout, recipe: Recipe, budget: int = WHOLE) -> dict[str, float]:
    return update(learner, rollout, recipe, Setting(TEMPERATURE, budget), torch.Generator().manual_seed(3))


def weights(learner: Learner) -> list[Tensor]:
    critic = list(learner.critic.parameters()) if learner.critic else []
    return [p.detach().clone() for p in [*learner.policy.trained().values(), *critic]]


@contextmanager
def products() -> Iterator[list[int]]:
    """The numbers of rows that the library's linear map was asked for within it."""
    rows: list[int] = []
    real = torch.nn.functional.linear

    def counting(x: Tensor, *rest: Any) -> Tensor:
        rows.append(x.shape[:-1].numel())
        return real(x, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "linear", counting)
        yield rows


def once(recipe: Recipe) -> Recipe:
    return replace(recipe, epochs=1, minibatches=1, max_grad_norm=1e9)


WAYS = {
    "grpo": once(GRPO),
    "ppo": once(PPO),
    "two passes": replace(once(PPO), epochs=2),
    "two steps": replace(once(GRPO), minibatches=2),
    "entropy": replace(once(GRPO), entropy_bonus=0.1),
    "whole step": once(next(r for r in RECIPES.values() if r.needs("step"))),
}


@pytest.mark.parametrize("adaptation", ["full", "lora"])
@pytest.mark.parametrize("budget", [WHOLE, 1])
@pytest.mark.parametrize("name", WAYS)
def test_an_update_from_notes_is_the_update(name: str, budget: int, adaptation: Adaptation) -> None:
    recipe = WAYS[name]
    with_notes, without = learner_of(recipe, adaptation), learner_of(recipe, adaptation)
    before = weights(with_notes)
    figures = [
        improved(learner, rolled(learner, note, budget, lost=(0, 1)), recipe, budget)
        for learner, note in ((with_notes, len(PROMPTS)), (without, 0))
    ]
    assert figures[0] == pytest.approx(figures[1], abs=1e-5)
    for a, b, old in zip(weights(with_notes), weights(without), before, strict=True):
        torch.testing.assert_close(a - old, b - old, atol=1e-6, rtol=1e-4)
    assert any((a - old).abs().max() > 1e-3 for a, old in zip(weights(with_notes), before, strict=True))


@pytest.mark.parametrize("recipe", [once(GRPO), once(PPO)])
def test_the_first_step_multiplies_no_token_by_a_layer_again(recipe: Recipe) -> None:
    learner = learner_of(recipe)
    rollout = rolled(learner, len(PROMPTS))
    lengths = sorted(len(s.ids) for row in drawn(learner, 0) for s in row)
    assert lengths[0] < lengths[-1]  # rows left the batch on the way
    with products() as rows:
        improved(learner, rollout, recipe)
    # What is left is the critic's head; the vocabulary is met in backward alone, in blocks of its own.
    assert len(rows) == (1 if recipe.critic else 0)
    learner = learner_of(recipe)
    rollout = rolled(learner, 0)
    with products() as rows:
        improved(learner, rollout, recipe)
    assert len(rows) >= len(wide_layers(learner.policy.model.get_decoder()))  # type: ignore[operator]


def test_notes_are_of_the_first_prompts_and_of_none_that_sampling_left_out() -> None:
    learner = learner_of(once(GRPO))
    rows = drawn(learner, 2)
    assert [[s.noted is not None for s in row] for row in rows] == [[True] * 4, [True] * 4, [False] * 4]
    assert [[s.ids for s in row] for row in rows] == [[s.ids for s in row] for row in drawn(learner, 0)]


def test_notes_of_other_weights_are_none() -> None:
    recipe = replace(once(GRPO), epochs=2)
    learner = learner_of(recipe)
    [[noted, *_], *_] = [[s.noted for s in row] for row in drawn(learner, 1)]
    assert joined([noted]) is not None
    assert joined([noted, None]) is None
    with torch.no_grad():
        next(iter(learner.policy.trained().values())).mul_(1.0)
    assert joined([noted]) is None


def test_the_optimiser_of_an_update_makes_other_weights() -> None:
    learner = learner_of(once(PPO))
    assert learner.critic is not None
    fresh = make_learner(learner.policy, learner.critic, once(PPO))
    rollout = rolled(learner, len(PROMPTS))
    monitored = [noted.notes for noted in (rollout.noted[0], rollout.values_noted[0]) if noted is not None]
    versions = [notes._now() for notes in monitored]
    improved(fresh, rollout, once(PPO))
    assert len(monitored) == 2
    assert all(
        a != b for notes, old in zip(monitored, versions, strict=True) for a, b in zip(notes._now(), old, strict=True)
    )


def test_a_critic_that_is_fitted_beforehand_does_not_learn_from_its_old_notes() -> None:
    assert PPO.critic is not None
    recipe = replace(once(PPO), critic=replace(PPO.critic, pretraining_passes=2))
    learners = []
    for note in (len(PROMPTS), 0):
        tuned = learner_of(recipe)
        learner = make_learner(tuned.policy, tuned.critic, recipe)
        improved(learner, rolled(learner, note), recipe)
        learners.append(learner)
    for a, b in zip(*map(weights, learners), strict=True):
        assert (a - b).abs().mean() < 1e-7  # AdamW enlarges rounding errors of gradients near 0, here and there


def test_an_update_forgets_the_notes_behind_its_first_step() -> None:
    learner = learner_of(once(PPO))
    rollout = rolled(learner, len(PROMPTS))
    kept = [noted.notes for noted in (*rollout.noted, *rollout.values_noted) if noted is not None]
    assert len(kept) == 6
    assert all(notes.current for notes in kept)
    improved(learner, rollout, once(PPO))
    assert not any(notes.current for notes in kept)
    assert len(nameless_file._spare) == 2  # one of the policy's notes, one of the critic's
    rolled(learner, len(PROMPTS))
    assert not nameless_file._spare


def without_a_folder(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    patch.setenv("PREFLOOP_CACHE", str(tmp_path / "file"))


def with_a_full_disk(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    patch.setattr(NamelessFile, "write", no_room)


@pytest.mark.parametrize("trouble", [without_a_folder, with_a_full_disk])
def test_without_room_nothing_is_noted_and_all_else_goes_on(
    trouble: Callable[[Path, pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly = learner_of(once(PPO))
    improved(plainly, rolled(plainly, 0), once(PPO))
    trouble(tmp_path, monkeypatch)
    learner = learner_of(once(PPO))
    rollout = rolled(learner, len(PROMPTS))
    assert not any(rollout.noted)
    improved(learner, rollout, once(PPO))
    for a, b in zip(weights(learner), weights(plainly), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("wanted", "fit"), [(6, 3), (6, 9), (5, 9), (0, 9)])
def test_prompts_are_noted_as_far_as_there_is_room(wanted: int, fit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, prompts = learner_of(once(GRPO)).policy, loop_world.PROMPTS[:6]
    longest = max(len(encode_prompt(policy.backbone, prompt)) for prompt in prompts)
    config = tiny_config("grpo", token_budget=2 * 4 * (longest + LONGEST) // 8, sampling={"max_new_tokens": LONGEST})
    token = noted_bytes(policy.model.get_decoder())  # type: ignore[operator]
    monkeypatch.setattr(loop_steps, "room", lambda: fit * token * (longest + 4 * LONGEST) + token)
    found = answer(policy, prompts, 4, config, "policy-0", torch.Generator().manual_seed(0), note=wanted).sampled
    assert [[s.noted is not None for s in row] for row in found] == [[n < min(wanted, fit)] * 4 for n in range(6)]
    assert len({id(s.noted.notes) for row in found for s in row if s.noted}) == -(-min(wanted, fit) // 2)  # two a batch


def test_a_critics_values_are_noted_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(once(PPO))
    token = noted_bytes(learner.policy.model.get_decoder())  # type: ignore[operator]
    rollout = rolled(learner, len(PROMPTS))
    monkeypatch.setattr(noted_forward, "room", lambda: token * (max(g.tokens for g in rollout.groups) + 1))
    one_by_one = rolled(learner, len(PROMPTS), budget=1)  # the longest comes first, and is all that there is room for
    longest = max(range(3), key=lambda n: one_by_one.groups[n].tokens)
    assert [n for n, noted in enumerate(one_by_one.values_noted) if noted] == [longest]


class Expert(nn.Module):
    """Two layers, of which each row meets one."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x[x[:, 0] > 0]), self.other(x[x[:, 0] <= 0])])


def test_layers_that_run_over_other_rows_than_the_rest_are_not_noted() -> None:
    model = Expert()
    notes = Notes(model, model)
    with notes.taking(slice(None)):
        model(torch.tensor([1.0, 1.0, -1.0])[:, None].expand(3, 64))
    assert not notes.current


def test_passes_that_call_other_layers_are_not_noted() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    notes = Notes(model, model)
    for order in ((0, 1), (1, 0)):
        assert notes.current
        with notes.taking(slice(None)):
            for n in order:
                model[n](torch.ones(2, 64))
    assert not notes.current


def test_what_is_read_is_what_was_written_wherever_a_token_stands() -> None:
    layer = nn.Linear(64, 80)
    notes = Notes(layer, layer)
    x = torch.randn(3, 1200, 64)
    with torch.no_grad():
        for n in range(3):
            with notes.taking(torch.arange(1200)):
                layer(x[n])
    passed, row = 2 * torch.randint(0, 2, (2500,)), torch.randint(0, 1200, (2500,))
    passed[2000:] = -1
    passed[:1100], row[:1100] = 1, torch.arange(1200).flip(0)[:1100]  # more pieces in a stretch than are read at once
    inputs = x[passed, row].requires_grad_()
    with notes.giving(Places(passed, row)):
        y = layer(inputs)
    expected = torch.nn.functional.linear(x[passed, row], layer.weight, layer.bias)
    seen = passed >= 0
    assert torch.equal(y[seen], expected[seen].detach()) or (y[seen] - expected[seen]).abs().max() < 1e-5
    assert torch.equal(y[~seen], torch.zeros_like(y[~seen]))
    slope = torch.randn(2500, 80)
    wanted = (inputs, layer.weight, layer.bias)
    again = x[passed, row].requires_grad_()
    by_hand = torch.nn.functional.linear(again, layer.weight, layer.bias)
    for a, b in zip(
        torch.autograd.grad(y, wanted, slope), torch.autograd.grad(by_hand, (again, *wanted[1:]), slope), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_a_run_keeps_forwards_where_one_step_takes_all_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    real = Notes.giving

    def giving(self: Notes, places: Places) -> Any:
        given.append(len(places.row))
        return real(self, places)

    monkeypatch.setattr(Notes, "giving", giving)
    run_tiny(tiny_config("grpo", recipe={"minibatches": 1}, iterations=1), tmp_path / "one", World(0))
    assert given
    given.clear()
    run_tiny(tiny_config("grpo", recipe={"minibatches": 2}, iterations=1), tmp_path / "two", World(0))
    assert not given


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64), (32, 1, 64), (2, 3, 64)])
def test_the_product_of_few_rows_is_the_product(shape: tuple[int, ...], bias: bool) -> None:
    layer, x = nn.Linear(64, 96, bias=bias), torch.randn(shape)
    with torch.no_grad():
        torch.testing.assert_close(of_few_rows(layer, x), plain(layer, x))


def test_a_backbone_samples_alike_with_and_without_its_layers_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(once(GRPO))
    found = drawn(learner, 0)
    monkeypatch.setattr(sampling, "of_few_rows", plain)
    for a, b in zip((s for r in found for s in r), (s for r in drawn(learner, 0) for s in r), strict=True):
        assert a.ids == b.ids
        assert a.logp == pytest.approx(b.logp, abs=1e-5)


class ChangesInPlace(nn.Module):
    """Overwrites what a layer gave with twice as much."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).mul_(2.0)
        return y + self.second(y)


@torch.no_grad()
def test_what_a_model_changes_in_place_was_noted_before() -> None:
    model, x = ChangesInPlace(), torch.randn(3, 64)
    notes = Notes(model, model)
    with notes.taking(slice(None)):
        expected = model(x)
    (known,) = notes.last_pass([3])
    with notes.giving(known.places):
        assert torch.equal(model(x), expected)
