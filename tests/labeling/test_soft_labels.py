"""Judges beside people: figures against hand-worked numbers and planted judges, and the soft labels that train."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import numpy as np
import pytest
from api_client import client_of

import app
from labeling.agreement import Pair
from labeling.judge_quality import LEAST_AUDIT, LEAST_FITTED, compare, measure_judge
from labeling.preferences import with_doubt
from labeling.records import Annotator, Candidate, HumanRequest, Label, Message, Preference, Prompt, Slate, UserError
from labeling.soft_labels import FITTERS, Compared, SoftLabels, fit_isotonic, fit_soft_labels, fit_temperature, fold_of
from labeling.store import Store
from labeling.trust import Trust

JUDGE, ANN = "judge:j", "human:ann"


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def voter(seed: int, slates: int, right: float, p: float = 1.0) -> list[Compared]:
    """A judge that always says p for one side, and is right at a planted rate."""
    chance = np.random.default_rng(seed)
    first, agrees = chance.random(slates) < 0.5, chance.random(slates) < right
    return [
        Compared(Pair(f"slate_{seed}_{n}", 0, 1), 1 if f else -1, p if f else 1 - p, float(f == a))
        for n, (f, a) in enumerate(zip(first, agrees, strict=True))
    ]


# The maps


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0])
def test_a_planted_temperature_is_found(temperature: float) -> None:
    chance = np.random.default_rng(0)
    lead = chance.normal(0, 1.5, 20_000)
    p, y = sigmoid(lead), (chance.random(20_000) < sigmoid(lead / temperature)).astype(float)
    curve = fit_temperature(p, y, np.ones_like(p))
    at = np.array([0.2, 0.5, 0.8])
    assert curve(at) == pytest.approx(sigmoid(np.log(at / (1 - at)) / temperature), abs=0.02)


def test_temperature_knows_a_judge_that_is_no_better_than_a_coin() -> None:
    p, y = np.array([0.9, 0.9, 0.1, 0.1]), np.array([0.0, 1.0, 1.0, 0.0])
    assert fit_temperature(p, y, np.ones(4))(p) == pytest.approx(0.5)
    assert fit_temperature(p, 1 - np.round(p), np.ones(4))(p) == pytest.approx(0.5)  # and one that is worse


def test_isotonic_pools_what_falls() -> None:
    # From both sides: x = .1 .2 .3 .7 .8 .9 with y = 0 1/2 0 1 1/2 1. The pairs (.2, .3) and (.7, .8) fall, and pool to
    # means 1/4 at .25 and 3/4 at .75. 0 and 1 stay 1/(3 + 2) away from certainty.
    curve = fit_isotonic(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.5, 1.0]), np.ones(3))
    assert curve(np.array([0.9, 0.75, 0.25, 0.1])) == pytest.approx([0.8, 0.75, 0.25, 0.2])
    assert curve(np.array([0.5])) == pytest.approx([0.5])
    # Three times the weight on the middle pair: the pool's mean is (3 · 1/2 + 1 · 1) / 4.
    curve = fit_isotonic(np.array([0.9, 0.8, 0.7]), np.array([1.0, 0.5, 1.0]), np.array([1.0, 3.0, 1.0]))
    assert curve(np.array([0.775])) == pytest.approx([0.625])


@pytest.mark.parametrize("method", FITTERS)
def test_maps_never_fall_and_do_not_care_which_candidate_is_named_first(method: str) -> None:
    chance = np.random.default_rng(1)
    p, weight = chance.random(200), chance.uniform(1, 3, 200)
    curve = FITTERS[method](p, (chance.random(200) < p**2).astype(float), weight)
    at = np.linspace(0, 1, 101)
    assert (np.diff(curve(at)) >= -1e-12).all()
    assert curve(at) + curve(1 - at) == pytest.approx(1.0)


@pytest.mark.parametrize("method", FITTERS)
def test_what_people_say_of_a_slate_never_moves_its_own_soft_label(method: str) -> None:
    compared = voter(0, 60, 0.8)
    flipped = [compared[0]._replace(y=1 - compared[0].y), *compared[1:]]
    before, after = (fit_soft_labels(method, each, True) for each in (compared, flipped))
    own = compared[0].pair.slate_id
    assert before.calibrated(own, 0.99) == after.calibrated(own, 0.99)
    other = next(c.pair.slate_id for c in compared if fold_of(c.pair.slate_id) != fold_of(own))
    assert before.calibrated(other, 0.99) != after.calibrated(other, 0.99)
    assert {fold_of(c.pair.slate_id) for c in compared} == {0, 1, 2, 3, 4}


# The figures


def test_agreement_kappa_and_confusion_by_hand() -> None:
    rows = [(1, 1.0), (1, 1.0), (1, 0.0), (-1, 0.0), (-1, 0.5), (0, 0.5), (0, 1.0), (-1, 0.0)]
    compared = [Compared(Pair(f"s{n}", 0, 1), said, (1 + said) / 2, y) for n, (said, y) in enumerate(rows)]
    found = measure_judge(JUDGE, compared, False, "raw")
    # Judge: 3 first, 3 second, 2 ties; people: 3, 3, 2. Observed 5/8, by chance (9 + 9 + 4)/64.
    assert found.agreement.mean == pytest.approx(5 / 8)
    assert found.kappa.mean == pytest.approx((5 / 8 - 22 / 64) / (1 - 22 / 64))
    turned = [c._replace(said=1, p=1.0, y=c.y if c.said > 0 else 1 - c.y) for c in compared if c.said]
    # Whoever always prefers the candidate that is named first is no parrot for it: 4 same, 1 tie, 1 opposite of 6;
    # from both sides the judge names each half, people 5/12, 2/12 and 5/12, so 5/12 by chance.
    assert measure_judge(JUDGE, turned, False, "raw").kappa.mean == pytest.approx((4 / 6 - 5 / 12) / (1 - 5 / 12))
    assert (found.same, found.tie, found.opposite, found.tied_decided, found.tied_tie) == (4, 1, 1, 1, 1)
    # p = 1 where it decides, and people prefer that side in 4 + ½ of 6; its ties are right on average.
    [even, sure] = found.bins
    assert (sure.p, sure.preferred.mean, sure.pairs) == (1.0, pytest.approx(4.5 / 6), 6)
    assert (even.p, even.preferred.mean) == (0.5, 0.5)
    assert found.error["raw"].mean == pytest.approx(6 / 8 * 0.25)
    assert found.measured_on == "labelled"


def test_a_slate_that_was_half_as_likely_drawn_counts_twice() -> None:
    compared = [Compared(Pair("a", 0, 1), 1, 1.0, 1.0, 1.0), Compared(Pair("b", 0, 1), 1, 1.0, 0.0, 2.0)]
    assert measure_judge(JUDGE, compared, True, "raw").agreement.mean == pytest.approx(1 / 3)


def test_intervals_hold_what_was_planted_and_calibration_mends_it() -> None:
    inside, errors = {"agreement": 0, "error": 0}, []
    for seed in range(60):
        found = measure_judge(JUDGE, voter(seed, 150, 0.75), True, "raw")
        inside["agreement"] += found.agreement.low <= 0.75 <= found.agreement.high
        inside["error"] += found.error["raw"].low <= 0.25 <= found.error["raw"].high  # it says 1 and is right in 0.75
        errors.append([found.error[method].mean for method in ("raw", *FITTERS)])
    for hits in inside.values():
        assert hits >= 51  # of 60 at 95 %: mean 57, sd 1.7
    raw, temperature, isotonic = np.mean(errors, axis=0)
    assert raw == pytest.approx(0.25, abs=0.02)
    assert max(temperature, isotonic) < 0.06


# The project


def slate(n: int) -> Slate:
    candidates = (Candidate(f"One {n}.", "policy-1"), Candidate(f"Other {n}.", "policy-0"))
    return Slate(Prompt((Message("user", f"Question {n}?"),)), candidates)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two hundred slates that a judge answered with 0.95; people answered the first hundred, and agree on 70 %."""
    store, chance = Store(tmp_path / "project", create=True), random.Random(3)
    store.add_annotator(Annotator(JUDGE, "judge", weight=0.5, flip_rate=0.1))
    store.add_annotator(Annotator(ANN, "human"))
    with store.writing():
        store.add_slates(slate(n) for n in range(200))
        store.add_labels(Label(slate(n).id, JUDGE, "ranked", f"j{n}", (1, 2), 0.95) for n in range(200))
        store.add_labels(
            Label(slate(n).id, ANN, "ranked", f"a{n}", (1, 2) if chance.random() < 0.7 else (2, 1)) for n in range(100)
        )
    return store


def of_judge(store: Store) -> dict[str, tuple[float, float, float]]:
    """p, weight and flip rate of the judge's preference on each slate."""
    return {
        s.slate.id: (p.p, p.weight, p.flip_rate)
        for s in store.labeled_slates()
        for label, p in zip(s.labels, s.preferences, strict=True)
        if label.annotator == JUDGE
    }


@pytest.mark.parametrize("method", FITTERS)
def test_calibrated_soft_labels_train_and_the_raw_verdict_stays(store: Store, method: str) -> None:
    before, labels = store.labeled_slates(), store.labels(history=True)
    assert {p for p, _, _ in of_judge(store).values()} == {0.95}
    store.set_settings({"calibration": method})
    after = of_judge(store)
    for p, weight, flip_rate in after.values():
        assert (p, weight) == (1.0, 0.5)
        assert flip_rate == pytest.approx(2 * (1 - 0.7), abs=0.24)  # right in 0.7, give or take 0.12
    assert len({flip_rate for _, _, flip_rate in after.values()}) <= 5  # one map for each fold
    assert store.labels(history=True) == labels
    people = [
        p for s in store.labeled_slates() for x, p in zip(s.labels, s.preferences, strict=True) if x.annotator == ANN
    ]
    assert {p.p for p in people} == {0.0, 1.0}
    assert store.judge_quality()[0].in_use == method
    store.set_settings({"calibration": "none"})
    assert store.labeled_slates() == before
    with pytest.raises(UserError, match="calibration is one of none, temperature, isotonic, not 'magic'"):
        store.set_settings({"calibration": "magic"})


def test_a_fit_is_told_what_labels_counted_for_and_by_which_calibration(store: Store) -> None:
    store.add_annotator(Annotator("human:new", "human", 2.0, 0.25))
    store.add_labels([Label(slate(150).id, "human:new", "ranked", "n0", (1, 2))])
    trust = store.labeled_with_trust()[1]
    assert (trust[JUDGE].source, trust[JUDGE].evidence, trust[JUDGE].calibration) == ("answers", 101, "")
    assert {flips for _, _, flips in of_judge(store).values()} == {trust[JUDGE].flip_rate}
    assert trust["human:new"] == Trust("human:new", 2.0, 0.25, "declared")
    names = []
    for method in (*FITTERS, *FITTERS):
        store.set_settings({"calibration": method})
        found = store.labeled_with_trust()[1][JUDGE]
        assert (found.source, found.evidence, found.audit, found.weight) == (method, 101, False, 0.5)
        rates = [flips for _, _, flips in of_judge(store).values()]
        assert found.flip_rate == pytest.approx(sum(rates) / len(rates))
        names.append(found.calibration)
    assert names[:2] == names[2:]  # the same maps have the same name
    store.add_labels([Label(slate(0).id, ANN, "ranked", "again", (2, 1), supersedes="a0")])
    assert len({*names, store.labeled_with_trust()[1][JUDGE].calibration}) == 3


def test_the_leaderboard_goes_by_probabilities_and_by_calibrated_ones_where_there_are_any(store: Store) -> None:
    people = [label.ranks == (1, 2) for label in store.labels(annotator=ANN)]

    def score(p: float) -> float:
        """The weighted mean of what the judge (weight ½) says of all 200 slates and people of 100."""
        return (0.5 * 200 * p + sum(people)) / (0.5 * 200 + len(people))

    [best, other] = store.leaderboard()
    assert (best.policy, other.policy, best.comparisons) == ("policy-1", "policy-0", 300)
    assert best.score.mean == pytest.approx(score(0.95), abs=0.002)  # as soft as the judge is, and not 1 a verdict
    store.set_settings({"calibration": "isotonic"})
    doubts = [flips for _, _, flips in of_judge(store).values()]
    calibrated = 1 - sum(doubts) / len(doubts) / 2  # ε = 2·(1 − q)
    assert calibrated < 0.8
    assert store.leaderboard()[0].score.mean == pytest.approx(score(calibrated), abs=0.002)


@pytest.mark.parametrize(
    ("p", "favoured", "flip_rate"), [(0.9, 1.0, 0.4), (0.1, 0.0, 0.4), (0.5, 0.5, 0.98), (0.7, 1.0, 0.7)]
)
def test_a_calibrated_pair_carries_its_own_doubt(p: float, favoured: float, flip_rate: float) -> None:
    shrunk = SoftLabels("temperature", (lambda x: 0.5 + (x - 0.5) * 3 / 4,) * 5, 50, True)  # 0.9 to 0.8, 0.7 to 0.65
    found = with_doubt(Preference("slate_1", 0, 1, p, weight=0.3, flip_rate=0.1), shrunk)
    assert (found.p, found.weight, found.flip_rate) == (favoured, 0.3, pytest.approx(flip_rate))


def test_too_few_answers_leave_soft_labels_as_they_are(store: Store) -> None:
    for n in range(LEAST_FITTED - 1, 100):
        store.add_labels([Label(slate(n).id, ANN, "undone", f"u{n}", supersedes=f"a{n}")])
    store.set_settings({"calibration": "isotonic"})
    assert {p for p, _, _ in of_judge(store).values()} == {0.95}
    [found] = store.judge_quality()
    assert (found.slates, found.in_use, [*found.error]) == (LEAST_FITTED - 1, "raw", ["raw"])


def test_an_audit_is_measured_alone_since_what_people_were_sent_is_no_sample(store: Store) -> None:
    """People also answered a hundred doubtful slates, on all of which the judge is wrong."""
    store.request_people(HumanRequest(slate(n).id, JUDGE, "audit", n / 200, 0.5) for n in range(100))
    accuracy = {q.annotator.id: q for q in store.quality().annotators}[JUDGE].reliability
    store.request_people(HumanRequest(slate(n).id, JUDGE, "margin", 1.5) for n in range(100, 200))
    store.add_labels(Label(slate(n).id, ANN, "ranked", f"a{n}", (2, 1)) for n in range(100, 200))
    [found] = store.judge_quality()
    assert (found.measured_on, found.slates) == ("audit", 100)
    assert found.agreement.low < 0.7 < found.agreement.high
    assert {q.annotator.id: q for q in store.quality().annotators}[JUDGE].reliability == accuracy
    rates = {flip_rate for _, _, flip_rate in of_judge(store).values()}
    assert rates == {accuracy.flip_rate}
    assert accuracy.flip_rate == pytest.approx(0.6, abs=0.15)


def test_an_audit_that_people_only_began_leaves_all_that_they_labelled(store: Store) -> None:
    people = [ANN]
    labels = store.labels()
    for drawn, expected in ((LEAST_AUDIT - 1, (100, False)), (LEAST_AUDIT, (LEAST_AUDIT, True))):
        audit = {slate(n).id: 0.5 for n in range(drawn)}
        compared, is_audit = compare(JUDGE, labels, people, audit)
        assert (len(compared), is_audit) == expected
        assert {c.weight for c in compared} == ({2.0} if is_audit else {1.0})


def test_a_decision_of_a_dispute_is_what_people_say(store: Store) -> None:
    store.add_annotator(Annotator("human:bob", "human"))
    one, first = slate(0).id, next(label for label in store.labels(annotator=ANN) if label.slate_id == slate(0).id)
    other = (2, 1) if first.ranks == (1, 2) else (1, 2)
    store.add_labels([Label(one, "human:bob", "ranked", "b", other)])
    [torn] = [c for c in compare(JUDGE, store.labels(), [ANN, "human:bob"], {})[0] if c.pair.slate_id == one]
    assert torn.y == 0.5
    store.add_annotator(Annotator("human:cid", "human"))
    store.add_labels([Label(one, "human:cid", "ranked", "c", (1, 2), purpose="adjudicate")])
    [clear] = [
        c for c in compare(JUDGE, store.labels(), [ANN, "human:bob", "human:cid"], {})[0] if c.pair.slate_id == one
    ]
    assert clear.y == 1.0


def test_the_figures_are_shown_and_files(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    client = client_of(store)
    for figure in ("judges", "reliability"):
        [row, *_] = csv.DictReader(io.StringIO(client.get(f"/api/quality/{figure}/csv").text))
        assert (row["judge"], row["measured_on"]) == (JUDGE, "labelled")
        assert app.main(["quality", "--project", str(store.project), "--figure", figure]) == 0
        assert JUDGE in capsys.readouterr().out
    assert (float(row["p"]), row["pairs"]) == (pytest.approx(0.95), "100")
