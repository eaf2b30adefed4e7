"""Labels that no longer stand lose all influence at the next refit, and the run says what that changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from control_world import ControlWorld, Here
from loop_world import ORACLE, PROMPTS, World, gold, run_tiny, tiny_config

from labeling.oracle import oracle_label
from labeling.preferences import expand_all
from labeling.records import Annotator, Label, LabeledSlate, Slate
from rlhf.control.control_config import parse_control
from rlhf.control.control_subject import make_control_subject
from rlhf.language_subject import LanguageSubject, make_language_subject
from rlhf.online_loop import changed_pairs

LIAR = Annotator("oracle:liar", "oracle")
SMALL = {
    "sampling": {"prompts": 8, "responses": 6, "max_new_tokens": 8},
    "labels": {"slates": 10},
    "evaluation": {"prompts": 4},
}


@dataclass
class Lying(World):
    """Two annotators, one of whom says the opposite and is revoked before the last iteration."""

    last: int = 3
    lies: set[str] = field(default_factory=set)

    def ask(self, iteration: int, slates: Sequence[Slate]) -> list[LabeledSlate]:
        super().ask(iteration, slates)
        for slate in slates:
            scores = [-(g or 0.0) for g in gold([(slate.prompt, c) for c in slate.candidates])]
            lie = oracle_label(slate, scores, LIAR, self.seed, 0.05)
            self.lies.add(lie.client_key)
            self.labeled[slate.id] = _with(self.labeled[slate.id], lie)
        if iteration == self.last:
            for name, labeled in self.labeled.items():
                kept = tuple(label for label in labeled.labels if label.annotator != LIAR.id)
                self.labeled[name] = replace(labeled, labels=kept, preferences=expand_all(kept, {ORACLE.id: ORACLE}))
        return list(self.labeled.values())


def _with(labeled: LabeledSlate, lie: Label) -> LabeledSlate:
    labels = (*labeled.labels, lie)
    return replace(labeled, labels=labels, preferences=expand_all(labels, {ORACLE.id: ORACLE, LIAR.id: LIAR}))


@pytest.mark.parametrize("adaptation", ["full", "head"])
def test_the_loop_refits_without_them_and_says_so(
    adaptation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, begun = Lying(0), []
    begin = LanguageSubject.begin_fit

    def spy(self: LanguageSubject, iteration: int, chosen: Any, afresh: bool, progress: Any) -> Any:
        begun.append(afresh)
        return begin(self, iteration, chosen, afresh, progress)

    monkeypatch.setattr(LanguageSubject, "begin_fit", spy)
    config = tiny_config("grpo", iterations=3, **SMALL | {"reward_model": {"adaptation": adaptation}})
    run_tiny(config, tmp_path, world)
    assert begun == [False, False, True]
    *before, last = world.of_kind("fit")
    assert all("withdrawn_labels" not in fit for fit in before)
    lies = world.lies & {key for keys in list(world.fits.values())[:2] for key in keys}
    assert lies
    assert last["withdrawn_labels"] == len(lies)
    assert not world.lies & set(world.fits[3])
    # All that stands is fitted, not the new ones and a replay.
    train = [s for s in world.labeled.values() if s.slate.prompt.split == "train"]
    assert last["slates"] == len(train)
    assert last["changed_pairs"] > 0
    assert last["heldout_accuracy"] >= last["heldout_accuracy_before"]


def test_nothing_of_the_fits_before_is_left_in_a_language_models_reward(tmp_path: Path) -> None:
    world = Lying(0, last=9)
    config = tiny_config("grpo", iterations=1, **SMALL)
    subject = run_tiny(config, tmp_path, world)  # has learned from lies
    kept = [replace(s, preferences=expand_all(s.labels[:1], {ORACLE.id: ORACLE})) for s in world.labeled.values()]
    untouched = make_language_subject(config, PROMPTS, gold)
    untouched.references = subject.references
    for each, afresh in ((subject, True), (untouched, False)):
        each.begin_fit(5, kept, afresh, lambda done, total: None)()
    assert subject.predict(kept) == untouched.predict(kept)
    for name, weight in untouched.reward_model.state_dict().items():
        assert torch.equal(weight, subject.reward_model.state_dict()[name]), name


def test_nothing_of_the_fits_before_is_left_in_an_agents_reward() -> None:
    config = parse_control(
        {
            "question": "Which is better?",
            "environment": {"id": "Pendulum-v1", "max_steps": 100},
            "labels": {"total": 20, "humans": False, "oracle": {}},
            "reward_model": {"first_updates": 20, "updates": 20},
            "agent": {"steps": 512, "parallel": 2, "options": {"n_steps": 256}},
        }
    )
    subjects = []
    for lies in (True, False):
        world = ControlWorld(0)
        subject = make_control_subject(config, world, Here())
        subject.sample(1, 20, 0, lambda name, note: _Silent())
        slates = subject.slates(1, 20, 0, "")
        labeled = world.ask(1, slates)
        if lies:
            flipped = [replace(s, preferences=tuple(replace(p, p=1 - p.p) for p in s.preferences)) for s in labeled]
            subject.begin_fit(1, flipped, False, lambda done, total: None)()
        subject.begin_fit(2, labeled, lies, lambda done, total: None)()
        if not lies:  # the same number of updates as a first fit has
            assert config.reward_model.first_updates == config.reward_model.updates
        subjects.append((subject, labeled))
        subject.close()
    (one, labeled), (other, _) = subjects
    assert one.predict(labeled) == other.predict(labeled)
    assert one.decay == other.decay


class _Silent:
    def __enter__(self):
        return lambda done, total: None

    def __exit__(self, *_: object) -> None:
        pass


def test_changed_pairs_by_hand() -> None:
    # Of three pairs of the first slate two change their order; that of the second does not.
    assert changed_pairs([(3.0, 2.0, 1.0), (0.0, 1.0)], [(1.0, 2.0, 1.5), (0.0, 5.0)]) == 2 / 4
