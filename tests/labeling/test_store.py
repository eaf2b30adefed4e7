"""The store keeps what it acknowledged, once, whoever else writes; and explains itself when it cannot."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from api_client import lease

from labeling.database import DATABASE
from labeling.migrations import taken_slates
from labeling.records import Annotator, Candidate, Label, Lineage, Message, Prompt, Slate, UserError
from labeling.store import Conflict, Store

PAIR, RANKING = (2, 2), (3, 9)


def slate(name: str, k: int = 2) -> Slate:
    texts = tuple(Candidate(f"{name} {n}", "sft", n > 0) for n in range(k))
    lineage = Lineage("run", 3, "disagreement", 0.25, "rm-2", tuple(float(n) for n in range(k)))
    return Slate(Prompt((Message("system", "Be kind."), Message("user", name)), "heldout", "talk"), texts, lineage)


def ranked(shown: Slate, key: str, *ranks: int, annotator: str = "human:ann", **more: object) -> Label:
    return Label(shown.id, annotator, "ranked", key, ranks=ranks, **more)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "project", create=True)
    for annotator in (Annotator("human:ann", "human"), Annotator("human:bob", "human"), Annotator("judge:j", "judge")):
        made.add_annotator(annotator)
    return made


def lease_to(store: Store, annotator: str, k: tuple[int, int] = PAIR, seconds: float = 60.0):
    return next(iter(store.leases(annotator, lambda n: tuple(reversed(range(n))), k, seconds)), None)


# What is written comes back, once


def test_a_slate_comes_back_as_it_was_and_counts_once(store):
    shown = slate("a", 4)
    assert [store.add_slates([shown, shown]), store.add_slates([shown])] == [1, 0]
    assert store.slates() == [shown]
    assert store.slate(shown.id) == shown
    assert store.slate("slate_0000000000000000") is None


def test_a_label_comes_back_as_it_was_and_its_key_counts_once(store):
    shown = slate("a")
    store.add_slates([shown])
    label = ranked(shown, "key-1", 2, 1, probability=0.25, strength=0.5, order=(1, 0), seconds=1.5, reason="short")
    assert [store.add_labels([label]), store.add_labels([label, label])] == [1, 0]
    assert store.labels() == [label]


def test_a_key_with_another_answer_is_a_conflict_and_nothing_of_its_batch_is_written(store):
    shown = slate("a")
    store.add_slates([shown])
    store.add_labels([ranked(shown, "key-1", 1, 2)])
    with pytest.raises(Conflict, match="'key-1' was already used for another answer"):
        store.add_labels([ranked(shown, "key-2", 1, 2, annotator="judge:j"), ranked(shown, "key-1", 2, 1)])
    assert [label.client_key for label in store.labels(history=True)] == ["key-1"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"slate_id": "slate_none"}, "there is no slate 'slate_none'"),
        ({"annotator": "human:nobody"}, "'human:nobody' is not known"),
        ({"ranks": (1, 2, 3)}, "ranks has 3 entries for a slate of 2"),
        ({"order": (2, 1, 0)}, "order has 3 entries for a slate of 2"),
        ({"supersedes": "never"}, "'never' is not a standing label"),
    ],
)
def test_a_label_that_fits_nothing_is_a_conflict(store, change, complaint):
    shown = slate("a")
    store.add_slates([shown])
    with pytest.raises(Conflict, match=complaint):
        store.add_labels([replace(ranked(shown, "key-1", 1, 2), **change)])
    assert store.labels(history=True) == []


def test_a_superseded_label_stays_in_the_history_and_can_be_superseded_once(store):
    shown = slate("a")
    store.add_slates([shown])
    first, second = ranked(shown, "first", 1, 2), ranked(shown, "second", 2, 1, supersedes="first")
    store.add_labels([first, second])
    assert (store.labels(), store.labels(history=True)) == ([second], [first, second])
    with pytest.raises(Conflict, match="'first' is not a standing label"):
        store.add_labels([ranked(shown, "third", 1, 1, supersedes="first")])
    with pytest.raises(Conflict, match="'second' is not a standing label of judge:j"):
        store.add_labels([ranked(shown, "fourth", 1, 1, annotator="judge:j", supersedes="second")])


def test_labeled_slates_carry_the_preferences_of_all_who_answered(store):
    shown, unanswered = slate("a"), slate("b")
    store.add_slates([shown, unanswered])
    store.add_annotator(Annotator("judge:j", "judge", weight=0.5))
    store.add_labels([ranked(shown, "1", 1, 2), ranked(shown, "2", 1, 1, annotator="judge:j")])
    (labeled,) = store.labeled_slates()
    assert (labeled.slate, [(p.p, p.weight) for p in labeled.preferences]) == (shown, [(1.0, 1.0), (0.5, 0.5)])


# Leases


def test_the_newest_slate_of_the_right_size_comes_first_and_a_reload_shows_it_again(store):
    store.add_slates([slate("old"), slate("new"), slate("ranking", 3)])
    first = lease_to(store, "human:ann")
    assert (first.slate_id, first.order) == (slate("new").id, (1, 0))
    again = lease(store, "human:ann")
    assert (again.slate_id, again.order) == (first.slate_id, (1, 0))
    assert lease_to(store, "human:ann", RANKING).slate_id == slate("ranking", 3).id


def test_two_people_do_not_hold_the_same_slate_unless_it_wants_two_answers(store):
    store.add_slates([slate("a")])
    assert lease_to(store, "human:ann") is not None
    assert lease_to(store, "human:bob") is None
    assert (store.waiting("human:ann", PAIR), store.waiting("human:bob", PAIR)) == (1, 0)
    store.set_settings({"overlap": "2"})
    assert lease_to(store, "human:bob") is not None


def test_a_judges_answer_does_not_take_a_slate_from_people(store):
    store.add_slates([slate("a")])
    store.add_labels([ranked(slate("a"), "1", 1, 2, annotator="judge:j")])
    assert lease_to(store, "human:ann") is not None


def test_a_lease_that_ran_out_goes_to_others_and_its_late_answer_is_still_understood(store):
    store.add_slates([slate("a")])
    lease_to(store, "human:ann", seconds=-1)
    assert lease_to(store, "human:bob").slate_id == slate("a").id
    late = store.answer_lease("key-late", slate("a").id, "human:ann", lambda order: _answer("key-late", order))
    assert (late, store.labels()[0].order) == (True, (1, 0))


def test_a_lease_that_is_given_again_keeps_its_order(store):
    """A page that was left open and a new one must mean the same by "left"."""
    store.add_slates([slate("a")])
    lease_to(store, "human:ann", seconds=-1)
    assert lease(store, "human:ann").order == (1, 0)


def test_a_slate_that_ran_out_and_is_given_again_waits_behind_what_is_held(store):
    store.add_slates([slate("old"), slate("new")])
    assert lease_to(store, "human:ann", seconds=-1).slate_id == slate("new").id
    assert lease_to(store, "human:bob", seconds=0.2).slate_id == slate("new").id
    assert lease_to(store, "human:ann").slate_id == slate("old").id
    time.sleep(0.25)  # now nobody holds the new one
    for _ in range(2):
        both = [lease(store, "human:ann", ahead=n).slate_id for n in (0, 1)]
        assert both == [slate("old").id, slate("new").id]


def _answer(key: str, order: tuple[int, ...]) -> Label:
    return ranked(slate("a"), key, 1, 2, order=order)


def test_one_lease_takes_one_answer(store):
    store.add_slates([slate("a")])
    lease_to(store, "human:ann")
    added = [store.answer_lease("key-1", slate("a").id, "human:ann", lambda o: _answer("key-1", o)) for _ in range(3)]
    assert added == [True, False, False]
    with pytest.raises(Conflict, match="is not open for you"):
        store.answer_lease("key-2", slate("a").id, "human:ann", lambda o: _answer("key-2", o))
    assert len(store.labels(history=True)) == 1


def test_take_back_undoes_the_last_answer_of_that_size_and_gives_the_slate_again(store):
    store.add_slates([slate("a"), slate("r", 3)])
    lease_to(store, "human:ann")
    store.answer_lease("key-1", slate("a").id, "human:ann", lambda o: _answer("key-1", o))
    store.add_labels([ranked(slate("r", 3), "key-r", 1, 2, 3)])
    assert [store.take_back("undo-1", "human:ann", PAIR, 60.0) for _ in range(2)] == [True, False]
    assert [label.client_key for label in store.labels()] == ["key-r"]
    assert [label.outcome for label in store.labels(history=True)] == ["ranked", "ranked", "undone"]
    assert lease(store, "human:ann").order == (1, 0)
    with pytest.raises(Conflict, match="nothing to take back"):
        store.take_back("undo-2", "human:ann", PAIR, 60.0)
    with pytest.raises(Conflict, match="nothing to take back"):
        store.take_back("undo-3", "human:bob", RANKING, 60.0)


# Several processes

WRITER = """
    import sys
    from labeling.records import Label
    from labeling.store import Store
    project, who = sys.argv[1:]
    store = Store(project)
    for slate in store.slates():
        store.add_labels([Label(slate.id, who, "ranked", f"{who} {slate.id}", ranks=(1, 2))])
        store.add_labels([Label(slate.id, "judge:j", "ranked", f"shared {slate.id}", ranks=(2, 1))])
"""


def test_two_processes_that_write_at_once_lose_and_double_nothing(store):
    slates = [slate(f"s{n}") for n in range(150)]
    store.add_slates(slates)
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(store.project)]
    writers = [
        subprocess.Popen([*command, who], stderr=subprocess.PIPE, text=True) for who in ("human:ann", "human:bob")
    ]
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert errors == ["", ""]
    assert store.counts() == {"human:ann": 150, "human:bob": 150, "judge:j": 150}


OPENER = "import sys, time; time.sleep(max(0, float(sys.argv[2]) - time.time()));"
OPENER += "from labeling.store import Store; print(len(Store(sys.argv[1], create=True).prompts()))"


def test_processes_that_create_the_same_project_at_once_agree(tmp_path):
    start = str(time.time() + 0.5)
    command = [sys.executable, "-c", OPENER, str(tmp_path / "p"), start]
    openers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [opener.communicate(timeout=60) for opener in openers] == [("0\n", "")] * 3


# What can go wrong with the file


def test_a_folder_without_a_project_is_not_made_into_one(tmp_path):
    with pytest.raises(UserError, match="holds no Prefloop project"):
        Store(tmp_path / "typo")
    assert not (tmp_path / "typo").exists()


def test_what_one_skip_closed_in_an_older_project_is_open_again_and_nothing_else_is(store):
    for n in range(3):
        store.add_annotator(Annotator(f"human:{n}", "human"))
    for name, skips in (("one skip", 1), ("three skips", 3), ("answered", 0)):
        store.add_slates([slate(name)])
        people = [f"human:{n}" for n in range(skips)]
        store.add_labels([Label(slate(name).id, who, "skip", f"{name}-{who}") for who in people])
    store.add_labels([ranked(slate("answered"), "key-answered", 1, 2)])
    with store.writing() as db:
        db.execute("UPDATE slate SET closed = 1")
        db.execute("ALTER TABLE slate DROP COLUMN taken_until")
        taken_slates(db)
    assert [row["closed"] for row in store.rows("SELECT closed FROM slate ORDER BY seq")] == [0, 1, 1]


def test_a_database_from_a_newer_version_is_left_alone(store):
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = store.path.read_bytes()
    with pytest.raises(UserError, match=r"newer Prefloop \(its version 99.*pip install --upgrade"):
        Store(store.project)
    assert store.path.read_bytes() == before


def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path):
    (tmp_path / DATABASE).write_text("my shopping list " * 100)
    with pytest.raises(UserError, match=f"{DATABASE} is not a Prefloop database") as refused:
        Store(tmp_path)
    assert "\n" not in str(refused.value)
    assert (tmp_path / DATABASE).read_text().startswith("my shopping list")


def test_a_full_disk_is_one_line_and_half_a_batch_is_not_there(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        store = Store(small, create=True)
        store.add_slates([slate("fits")])
        with pytest.raises(UserError, match="free some space") as refused:
            store.add_slates(slate(f"{n} " + "x" * 5000) for n in range(200))
        assert "\n" not in str(refused.value)
        assert Store(small).slates() == [slate("fits")]
        assert store.add_slates([slate("fits too")]) == 1  # the failed batch gave its room back
    finally:
        store.__dict__.clear()  # the connection keeps the disk busy
        subprocess.run(["umount", "-l", str(small)], check=True)
