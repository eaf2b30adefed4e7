"""Every recipe, on the tiny model and a rule's rewards: gold rises on held-out prompts, over several seeds.

Gold is the share of lower-case letters in an answer. The rule pays for it; the control pays for its opposite, and must
unlearn. TTRL has no rule: it starts from a model whose majority is right, and the control from one whose is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from loop_world import PROMPTS, World, gold, tiny_config
from side_by_side import side_by_side

from labeling.intervals import Interval, bootstrap
from labeling.records import Candidate, Message, Prompt
from rlhf.language_subject import LanguageSubject, make_language_subject
from rlhf.logprobs import token_logprobs
from rlhf.loop_steps import encode_prompt
from rlhf.majority import choice
from rlhf.online_loop import run_loop
from rlhf.packing import Group, pack
from rlhf.pretraining_texts import Text
from rlhf.recipes import RECIPES

pytestmark = pytest.mark.long

SEEDS = (0, 1, 2)
TEXTS = (Text("a red bird sat on the wall"), Text("two boats and one long day"))


def against(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
    """The opposite of gold."""
    return [None if g is None else -g for g in gold(pairs)]


def config(recipe: str, seed: int, /, iterations: int = 4, **changes: Any) -> Any:
    options = {"name": recipe, "learning_rate": 2e-3, **changes.pop("recipe", {})}
    changes.setdefault("sampling", {"prompts": 8, "responses": 6, "max_new_tokens": 8})
    return tiny_config(
        recipe,
        seed,
        iterations=iterations,
        labels={"slates": 2, "candidates": [2], "humans": True, "oracle": None},
        reward={} if recipe == "ttrl" else {"source": "rule", "rule": "gold"},
        recipe=options,
        **{"evaluation": {"prompts": 16}, **changes},
    )


def differences(recipe: str, folder: Path, rule: Any, changes: dict[str, Any], seed: int) -> list[float]:
    """Gain in gold of each held-out prompt."""
    world, run = Silent(seed), config(recipe, seed, **changes)
    run_loop(
        run,
        "tiny",
        lambda: make_language_subject(run, PROMPTS, gold, rule, TEXTS),
        world.surroundings(),
        folder / f"{seed}",
    )
    before, *_, after = [e["gold_by_prompt"] for e in world.of_kind("evaluation")]
    return [b - a for a, b in zip(before, after, strict=True)]


def gains(recipe: str, folder: Path, rule: Any, /, **changes: Any) -> Interval:
    """Mean gain in held-out gold with its 95 % interval over prompts and seeds."""
    (found,) = side_by_side((SEEDS, partial(differences, recipe, folder, rule, changes)))
    return bootstrap(list(chain.from_iterable(found)))


class Silent(World):
    """Nobody answers."""

    def ask(self, iteration: int, slates: Any) -> list:
        return []


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r != "ttrl"])
def test_gold_rises(recipe: str, tmp_path: Path) -> None:
    # ReMax uses each sample once, and its baseline says less than a group or a critic does: it gets more steps.
    longer = {"iterations": 8, "recipe": {"minibatches": 4}} if recipe == "remax" else {}
    learned = gains(recipe, tmp_path, gold, **longer)
    assert learned.low > 0.03, f"gold rose by {learned}"


@pytest.mark.parametrize("recipe", ["aspo", "ppo", "rloo"])
def test_a_rule_that_pays_for_the_opposite_unlearns(recipe: str, tmp_path: Path) -> None:
    assert gains(recipe, tmp_path, against).high < 0


# TTRL and AEPO begin with a model that knows something: it answers each question with a letter.

QUESTIONS = tuple(
    Prompt((Message("user", f"{word} {n}?"),), "heldout" if n % 2 == 0 else "train")
    for n, word in enumerate(["red", "blue", "green", "one", "two", "seven"] * 8)
)


def truth(prompt: Prompt) -> str:
    return "ABCDE"[len(prompt.messages[-1].content) % 3]


def right(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
    """1 for the right letter."""
    return [float(choice(c.text) == truth(p)) for p, c in pairs]


def wrong_letter(prompt: Prompt) -> str:
    return chr(ord(truth(prompt)) + 1)


Weights = dict[str, torch.Tensor]


def taught(favourite: Any, share: float, steps: int = 60) -> Weights:
    """A model that answers with its favourite letter in that share of cases, else with any letter.

    All seeds begin with it: what differs between them is what they sample.
    """
    subject = make_language_subject(letters_config("grpo", 0), QUESTIONS, right)
    backbone, model = subject.backbone, subject.policy.model
    optimizer = torch.optim.Adam(subject.policy.trained().values(), lr=2e-3)
    letters = {x: backbone.tokenizer(x, add_special_tokens=False)["input_ids"] for x in "ABCDE"}
    groups = [
        Group(encode_prompt(backbone, p), tuple((*letters[x], backbone.eos_ids[0]) for x in "ABCDE")) for p in QUESTIONS
    ]
    weights = torch.tensor(
        [[share * (x == favourite(p)) + (1 - share) / 5 for x in "ABCDE"] for p in QUESTIONS]
    ).flatten()
    packed = pack(groups, backbone.pad_id)
    for _ in range(steps):
        logp = token_logprobs(model, packed, 1.0)[0].sum(1)
        optimizer.zero_grad()
        (-(weights * logp).sum() / len(QUESTIONS)).backward()
        optimizer.step()
    return dict(model.state_dict())


def run_taught(run: Any, folder: Path, weights: Weights, rule: Any = None) -> Silent:
    world = Silent(run.seed)

    def make() -> LanguageSubject:
        subject = make_language_subject(run, QUESTIONS, right, rule)
        subject.policy.model.load_state_dict(weights)
        return subject

    run_loop(run, "tiny", make, world.surroundings(), folder)
    return world


def letters_config(recipe: str, seed: int, iterations: int = 5, **options: Any) -> Any:
    return config(
        recipe,
        seed,
        iterations=iterations,
        recipe=options,
        sampling={"prompts": 16, "responses": 12, "max_new_tokens": 3},
        evaluation={"prompts": 24},
    )


def ttrl(weights: Weights, folder: Path, seed: int) -> list[float]:
    """Gain in gold of each held-out question, by the majority of the model's own answers."""
    run = letters_config("ttrl", seed, extract="choice", learning_rate=5e-4)
    world = run_taught(run, folder / f"{seed}", weights)
    before, *_, after = [e["gold_by_prompt"] for e in world.of_kind("evaluation")]
    return [b - a for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize(("favourite", "sign"), [(truth, 1), (wrong_letter, -1)])
def test_ttrl_rises_without_labels_where_the_majority_is_right(favourite: Any, sign: int, tmp_path: Path) -> None:
    (gains,) = side_by_side((SEEDS, partial(ttrl, taught(favourite, 0.35), tmp_path)))
    gain = bootstrap([sign * g for g in chain.from_iterable(gains)])
    assert gain.low > 0, f"by the majority's side, gold rose by {gain}"


def no_e(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
    """1 for each of four letters: there are many ways to be right, so the entropy is free to go up or down."""
    return [float(choice(c.text) in set("ABCD")) for _, c in pairs]


def entropies(weights: Weights, target: float, folder: Path, seed: int) -> list[float]:
    """Entropy at each iteration's sampling, nats."""
    # Temperatures further apart than in the paper, which takes hundreds of steps.
    temperatures = {"high_temperature": 2.0, "low_temperature": 0.5, "tempered_alpha": 1.5}
    run = letters_config("aepo", seed, 8, entropy_target=target, learning_rate=5e-4, **temperatures)
    world = run_taught(run, folder / f"{seed}-{target}", weights, no_e)
    return [u["sampling_entropy"] for u in world.of_kind("update")]


def test_the_entropy_follows_the_target_of_aepo_up_and_down(tmp_path: Path) -> None:
    weights = taught(truth, 0.5)
    low, high = side_by_side(*((SEEDS, partial(entropies, weights, target, tmp_path)) for target in (0.4, 1.1)))
    # It swings around its target, so the mean of all iterations after the first counts.
    moved_down, moved_up = ([sum(e[1:]) / len(e[1:]) - e[0] for e in runs] for runs in (low, high))
    assert [e[0] for e in low] == [e[0] for e in high]
    assert max(moved_down) < -0.1, low
    assert min(moved_up) > 0.1, high
