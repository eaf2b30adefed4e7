"""Items with a known answer come from files of labelled slates; they measure people and never teach."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labeling.exchange import add_gold, export_file, import_file, read_file
from labeling.records import Annotator, Label, UserError
from labeling.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def lines_of(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


PAIRS = (
    {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."},
    {"prompt": "Cake?", "chosen": "Oh.", "rejected": "Eh."},
)


def test_chosen_is_the_known_answer_and_a_second_import_adds_nothing(store: Store, tmp_path: Path) -> None:
    path = lines_of(tmp_path / "gold.jsonl", *PAIRS)
    report = add_gold(store, read_file(path))
    assert str(report) == ("2 lines read: 2 prompts, 2 slates and 0 labels are new, and 2 slates have a known answer")
    again = add_gold(store, read_file(path))
    assert (again.prompts_new, again.slates_new, again.gold_new) == (0, 0, 0)
    winners = {slate.candidates[store.gold()[slate.id].index(1)].text for slate in store.slates()}
    assert winners == {"Yes.", "Oh."}
    assert (store.labels(history=True), {p.split for p in store.prompts()}) == ([], {"heldout"})


def test_an_answer_on_such_an_item_is_kept_and_teaches_nothing(store: Store, tmp_path: Path) -> None:
    add_gold(store, read_file(lines_of(tmp_path / "gold.jsonl", PAIRS[0])))
    (item,) = store.slates()
    store.add_annotator(Annotator("human:ann", "human"))
    store.add_labels([Label(item.id, "human:ann", "ranked", "key", (1, 2))])
    assert (len(store.labels()), store.labeled_slates()) == (1, [])
    assert export_file(store, tmp_path / "out.jsonl", "pairs").lines == 0


def test_what_teaches_cannot_become_a_known_answer_and_the_file_is_refused_whole(store: Store, tmp_path: Path) -> None:
    import_file(store, lines_of(tmp_path / "plain.jsonl", PAIRS[0]))
    with pytest.raises(UserError, match=r"gold.jsonl:2: the slate slate_\w+ teaches already"):
        add_gold(store, read_file(lines_of(tmp_path / "gold.jsonl", PAIRS[1], PAIRS[0])))
    assert (store.gold(), len(store.slates())) == ({}, 1)


def test_two_known_answers_for_one_slate_and_lines_without_an_answer_are_named(store: Store, tmp_path: Path) -> None:
    turned = {"prompt": "Tea?", "chosen": "No.", "rejected": "Yes."}
    with pytest.raises(UserError, match=r"two.jsonl:2: .*another known answer already"):
        add_gold(store, read_file(lines_of(tmp_path / "two.jsonl", PAIRS[0], turned)))
    with pytest.raises(UserError, match=r"none.jsonl:1: --gold: this line holds no ranked answer"):
        add_gold(store, read_file(lines_of(tmp_path / "none.jsonl", {"prompt": "Tea?"})))
    assert store.gold() == {}


def labelled(*answers: dict[str, Any]) -> dict[str, Any]:
    said = [{"annotator": {"id": "ann", "kind": "human"}, "outcome": "ranked", **answer} for answer in answers]
    return {"prompt": "Tea?", "candidates": [{"text": text} for text in ("Yes.", "No.", "Later.")], "labels": said}


def test_a_known_answer_ranks_the_candidates_that_there_are(store: Store, tmp_path: Path) -> None:
    line = labelled({"client_key": "four", "ranks": [1, 2, 3, 4]})
    with pytest.raises(UserError, match=r"gold.jsonl:1: the known answer .1, 2, 3, 4. does not fit: give 3 ranks"):
        add_gold(store, read_file(lines_of(tmp_path / "gold.jsonl", line)))
    assert store.gold() == {}


def test_what_was_taken_back_or_leaves_candidates_out_is_no_known_answer(store: Store, tmp_path: Path) -> None:
    line = labelled(
        {"client_key": "good", "ranks": [2, 1, 3]},
        {"client_key": "part", "ranks": [2, 1, 2], "unranked": [0, 2]},
        {"client_key": "gone", "ranks": [1, 2, 3]},
        {"client_key": "undo", "outcome": "undone", "supersedes": "gone"},
    )
    add_gold(store, read_file(lines_of(tmp_path / "gold.jsonl", line)))
    assert list(store.gold().values()) == [(2, 1, 3)]
