"""Who is given what: overlap, heartbeat, staleness, items with a known answer and mirrored repeats, under races."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from api_client import lease as lease_of

from labeling.assignment import kind_of_next
from labeling.records import Annotator, Candidate, Label, Lineage, Message, Outcome, Prompt, Slate
from labeling.settings import Settings
from labeling.store import Conflict, Lease, Store
from labeling.stored_leases import MOST_COUNTED

PAIR = (2, 2)
KEYS = (f"key-{n}" for n in count())


def slate(name: str, run: str = "", iteration: int = 0) -> Slate:
    return Slate(
        Prompt((Message("user", name),)), (Candidate(f"{name} 0"), Candidate(f"{name} 1")), Lineage(run, iteration)
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "project", create=True)
    for name in ("ann", "bob", "cid"):
        made.add_annotator(Annotator(f"human:{name}", "human"))
    return made


def give(store: Store, who: str = "human:ann", seconds: float = 60.0, ahead: int = 0) -> Lease | None:
    return lease_of(store, who, PAIR, seconds, ahead)


def answer(store: Store, lease: Lease, who: str = "human:ann") -> Label:
    key = next(KEYS)
    store.answer_lease(key, lease.slate_id, who, lambda o: Label(lease.slate_id, who, "ranked", key, (1, 2), order=o))
    return next(label for label in store.labels(history=True) if label.client_key == key)


def work(store: Store, answers: int, who: str = "human:ann") -> list[Lease]:
    """Answer so many slates, as the page does: the next one is leased before the current one is answered."""
    done = []
    for _ in range(answers):
        lease = give(store, who)
        give(store, who, ahead=1)
        assert lease is not None
        answer(store, lease, who)
        done.append(lease)
    return done


# Overlap, heartbeat, staleness


def test_what_waits_is_counted_only_so_far(store: Store) -> None:
    store.add_slates([slate(f"{n}") for n in range(MOST_COUNTED + 5)])
    assert store.waiting("human:ann", PAIR) == MOST_COUNTED


def test_what_has_its_answers_is_closed_and_opens_again(store: Store) -> None:
    store.add_slates([slate("only")])
    answer(store, give(store))
    assert [row["closed"] for row in store.rows("SELECT closed FROM slate")] == [1]
    assert give(store, "human:bob") is None
    store.take_back("undo-key-1", "human:ann", PAIR, seconds=-1)
    assert give(store, "human:bob") is not None


def test_what_somebody_skips_is_given_to_others_until_several_have_skipped_it(store: Store) -> None:
    store.add_slates([slate("hard")])
    people = [f"human:{n}" for n in range(4)]
    for who in people[:3]:
        store.add_annotator(Annotator(who, "human"))
        lease = give(store, who)
        assert lease is not None
        key = next(KEYS)
        store.add_labels([Label(lease.slate_id, who, "skip", key, order=lease.order)])
        assert give(store, who) is None
    store.add_annotator(Annotator(people[3], "human"))
    assert give(store, people[3]) is None


@pytest.mark.parametrize("answered", [False, True])
def test_a_skip_is_taken_back_only_while_others_leave_room(store: Store, answered: bool) -> None:
    store.add_slates([slate("hard")])

    def skip() -> str:
        lease = give(store)
        assert lease is not None
        store.add_labels([Label(lease.slate_id, "human:ann", "skip", key := next(KEYS), order=lease.order)])
        return key

    skip()
    assert store.take_back("undo-key-1", "human:ann", PAIR, 60.0)
    key = skip()
    lease = give(store, "human:bob")
    assert lease is not None
    if answered:
        answer(store, lease, "human:bob")
    with pytest.raises(Conflict, match="went to others"):
        store.take_back("undo-key-2", "human:ann", PAIR, 60.0)

    def instead(outcome: Outcome) -> Callable[[Label], Label]:
        return lambda old: Label(old.slate_id, "human:ann", outcome, f"instead-{outcome}", order=old.order, reason="x")

    with pytest.raises(Conflict, match="went to others"):
        store.revise("instead-both_bad", key, "human:ann", instead("both_bad"))
    assert store.revise("instead-skip", key, "human:ann", instead("skip"))  # another reason is no answer
    store.set_settings({"overlap": "2"})
    assert store.take_back("undo-key-3", "human:ann", PAIR, 60.0)
    assert give(store, "human:cid") is None


def test_a_slate_is_given_to_as_many_people_as_the_setting_says_and_to_nobody_twice(store: Store) -> None:
    store.set_settings({"overlap": "2"})
    store.add_slates([slate("a")])
    for who in ("human:ann", "human:bob"):
        lease = give(store, who)
        assert lease is not None
        answer(store, lease, who)
        assert give(store, who) is None
    assert give(store, "human:cid") is None
    store.set_settings({"overlap": "3"})
    assert give(store, "human:cid") is not None


def test_a_heartbeat_keeps_what_is_held_and_revives_nothing(store: Store) -> None:
    store.add_slates([slate("a")])
    give(store, seconds=0.3)
    assert store.extend_leases("human:ann", 60.0) == 1
    held = store.rows("SELECT expires FROM lease")[0]["expires"]
    assert give(store, "human:bob") is None
    assert store.extend_leases("human:ann", 1.0) == 1
    assert store.rows("SELECT expires FROM lease")[0]["expires"] == held  # it never shortens
    with store.writing() as db:
        db.execute("UPDATE lease SET expires = 0")
        db.execute("UPDATE slate SET taken_until = 0")
    assert store.extend_leases("human:ann", 60.0) == 0
    assert give(store, "human:bob") is not None


def test_slates_of_policies_long_gone_are_given_to_nobody(store: Store) -> None:
    store.add_slates([slate("old", "r", 1), slate("other", "s", 1), slate("imported")])
    store.add_slates([slate("new", "r", 4)])
    assert store.waiting("human:ann", PAIR) == 4
    store.set_settings({"stale_iterations": "2"})
    assert store.waiting("human:ann", PAIR) == 3
    wanted = (slate("other", "s", 1), slate("imported"), slate("new", "r", 4))
    assert {lease.slate_id for lease in work(store, 3)} == {one.id for one in wanted}
    assert give(store) is None
    store.set_settings({"stale_iterations": "3"})  # three iterations older is not more than three
    last = give(store)
    assert last is not None
    assert last.slate_id == slate("old", "r", 1).id


# Checks


def test_items_with_a_known_answer_come_at_their_rate_and_each_once(store: Store) -> None:
    store.set_settings({"gold_rate": "0.2"})
    store.add_slates([slate(f"s{n}") for n in range(150)])
    gold = [slate(f"g{n}") for n in range(60)]
    store.add_slates(gold)
    for item in gold:
        store.add_gold(item.id, (1, 2))
    given = Counter(lease.slate_id for lease in work(store, 140))
    assert max(given.values()) == 1
    seen = sum(given[item.id] for item in gold)
    # 140 draws at 0.2: mean 28, sd 4.7; which ones is fixed by the person's name.
    assert seen == sum(kind_of_next("human:ann", n, store.settings()) == "gold" for n in range(140))
    assert 14 <= seen <= 42
    assert {s.slate.id for s in store.labeled_slates()}.isdisjoint(item.id for item in gold)
    assert len(store.labeled_slates()) == 140 - seen


def test_gold_items_alone_are_given_at_their_rate_and_never_as_ordinary_slates(store: Store) -> None:
    store.add_slates([slate("g")])
    store.add_gold(slate("g").id, (1, 2))
    assert (give(store), store.waiting("human:ann", PAIR)) == (None, 0)


def test_repeats_are_mirrored_come_late_once_and_teach_nothing(store: Store) -> None:
    store.set_settings({"repeat_rate": "0.3"})
    store.add_slates([slate(f"s{n}") for n in range(80)])
    done = work(store, 100)
    first: dict[str, int] = {}
    repeats = 0
    for place, lease in enumerate(done):
        if lease.purpose == "repeat":
            repeats += 1
            assert place - first[lease.slate_id] > 10
            assert lease.order == (1, 0)  # it was (0, 1) at first
        else:
            assert lease.slate_id not in first
            first[lease.slate_id] = place
    assert max(Counter(lease.slate_id for lease in done).values()) == 2
    assert 15 <= repeats <= 41  # 89 draws at 0.3: mean 27, sd 4.3
    assert len(store.labels()) == 100 - repeats
    assert store.counts() == {"human:ann": 100}
    assert sum(len(s.labels) for s in store.labeled_slates()) == 100 - repeats


def test_a_repeat_that_is_taken_back_is_a_repeat_again(store: Store) -> None:
    store.set_settings({"repeat_rate": "0.5"})
    store.add_slates([slate(f"s{n}") for n in range(40)])
    lease = next(lease for lease in (work(store, 1)[0] for _ in range(40)) if lease.purpose == "repeat")
    assert store.take_back("undo-1", "human:ann", PAIR, 60.0)
    again = give(store)
    assert again is not None
    assert (again.slate_id, again.order, again.purpose) == (lease.slate_id, lease.order, "repeat")
    assert answer(store, again).purpose == "repeat"


def test_what_can_no_longer_be_changed_cannot_be_taken_back(store: Store) -> None:
    store.add_slates([slate(f"s{n}") for n in range(14)])
    done = work(store, 12)
    for n in range(10):
        assert store.recent("human:ann")
        assert store.take_back(f"undo-{n}", "human:ann", PAIR, 60.0)
    assert store.recent("human:ann") == []
    with pytest.raises(Conflict, match="your last 10 answers alone"):
        store.take_back("undo-10", "human:ann", PAIR, 60.0)
    assert {label.slate_id for label in store.labels()} == {lease.slate_id for lease in done[:2]}


def test_the_draw_hangs_on_person_and_place_alone_and_keeps_its_rates() -> None:
    settings = Settings(gold_rate=0.1, repeat_rate=0.2)
    drawn = [kind_of_next("human:ann", n, settings) for n in range(4000)]
    assert drawn == [kind_of_next("human:ann", n, settings) for n in range(4000)]
    assert drawn != [kind_of_next("human:bob", n, settings) for n in range(4000)]
    kinds = Counter(drawn)
    # Four standard deviations of a share of 4000: 0.019 and 0.025.
    assert kinds["gold"] / 4000 == pytest.approx(0.1, abs=0.019)
    assert kinds["repeat"] / 4000 == pytest.approx(0.2, abs=0.026)


LABELER = """
    import sys
    from labeling.records import Label
    from labeling.store import Store
    project, who = sys.argv[1:]
    store = Store(project)
    n = 0
    while leases := store.leases(who, range, (2, 2), 60.0):
        lease = leases[0]
        key, n = f"{who}-{n}", n + 1
        store.answer_lease(key, lease.slate_id, who,
                           lambda o: Label(lease.slate_id, who, "ranked", key, (1, 2), order=o))
"""


def test_people_who_label_at_once_get_exactly_the_overlap(store: Store) -> None:
    store.set_settings({"overlap": "2", "gold_rate": "0.2", "repeat_rate": "0.2"})
    plain, gold = [slate(f"s{n}") for n in range(40)], [slate(f"g{n}") for n in range(5)]
    store.add_slates([*gold, *plain])
    for item in gold:
        store.add_gold(item.id, (1, 2))
    command = [sys.executable, "-c", textwrap.dedent(LABELER), str(store.project)]
    people = [
        subprocess.Popen([*command, f"human:{name}"], stderr=subprocess.PIPE, text=True)
        for name in ("ann", "bob", "cid")
    ]
    assert [person.communicate(timeout=120)[1] for person in people] == [""] * 3
    labels = store.labels()
    each = Counter(label.slate_id for label in labels)
    assert [each[s.id] for s in plain] == [2] * 40
    assert max(Counter((label.slate_id, label.annotator) for label in labels).values()) == 1


def test_a_program_that_holds_a_slate_takes_nobodys_place(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    store.add_annotator(Annotator("script:bot", "judge"))
    store.add_annotator(Annotator("human:ann", "human"))
    store.add_slates([Slate(Prompt((Message("user", "q"),)), (Candidate("a"), Candidate("b")))])
    held = lease_of(store, "script:bot")
    assert held is not None
    assert lease_of(store, "human:ann") is not None


# Slates held ahead


def ids(leases: list[Lease]) -> list[str]:
    return [lease.slate_id for lease in leases]


def test_what_is_held_ahead_keeps_its_turn_and_is_filled_up_when_a_third_is_gone(store: Store) -> None:
    store.add_slates([slate(f"s{n}") for n in range(40)])
    first = store.leases("human:ann", range, PAIR, 60.0, ahead=5)
    assert ids(first) == [slate(f"s{n}").id for n in range(39, 33, -1)]
    for n, new in enumerate(([], ["s33", "s32"]), start=1):
        answer(store, first[n - 1])
        held = ids(store.leases("human:ann", range, PAIR, 60.0, ahead=5))
        assert held == [*ids(first[n:]), *(slate(name).id for name in new)]
    assert ids(store.leases("human:ann", range, PAIR, 60.0)) == ids(first[2:3])


def test_what_a_crowd_holds_is_passed_by_and_a_dozen_is_hardly_more_work_than_one(store: Store) -> None:
    store.add_slates([slate(f"s{n}") for n in range(900)])
    crowd = [f"human:{n}" for n in range(30)]
    for person in crowd:
        store.add_annotator(Annotator(person, "human"))
        store.leases(person, range, PAIR, 60.0, ahead=12)

    def steps(ahead: int, forgotten: str) -> int:
        """Of SQLite's virtual machine, in thousands: of its work, and not of a clock."""
        taken: list[None] = []
        store.db.execute(f"UPDATE slate SET taken_until = 0 WHERE {forgotten}")
        store.db.conn.set_progress_handler(lambda: taken.append(None), 1000)
        assert len(store.leases("human:ann", range, PAIR, 60.0, ahead)) == 1 + ahead
        store.db.conn.set_progress_handler(None, 0)
        store.db.execute("DELETE FROM lease WHERE annotator = 'human:ann'")
        return len(taken)

    # In this order: what is forgotten stays so.
    passed_by = steps(12, "id NOT IN (SELECT slate_id FROM lease)")
    dozen, one = steps(12, "1"), steps(0, "1")
    assert 2 * passed_by < dozen < 2 * one


def test_who_is_held_off_by_others_is_so_no_longer_than_they_are(store: Store) -> None:
    store.add_slates([slate("a")])
    give(store)
    assert give(store, "human:bob") is None
    store.set_settings({"overlap": "2"})
    assert give(store, "human:bob", seconds=0.2) is not None
    assert give(store, "human:cid") is None
    time.sleep(0.25)
    assert give(store, "human:cid") is not None  # while ann still holds it
    assert give(store, "human:bob") is None
    store.revoke("human:ann", "at random", "owner")
    assert give(store, "human:bob") is not None


def test_of_few_slates_nobody_holds_more_than_a_share(store: Store) -> None:
    store.add_slates([slate(f"s{n}") for n in range(20)])
    held = [len(store.leases(f"human:{who}", range, PAIR, 60.0, ahead=12)) for who in ("ann", "bob", "cid")]
    # Of 20 one may hold 4 ahead; of the 15 that are left then 3, of 11 then 2.
    assert held == [5, 4, 3]
    assert len(store.leases("human:ann", range, PAIR, 60.0, ahead=12)) == 5  # asking again makes it no more


def test_what_nobody_has_seen_goes_to_others_sooner(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_slates([slate(f"s{n}") for n in range(2)])
    monkeypatch.setattr("labeling.stored_leases.AHEAD_SECONDS", 0.1)
    seen, unseen = ids(store.leases("human:ann", range, PAIR, 60.0, ahead=12))
    assert give(store, "human:bob") is None
    time.sleep(0.15)
    given = give(store, "human:bob")
    assert given is not None
    assert given.slate_id == unseen
    key = next(KEYS)  # and whoever had it while the connection was lost is heard all the same
    assert store.answer_lease(key, unseen, "human:ann", lambda o: Label(unseen, "human:ann", "skip", key, order=o))
    assert ids(store.leases("human:ann", range, PAIR, 60.0)) == [seen]


def test_what_is_ahead_is_renewed_when_a_third_of_its_time_is_gone(store: Store) -> None:
    store.add_slates([slate(f"s{n}") for n in range(20)])

    def expires() -> list[float]:
        return [row["expires"] for row in store.rows("SELECT expires FROM lease ORDER BY turn")]

    store.leases("human:ann", range, PAIR, 60.0, ahead=2)
    first = expires()
    store.extend_leases("human:ann", 60.0)
    assert expires()[0] > first[0]
    assert expires()[1:] == first[1:]
    store.db.execute("UPDATE lease SET expires = expires - 30")
    store.extend_leases("human:ann", 60.0)
    assert all(now > before for now, before in zip(expires(), first, strict=True))


def test_a_heartbeat_keeps_what_is_ahead_for_its_shorter_time(store: Store) -> None:
    store.add_slates([slate(f"s{n}") for n in range(10)])
    store.leases("human:ann", range, PAIR, 1.0, ahead=2)
    assert store.extend_leases("human:ann", 900.0) == 3
    left = [row["expires"] - time.time() for row in store.rows("SELECT expires FROM lease ORDER BY turn")]
    assert left == pytest.approx([900, 180, 180], abs=5)
