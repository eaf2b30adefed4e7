"""Win rates by judge, people and both: simulated judges that are wrong, hand-worked numbers, and from a store."""

from __future__ import annotations

import csv
import io
import math
import random
from pathlib import Path

import numpy as np
import pytest
from api_client import client_of

import app
from labeling.prediction_powered import power_tuned
from labeling.records import Annotator, Candidate, HumanRequest, Label, Message, Prompt, Slate
from labeling.store import Store

JUDGE, ANN = "judge:j", "human:ann"
Columns = tuple[np.ndarray, np.ndarray, np.ndarray]


def judged(seed: int, judged: int, propensity: float, rate: float, accuracy: float, bias: float) -> Columns:
    """f, y and weight: the judge is right at `accuracy`, and at `bias` names the first policy whatever is true."""
    chance = np.random.default_rng(seed)
    y = (chance.random(judged) < rate).astype(float)
    f = np.where(chance.random(judged) < accuracy, y, 1 - y)
    f = np.where(chance.random(judged) < bias, 1.0, f)
    return f, y, np.where(chance.random(judged) < propensity, 1 / propensity, 0.0)


@pytest.mark.parametrize(("rate", "propensity"), [(0.55, 0.05), (0.3, 0.1)])
def test_the_intervals_cover_where_the_biased_judge_does_not_and_are_narrower_than_of_people_alone(
    rate: float, propensity: float
) -> None:
    runs, inside, width = 600, np.zeros(3), np.zeros(3)
    for seed in range(runs):
        f, y, weight = judged(seed, 1000, propensity, rate, accuracy=0.9, bias=0.15)
        found = (power_tuned(f, y, weight)[0], power_tuned(0 * f, y, weight)[0], power_tuned(f, f, 0 * f + 1)[0])
        inside += [i.low <= rate <= i.high for i in found]
        width += [(i.high - i.low) / runs for i in found]
    both, people, judge = inside / runs
    assert 0.92 <= both <= 0.975  # 95 % of 600, give or take three standard errors
    assert 0.92 <= people <= 0.975
    assert judge < 0.5
    assert width[0] < 0.85 * width[1]


def test_a_judge_that_knows_nothing_costs_nothing() -> None:
    powers, widths = [], []
    for seed in range(50):
        f, y, weight = judged(seed, 1000, 0.1, 0.6, accuracy=0.5, bias=0.0)
        both, power = power_tuned(f, y, weight)
        people, _ = power_tuned(0 * f, y, weight)
        powers.append(power)
        widths.append((both.high - both.low) / (people.high - people.low))
    assert np.mean(powers) < 0.1
    assert 0.97 < np.mean(widths) <= 1.0


def test_unequal_chances_are_weighed() -> None:
    """Slates that b wins are drawn four times as often; the plain mean of people's answers is wrong."""
    inside, plain, runs = 0, 0.0, 300
    for seed in range(runs):
        f, y, _ = judged(seed, 1000, 1.0, 0.5, accuracy=0.8, bias=0.1)
        chance = np.where(y > 0, 0.05, 0.2)
        weight = np.where(np.random.default_rng(10_000 + seed).random(1000) < chance, 1 / chance, 0.0)
        both, _ = power_tuned(f, y, weight)
        inside += both.low <= 0.5 <= both.high
        plain += y[weight > 0].mean() / runs
    assert inside / runs >= 0.91
    assert plain < 0.3


def test_the_estimate_by_hand() -> None:
    """Four judged slates, two answered: with n = N the tuned lambda is half of that of least squares of y on f."""
    f, y, weight = np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0]), np.array([2.0, 2.0, 0.0, 0.0])
    found, power = power_tuned(f, y, weight)
    # people's mean 1/2, the judge's on the same 1/2 and on all 3/4. a = (1, -1, 0, 0);
    # b = 2(f - 1/2) - (f - 3/4) = (3/4, -1/4, -1/4, -1/4): lambda = 1 / (12/16) above 1, so 1.
    assert power == 1.0
    assert found.mean == pytest.approx(0.5 + 1.0 * (0.75 - 0.5))
    assert power_tuned(0 * f, y, weight)[0].mean == pytest.approx(0.5)


def test_answers_that_all_agree_leave_an_interval() -> None:
    one = np.ones(30)
    found, _ = power_tuned(one, one, one)
    assert found.mean == 1.0
    assert found.low == pytest.approx(30 / (30 + 1.96**2), abs=1e-6)  # Wilson of 30 of 30


def test_from_a_store_to_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, chance = Store(tmp_path / "project", create=True), random.Random(0)
    people: list[tuple[float, float]] = []  # whether new wins, and one over the chance
    store.add_annotator(Annotator(JUDGE, "judge"))
    store.add_annotator(Annotator(ANN, "human"))
    with store.writing():
        for n in range(200):
            names, wins = (("new", "old") if n % 2 else ("old", "new")), chance.random() < 0.7
            new_is_first = n % 2 == 1
            texts = tuple(Candidate(f"{name} {n}", name) for name in names)
            one = Slate(Prompt((Message("user", f"Question {n}?"),)), texts)
            store.add_slates([one])
            ranks = (1, 2) if new_is_first == wins else (2, 1)
            store.add_labels([Label(one.id, JUDGE, "ranked", f"j{n}", (1, 2) if new_is_first else (2, 1), 0.5)])
            if n < 60:
                store.add_labels([Label(one.id, ANN, "ranked", f"a{n}", ranks)])
            if n < 50:
                store.request_people([HumanRequest(one.id, JUDGE, "audit", 0.0, 0.25 if n < 25 else 0.5)])
                people.append((float(wins), 4.0 if n < 25 else 2.0))
    [found] = store.win_rates()
    assert (found.a, found.b, found.judged, found.answered) == ("new", "old", 200, 50)
    assert found.by_judge.mean == 0.5  # it always says one half
    assert found.by_people.mean == pytest.approx(sum(y * w for y, w in people) / sum(w for _, w in people))
    assert found.both.mean == pytest.approx(found.by_people.mean)
    assert found.power == 0.0
    [row] = csv.DictReader(io.StringIO(client_of(store).get("/api/quality/winrates/csv").text))
    assert float(row["both"]) == pytest.approx(found.both.mean)
    assert app.main(["quality", "--project", str(store.project), "--figure", "winrates"]) == 0
    assert "by_people" in capsys.readouterr().out
    store.revoke(ANN, "for a test", "owner")
    [without] = store.win_rates()
    assert without.answered == 0
    assert math.isnan(without.both.mean)
