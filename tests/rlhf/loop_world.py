"""A small world for the loop: the tiny model, a gold score that it can learn, and a simulated annotator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labeling.oracle import oracle_label
from labeling.preferences import expand_all
from labeling.records import Annotator, Candidate, LabeledSlate, Message, Prompt, Slate
from rlhf.language_subject import LanguageSubject, make_language_subject
from rlhf.online_loop import Surroundings, run_loop
from rlhf.run_config import RunConfig, parse_run

LETTERS = set("abcdefghijklmnopqrstuvwxyz")
ORACLE = Annotator("oracle:gold", "oracle")
PROMPTS = tuple(
    Prompt((Message("user", f"say {word} {n}"),), "heldout" if n % 3 == 0 else "train")
    for n, word in enumerate(["red", "blue", "green", "one", "two", "six"] * 8)
)


def gold(pairs: Sequence[tuple[Prompt, Candidate]]) -> list[float | None]:
    """Share of lower-case letters in the response."""
    return [sum(ch in LETTERS for ch in c.text) / max(1, len(c.text)) for _, c in pairs]


@dataclass
class World:
    """Surroundings in memory: an oracle that labels everything, and a record of what the loop did."""

    seed: int
    random_labels: bool = False
    flip: bool = False
    labeled: dict[str, LabeledSlate] = field(default_factory=dict)
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    fits: dict[int, list[str]] = field(default_factory=dict)

    def ask(self, iteration: int, slates: Sequence[Slate]) -> list[LabeledSlate]:
        for slate in slates:
            scores = [g or 0.0 for g in gold([(slate.prompt, c) for c in slate.candidates])]
            if self.flip:
                scores = [-s for s in scores]
            label = oracle_label(slate, scores, ORACLE, self.seed, 0.05, random_labels=self.random_labels)
            self.labeled[slate.id] = LabeledSlate(slate, (label,), expand_all([label], {ORACLE.id: ORACLE}))
        return list(self.labeled.values())

    def surroundings(self) -> Surroundings:
        return Surroundings(
            ask=self.ask,
            gold=gold,
            emit=lambda iteration, kind, data: self.events.append((iteration, kind, dict(data))),
            fitted=lambda iteration, keys: self.fits.__setitem__(iteration, list(keys)),
            annotator_kind=lambda _: "oracle",
            trust=lambda annotators: [{"annotator": name} for name in sorted(annotators)],
        )

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [data for _, k, data in self.events if k == kind]


def tiny_config(recipe: str, seed: int = 0, /, **changes: Any) -> RunConfig:
    """A run of seconds on the tiny model."""
    data: dict[str, Any] = {
        "name": "tiny",
        "seed": seed,
        "iterations": 5,
        "token_budget": 8192,
        "model": {"name": "tiny", "adaptation": "full"},
        "sampling": {"prompts": 16, "responses": 8, "max_new_tokens": 12},
        "labels": {"slates": 20, "candidates": [4], "heldout_share": 0.2, "oracle": {}},
        "reward_model": {
            "adaptation": "full",
            "replay": 1.0,
            "epochs": 4,
            "learning_rate": 1e-3,
            "head_learning_rate": 1e-2,
        },
        "recipe": {"name": recipe, "learning_rate": 1e-3},
        "evaluation": {"prompts": 16},
    }
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    return parse_run(data)


def run_tiny(config: RunConfig, folder: Path, world: World, resume: bool = False) -> LanguageSubject:
    """Run the loop; returns what learned."""
    made: list[LanguageSubject] = []

    def make() -> LanguageSubject:
        made.append(make_language_subject(config, PROMPTS, gold))
        return made[0]

    run_loop(config, config.model.name, make, world.surroundings(), folder, resume)
    return made[0]
