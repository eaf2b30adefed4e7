"""The counter that people see tells nobody which of their slates are checks."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from labeling.records import Annotator, Candidate, Label, Message, Prompt, Slate
from labeling.store import Store
from labeling.stored_leases import COUNTED_BY

PAIR = (2, 2)
KEYS = (f"key-{n}" for n in count())


def slate(name: str) -> Slate:
    return Slate(Prompt((Message("user", name),)), (Candidate(f"{name} 0"), Candidate(f"{name} 1")))


def answered(store: Store, who: str, slate_id: str) -> None:
    key = next(KEYS)
    store.answer_lease(key, slate_id, who, lambda order: Label(slate_id, who, "ranked", key, (1, 2), order=order))


@pytest.mark.parametrize("ahead", [0, 1])
def test_who_watches_the_counter_finds_no_checks(tmp_path: Path, ahead: int) -> None:
    store, who = Store(tmp_path / "project", create=True), "human:ann"
    store.add_annotator(Annotator(who, "human"))
    slates = [slate(f"{n}") for n in range(140)]
    store.add_slates(slates)
    known = {s.id for s in slates[:60]}
    for slate_id in known:
        store.add_gold(slate_id, (1, 2))
    store.set_settings({"gold_rate": "0.3", "repeat_rate": "0.2"})
    told, checks = [], []
    while leases := store.leases(who, lambda k: tuple(range(k)), PAIR, 60, ahead):
        told.append(store.waiting(who, PAIR))
        now = leases[0]
        checks.append(now.slate_id in known or now.purpose == "repeat")
        answered(store, who, now.slate_id)
    assert sum(checks) > 40
    assert store.waiting(who, PAIR) == 0
    # A guess of each slate from how the number moved as it came, and from how it moved as it was answered. Whoever
    # calls nothing a check is right as often as there are none, and no better guess can be made of either.
    moves = [before - after for before, after in zip(told, [*told[1:], 0], strict=True)]
    for shift in (-1, 0, 1):
        pairs = [(moves[n + shift], check) for n, check in enumerate(checks) if 0 <= n + shift < len(moves)]
        by_move = {move: [check for m, check in pairs if m == move] for move, _ in pairs}
        right = sum(max(sum(found), len(found) - sum(found)) for found in by_move.values())
        chance = max(sum(c for _, c in pairs), sum(not c for _, c in pairs))
        assert right - chance <= len(pairs) / COUNTED_BY / 2


def test_without_checks_the_counter_is_exact(tmp_path: Path) -> None:
    store = Store(tmp_path / "project", create=True)
    store.add_annotator(Annotator("human:ann", "human"))
    store.add_slates([slate(f"{n}") for n in range(13)])
    assert store.waiting("human:ann", PAIR) == 13
    store.set_settings({"gold_rate": "0.1"})
    assert store.waiting("human:ann", PAIR) == 20
