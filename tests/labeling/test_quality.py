"""The quality of people's work in a project: what is measured, revoking, deciding, and what it does to training."""

from __future__ import annotations

import csv
import io
import math
from itertools import count
from pathlib import Path

import pytest
from api_client import client_of, lease

from labeling.leaderboard import leaderboard
from labeling.quality import Share, disputed_slates
from labeling.quality_tables import Table, as_csv, as_text
from labeling.records import Annotator, Candidate, Label, LabeledSlate, Message, Preference, Prompt, Slate, UserError
from labeling.store import Store

KEYS = (f"quality-key-{n}" for n in count())
PAIR = (2, 2)


def slate(name: str, k: int = 2, policies: tuple[str, ...] = ()) -> Slate:
    named = policies or ("",) * k
    return Slate(Prompt((Message("user", name),)), tuple(Candidate(f"{name} {n}", p) for n, p in enumerate(named)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "project", create=True)
    for name in ("ann", "bob", "cid"):
        made.add_annotator(Annotator(f"human:{name}", "human"))
    made.add_annotator(Annotator("judge:j", "judge", flip_rate=0.3))
    return made


def say(store: Store, who: str, slate: Slate, ranks: tuple[int, ...], **more: object) -> Label:
    label = Label(slate.id, who, "ranked", next(KEYS), ranks, **more)  # type: ignore[arg-type]
    store.add_slates([slate])
    store.add_labels([label])
    return label


def of(store: Store, who: str):
    return next(q for q in store.quality().annotators if q.annotator.id == who)


# What is measured


def test_known_answers_repeats_places_and_time(store: Store) -> None:
    gold = slate("gold", 3)
    store.add_slates([gold])
    store.add_gold(gold.id, (1, 2, 2))
    # Of the gold pairs, (0, 1) and (0, 2) are decided; Ann gets the first right and the second wrong.
    say(store, "human:ann", gold, (2, 3, 1), order=(0, 1, 2), seconds=4.0)
    first, second = slate("one"), slate("two")
    say(store, "human:ann", first, (1, 2), order=(0, 1), seconds=10.0)
    say(store, "human:ann", second, (1, 2), order=(1, 0), seconds=30.0)
    say(store, "human:ann", first, (1, 2), order=(1, 0), purpose="repeat")
    say(store, "human:ann", second, (2, 1), order=(0, 1), purpose="repeat")
    ann = of(store, "human:ann")
    assert ann.gold == Share(1, 2)
    assert ann.repeats == Share(1, 2)
    # First places: gold shows 0, 1, 2: 0 ≻ 1 (first), 2 ≻ 0 and 2 ≻ 1 (second). Then first, second, second, second.
    assert ann.first_place == Share(2, 7)
    assert (ann.labels, ann.ranked, ann.seconds) == (3, 3, 10.0)


def test_agreement_is_with_people_and_not_with_judges(store: Store) -> None:
    shared = slate("shared")
    for who, ranks in (("human:ann", (1, 2)), ("human:bob", (1, 2)), ("human:cid", (2, 1)), ("judge:j", (2, 1))):
        say(store, who, shared, ranks)
    assert of(store, "human:ann").agrees == Share(1, 2)
    assert of(store, "judge:j").agrees == Share(1, 3)
    found = store.quality().agreement
    assert (found.pairs, found.slates) == (1, 1)
    assert found.share == pytest.approx(1 / 3)


def test_a_share_has_its_wilson_interval() -> None:
    # 8 of 10: centre (8 + 1.92)/(10 + 3.84) = 0.7168, spread 1.96·√(8·2/10 + 0.9604)/13.84 = 0.2266.
    mean, low, high = Share(8, 10).interval
    assert mean == 0.8
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))
    assert math.isnan(Share(0, 0).interval.mean)


def test_the_reward_model_is_told_fitted_flip_rates_where_enough_is_checked(store: Store) -> None:
    for n in range(40):
        one = slate(f"shared {n}")
        say(store, "human:ann", one, (1, 2))
        say(store, "human:bob", one, (1, 2))
        say(store, "human:cid", one, (1, 2) if n % 2 else (2, 1))  # a coin
        if n < 5:
            say(store, "judge:j", one, (1, 2))
    both = [zip(s.labels, s.preferences, strict=True) for s in store.labeled_slates()]
    rates = {label.annotator: preference.flip_rate for slate in both for label, preference in slate}
    assert rates["human:ann"] < 0.15
    assert rates["human:cid"] > 0.6
    assert rates["judge:j"] == 0.3  # five answers say too little: what was declared stands
    assert store.annotators()["human:cid"].flip_rate == 0.0  # what somebody declared is never overwritten


# Revoking


def test_a_revoked_annotator_counts_for_nothing_until_restored(store: Store) -> None:
    shared, own = slate("shared"), slate("own")
    say(store, "human:ann", shared, (1, 2))
    kept = say(store, "human:bob", shared, (2, 1))
    say(store, "human:ann", own, (1, 2))
    before = store.labeled_slates()
    marks = store.label_marks()
    assert store.revoke("human:ann", "answers at random", "owner") == 2
    assert store.label_marks() != marks
    assert [label for s in store.labeled_slates() for label in s.labels] == [kept]
    assert len(store.labels(history=True)) == 3  # nothing is lost
    assert of(store, "human:ann").revoked == "answers at random"
    assert of(store, "human:bob").agrees.whole == 0
    # Their slate wants an answer from somebody else again, and they get none.
    assert lease(store, "human:ann") is None
    given = lease(store, "human:bob")
    assert given is not None
    assert given.slate_id == own.id
    assert store.restore("human:ann") == 2
    assert store.labeled_slates() == before


@pytest.mark.parametrize(
    ("who", "reason", "line"),
    [
        ("human:nobody", "why not", "no annotator"),
        ("human:ann", "  ", "needs a reason"),
        ("human:bob", "again", "revoked already"),
    ],
)
def test_what_cannot_be_revoked(store: Store, who: str, reason: str, line: str) -> None:
    store.revoke("human:bob", "first", "owner")
    with pytest.raises(UserError, match=line):
        store.revoke(who, reason, "owner")
    with pytest.raises(UserError, match="not revoked"):
        store.restore("human:ann")


def test_revoking_over_http_stops_whoever_labels(store: Store) -> None:
    store.add_slates([slate("one"), slate("two")])
    client = client_of(store)
    lease = client.post("/api/lease", json={"annotator": "ann"}).json()["lease"]
    assert client.post("/api/annotators/human:ann/revoke", json={}).status_code == 422
    assert client.post("/api/annotators/human:ann/revoke", json={"reason": "spam"}).json() == {"labels": 0}
    assert client.post("/api/annotators/human:ann/revoke", json={"reason": "spam"}).status_code == 409
    reply = client.post("/api/lease", json={"annotator": "ann"})
    assert reply.status_code == 403
    assert "set aside" in reply.json()["error"]
    answer = {"annotator": "ann", "client_key": "late-key-1", "slate": lease["slate"], "outcome": "skip"}
    assert client.post("/api/submit", json=answer).status_code == 403
    assert client.post("/api/annotators/human:ann/restore").json() == {"labels": 0}
    assert client.post("/api/lease", json={"annotator": "ann"}).status_code == 200


def test_a_name_with_a_slash_is_revoked_from_the_page_too(store: Store) -> None:
    store.add_annotator(Annotator("judge:org/model", "judge"))
    client, address = client_of(store), "/api/annotators/judge%3Aorg%2Fmodel"
    assert client.post(f"{address}/revoke", json={"reason": "x"}).json() == {"labels": 0}
    assert store.revoked() == {"judge:org/model": "x"}
    assert client.post(f"{address}/restore").json() == {"labels": 0}


# Deciding


def test_nobody_is_asked_to_decide_what_is_known(store: Store) -> None:
    known, open_ = slate("known"), slate("open")
    store.add_slates([known])
    store.add_gold(known.id, (1, 2))
    for one in (known, open_):
        say(store, "human:ann", one, (1, 2))
        say(store, "human:bob", one, (2, 1))
    assert store.quality().disputed == 1  # as many as the page gives
    assert store.waiting("human:cid", (2, 2), "disputed") == 1


def test_what_people_contradict_each_other_on_is_decided_once(store: Store) -> None:
    open_, same, tie, with_judge = (slate(name) for name in ("open", "same", "tie", "judge"))
    for who, one, ranks in (
        ("human:ann", open_, (1, 2)),
        ("human:bob", open_, (2, 1)),
        ("human:ann", same, (1, 2)),
        ("human:bob", same, (1, 2)),
        ("human:ann", tie, (1, 2)),
        ("human:bob", tie, (1, 1)),
        ("human:ann", with_judge, (1, 2)),
        ("judge:j", with_judge, (2, 1)),
    ):
        say(store, who, one, ranks)
    people = ["human:ann", "human:bob", "human:cid"]
    assert disputed_slates(store.labels(), people) == [open_.id]
    assert store.quality().disputed == 1
    assert lease(store, "human:ann", queue="disputed") is None  # a party to it
    client = client_of(store)
    asked = {"annotator": "cid", "queue": "disputed"}
    held = client.post("/api/lease", json=asked).json()["lease"]
    assert held["slate"] == open_.id
    ranks = [1, 2] if held["candidates"][0]["text"] == "open 1" else [2, 1]  # the second candidate is better
    answer = {"client_key": "decision-1", "slate": open_.id, "outcome": "ranked", "ranks": ranks}
    assert client.post("/api/submit", json=asked | answer).json()["lease"] is None
    decided = next(s for s in store.labeled_slates() if s.slate.id == open_.id)
    assert [(label.annotator, label.purpose) for label in decided.labels] == [("human:cid", "adjudicate")]
    assert [p.p for p in decided.preferences] == [0.0]
    assert store.quality().disputed == 0
    # The decision is a known answer: it says who was right.
    assert of(store, "human:bob").reliability.accuracy > 0.8 > of(store, "human:ann").reliability.accuracy


@pytest.mark.parametrize(("outcome", "decided"), [("skip", False), ("both_bad", True)])
def test_whoever_skips_a_dispute_leaves_it_open_and_both_bad_is_a_decision(
    store: Store, outcome: str, decided: bool
) -> None:
    open_ = slate("open")
    say(store, "human:ann", open_, (1, 2))
    say(store, "human:bob", open_, (2, 1))
    client = client_of(store)
    asked = {"annotator": "cid", "queue": "disputed"}
    held = client.post("/api/lease", json=asked).json()["lease"]
    answer = {"client_key": "decision-2", "slate": held["slate"], "outcome": outcome}
    assert client.post("/api/submit", json=asked | answer).json()["lease"] is None  # they are not asked again
    [labeled] = store.labeled_slates()
    assert [p.p for p in labeled.preferences] == ([] if decided else [1.0, 0.0])
    assert store.quality().disputed == (0 if decided else 1)
    store.add_annotator(Annotator("human:dan", "human"))
    assert (lease(store, "human:dan", queue="disputed") is None) == decided


def test_the_queues_are_kept_apart(store: Store) -> None:
    new, disputed = slate("new"), slate("disputed")
    store.add_slates([new])
    say(store, "human:ann", disputed, (1, 2))
    say(store, "human:bob", disputed, (2, 1))
    for _ in range(2):  # also when both are held
        for queue, wanted, purpose in (("new", new, "teach"), ("disputed", disputed, "adjudicate")):
            given = lease(store, "human:cid", queue=queue)
            assert given is not None
            assert (given.slate_id, given.purpose) == (wanted.id, purpose)
            assert store.waiting("human:cid", PAIR, queue) == 1  # type: ignore[arg-type]
    assert store.waiting("human:ann", PAIR, "disputed") == 0


def test_a_labeler_with_an_account_does_not_decide(store: Store) -> None:
    client = client_of(store)
    for role in ("owner", "labeler"):
        invitation = store.invite(role, "test")  # type: ignore[arg-type]
        credentials = {"invitation": invitation, "name": role, "password": "a long passphrase"}
        assert client.post("/api/join", json=credentials).status_code == 200
    assert client.post("/api/lease", json={"queue": "disputed"}).status_code == 403
    assert client.get("/api/quality/annotators").status_code == 403
    assert client.post("/api/annotators/human:ann/revoke", json={"reason": "envy"}).status_code == 403


# Leaderboard, tables and files


def compared(name: str, a: str, b: str, p: float) -> LabeledSlate:
    one = slate(name, policies=(a, b))
    return LabeledSlate(one, (), (Preference(one.id, 0, 1, p),))


def test_the_leaderboard_orders_policies_by_what_they_win() -> None:
    slates = [compared(f"{n}", "good", "poor", 1.0 if n % 4 else 0.0) for n in range(40)]
    good, poor = leaderboard(slates)
    # Three of four won: the maximum of the likelihood is P = 3/4, up to the weak prior.
    assert (good.policy, poor.policy) == ("good", "poor")
    assert good.score.mean == pytest.approx(0.75, abs=0.005)
    assert good.score.low < 0.75 < good.score.high
    assert good.score.low > 0.5
    assert good.comparisons == 40


def test_the_leaderboard_follows_a_chain_and_survives_certainty() -> None:
    slates = [compared(f"{a}{b}{n}", a, b, 1.0) for a, b in ("ab", "bc") for n in range(9)]
    found = leaderboard(slates)
    assert [s.policy for s in found] == ["a", "b", "c"]
    assert all(0 < s.score.mean < 1 for s in found)
    assert leaderboard([compared("same", "a", "a", 1.0)]) == []


def test_a_policy_that_always_won_is_as_sure_as_its_slates_are_many() -> None:
    widths = []
    for slates in (1, 5, 50):
        best, worst = leaderboard([compared(f"{n}", "good", "poor", 1.0) for n in range(slates)])
        # Wilson's lower end for a share of one among n is n / (n + 1.96²); the score itself is a little less than one.
        assert best.score.low == pytest.approx(slates / (slates + 1.96**2), abs=0.05)
        assert worst.score.high == pytest.approx(1 - best.score.low)
        widths.append(best.score.high - best.score.low)
    assert widths == sorted(widths, reverse=True)
    heavy, light = compared("x", "good", "poor", 1.0), Preference("s", 0, 1, 1.0, weight=0.0)
    assert leaderboard([LabeledSlate(heavy.slate, (), (light,))]) == []  # who counts for nothing compares nothing


def test_figures_are_files_and_formulas_are_disarmed(store: Store) -> None:
    store.add_annotator(Annotator("=HYPERLINK(1)", "human"))
    store.revoke("=HYPERLINK(1)", "+1+1", "owner")
    client = client_of(store)
    reply = client.get("/api/quality/annotators/csv")
    assert reply.headers["content-type"].startswith("text/csv")
    rows = {row["annotator"]: row for row in csv.DictReader(io.StringIO(reply.text))}
    assert rows["'=HYPERLINK(1)"]["revoked"] == "'+1+1"
    assert rows["human:ann"]["accuracy"] == ""  # nothing was checked, so nothing is said
    for figure in ("agreement", "leaderboard", "progress"):
        assert client.get(f"/api/quality/{figure}/csv").status_code == 200
        assert "rows" in client.get(f"/api/quality/{figure}").json()
    assert client.get("/api/quality/secrets").status_code == 404


def test_progress_counts_standing_labels_by_day(store: Store) -> None:
    days = {"ann": 1_000_000_000.0, "bob": 1_000_000_000.0 + 86400}
    for who, when in days.items():
        one = slate(who)
        store.add_slates([one])
        label = Label(one.id, f"human:{who}", "ranked", next(KEYS), (1, 2))
        store.add_labels([label], {label.client_key: when})
    assert store.figure("progress") == Table(
        ("day", "human", "judge", "oracle", "total"), (("2001-09-09", 1, 0, 0, 1), ("2001-09-10", 1, 0, 0, 2))
    )


def test_a_table_as_text_and_csv() -> None:
    table = Table(("name", "share"), (("ann", 0.123456), ("b", None)))
    assert as_text(table) == "name  share\nann   0.123\nb     –\n"
    assert as_csv(table) == "name,share\nann,0.123456\nb,\n"


@pytest.mark.parametrize("formula", ["=1+1", " =1+1", "＝1+1", "\n=1", "\t@x"])
def test_no_name_is_a_formula_in_a_spreadsheet_or_a_command_in_a_terminal(formula: str) -> None:
    table = Table(("name", "share"), ((formula, -0.5),))
    assert list(csv.reader(as_csv(table).splitlines(keepends=True)))[1] == [f"'{formula}", "-0.5"]
    hidden = Table(("name",), (("\x1b[31mred\nhuman:ann\u202e",),))
    assert as_text(hidden) == "name\n\ufffd[31mred\ufffdhuman:ann\ufffd\n"
    assert as_text(Table(("name",), ())) == "nothing yet\n"
