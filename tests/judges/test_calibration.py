"""A judge with planted biases is measured as what it is, and a panel of one mind as one vote."""

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Reply, Scripted, completion, slate

from judges.batch import label_slates
from judges.bias import Bias, Vote, measure_bias, measure_places, place_lifts
from judges.calibration import calibrate, truth_of
from judges.config import load_judge
from judges.orders import mean_ranks
from judges.panel import effective_votes, mean_correlation, measure_panel
from judges.reply import Reply as JudgeReply
from judges.verdict import LETTERS
from labeling.agreement import Pair, answers_of
from labeling.intervals import Interval
from labeling.records import Annotator, Label
from labeling.store import Store

DATA = Path(__file__).parents[2] / "data"


def planted(chance: random.Random, place: float, length: float, noise: float, longer: int, better: int) -> int:
    """A verdict by its recipe: the place, the length, a coin, or the truth."""
    draw = chance.random()
    if draw < abs(place):
        return 1 if place > 0 else -1
    if draw < abs(place) + abs(length):
        return longer if length > 0 else -longer
    if draw < abs(place) + abs(length) + noise:
        return chance.choice((1, -1))
    return better


def votes_of(seed: int, slates: int, place: float, length: float, noise: float) -> list[Vote]:
    chance = random.Random(seed)
    votes = []
    for number in range(slates):
        longer, better = chance.choice((1, -1)), chance.choice((1, -1))
        for shown in (1, -1):
            chosen = planted(chance, place, length, noise, shown * longer, shown * better)
            votes.append(Vote(number, chosen, shown * longer, shown * better))
    return votes


def covers(i: Interval, value: float) -> bool:
    return i.low <= value <= i.high


@pytest.mark.parametrize(("place", "length"), [(0.15, 0.25), (-0.1, -0.2), (0.3, 0.0)])
def test_planted_biases_are_measured_within_their_intervals(place: float, length: float) -> None:
    noise, draws = 0.2, 200
    found = [measure_bias(votes_of(seed, 300, place, length, noise)) for seed in range(draws)]
    for name, value in (("place", place), ("length", length), ("truth", 1 - abs(place) - abs(length) - noise)):
        hits = sum(covers(getattr(bias, name), value) for bias in found)
        assert 0.90 <= hits / draws <= 0.99, name  # 95 % of 200, give or take three standard errors
        assert np.mean([getattr(bias, name).mean for bias in found]) == pytest.approx(value, abs=0.01)
    if length:
        hits = sum(covers(bias.noise, noise) for bias in found)
        assert 0.90 <= hits / draws <= 0.99


def test_no_share_is_said_to_be_more_than_all_of_the_verdicts_or_less_than_none() -> None:
    odd = {0, 7, 11}  # few slates on which the other answer won
    votes = [Vote(n, -shown if n in odd else shown, shown * (-1) ** n, shown) for n in range(20) for shown in (1, -1)]
    bias = measure_bias(votes)
    assert (bias.truth.high, bias.noise.low) == (1.0, 0.0)
    assert 0.3 < bias.truth.low < bias.truth.mean < 1.0
    backwards = measure_bias([vote._replace(chosen=-vote.chosen) for vote in votes])
    assert backwards.truth.low == -1.0
    lifts = measure_places([(1.0, -1.0)] * 5 + [(0.2, -0.2)])
    assert (lifts.first.high, lifts.last.low) == (1.0, -1.0)


def test_a_fair_judge_shows_no_bias() -> None:
    bias = measure_bias(votes_of(1, 500, 0.0, 0.0, 0.2))
    assert covers(bias.place, 0)
    assert covers(bias.length, 0)
    assert bias.truth.low > 0.7


def test_without_a_truth_the_place_is_still_measured() -> None:
    blind = [vote._replace(better=0) for vote in votes_of(2, 500, 0.3, 0.0, 0.2)]
    bias = measure_bias(blind)
    assert covers(bias.place, 0.3)
    assert np.isnan([bias.truth.mean, bias.noise.mean]).all()
    assert measure_bias([]) == Bias(*[pytest.approx(Interval(*[float("nan")] * 3), nan_ok=True)] * 4, 0)


def test_a_planted_judge_through_its_own_books(
    scripted: Scripted, judge_file: Callable[..., Path], tmp_path: Path
) -> None:
    """The whole way: questions, replies, ledger, labels, people's answers, figures."""
    chance = random.Random(5)
    store, better = Store(tmp_path / "planted", create=True), {}
    for n in range(150):
        texts = ["A good door.", "A bad door."]
        longer = chance.randrange(2)
        texts[longer] += " It is long." * 3
        made = slate(f"Which door, {n}?", *(texts if (flip := chance.random() < 0.5) else texts[::-1]))
        better[made.id] = 1 if flip else -1
        store.add_slates([made])
    store.add_annotator(Annotator("human:anna", "human"))
    ranks = {1: (1, 2), -1: (2, 1)}
    store.add_labels(Label(id, "human:anna", "ranked", f"a{id}", ranks[side]) for id, side in better.items())

    def reply(request: dict[str, Any], n: int) -> Reply:
        shown = request["messages"][-1]["content"]
        first, _, second = shown.partition("</answer_A>")
        first = first.partition("<answer_A>")[2]
        second = second.partition("<answer_B>")[2].partition("</answer_B>")[0]
        longer = 1 if len(first) > len(second) else -1
        drawn = random.Random(shown)
        return completion(
            "[[A]]" if planted(drawn, 0.2, 0.2, 0.2, longer, 1 if "good" in first else -1) > 0 else "[[B]]"
        )

    scripted.reply = reply
    judge = load_judge(judge_file(scripted.url, concurrency=8), DATA)
    label_slates(judge, store.slates(), store)
    truth = truth_of(answers_of(store.labels(annotator="human:anna")), {})
    assert truth == better
    found = calibrate(judge.annotator.id, store, truth)
    assert found.outcomes.total() == 150
    assert found.bias.votes == 300
    for name, value in (("place", 0.2), ("length", 0.2), ("truth", 0.4), ("noise", 0.2)):
        assert covers(getattr(found.bias, name), value), name
    orders = [call.reply for call in store.judge_calls(judge.annotator.id).values()]
    assert sorted({tuple(json.loads(text)["order"]) for text in orders}) == [(0, 1), (1, 0)]
    ties = found.outcomes["tie"]
    assert found.orders.whole - found.orders.part == ties  # orders that differ make a tie
    assert found.agrees.whole == found.longest.whole == found.longer.whole == 150 - ties
    assert found.agrees.interval.mean > found.longest.interval.mean
    said = "\n".join(found.lines())
    for part in (
        "labels: ",
        "both orders name the same answer: ",
        "by chance, of 300 verdicts",
        "the longest answer: ",
    ):
        assert part in said


def test_effective_votes() -> None:
    assert effective_votes(5, 0.0) == 5
    assert effective_votes(5, 1.0) == 1
    assert effective_votes(3, 0.5) == pytest.approx(1.5)  # 3 / (1 + 2 · ½)
    assert effective_votes(3, -0.2) == 3
    errors = np.array([[1, 1, 0], [0, 0, 1], [1, 1, 0], [0, 0, 1]], dtype=float)
    assert mean_correlation(errors) == pytest.approx((1 - 1 - 1) / 3)


def test_a_panel_that_copies_is_one_vote_and_an_independent_one_is_many() -> None:
    chance = random.Random(1)
    truth = {f"slate_{n}": chance.choice((1, -1)) for n in range(2000)}

    def noisy(side: int) -> int:
        return side if chance.random() < 0.8 else -side

    judges = ["a", "b", "c"]
    free = {Pair(id, 0, 1): {judge: noisy(side) for judge in judges} for id, side in truth.items()}
    copied = {pair: dict.fromkeys(judges, said["a"]) for pair, said in free.items()}
    assert measure_panel(copied, judges, truth).votes == pytest.approx(1.0)
    panel = measure_panel(free, judges, truth)
    assert (panel.judges, panel.pairs) == (3, 2000)
    assert 2.7 < panel.votes <= 3.0
    assert np.isnan(measure_panel(free, judges, {}).votes)


def ranking(costs: Sequence[float]) -> str:
    """The places, lowest cost first."""
    return f"[[{'>'.join(LETTERS[at] for at in sorted(range(len(costs)), key=lambda at: costs[at]))}]]"


def rankings_of(seed: int, slates: int, k: int, place: float) -> list[tuple[float, float]]:
    """The lifts that a judge makes that ranks by the places with this probability (< 0: the last comes first)."""
    chance, lifts = random.Random(seed), []
    for _ in range(slates):
        worth = [chance.random() for _ in range(k)]
        replies = []
        for first in range(k):
            order = (*range(first, k), *range(first))
            sign = -1 if place < 0 else 1
            follows = chance.random() < abs(place)
            cost = [sign * at if follows else -worth[n] - chance.random() for at, n in enumerate(order)]
            replies.append(JudgeReply(order, ranking(cost)))
        lift = place_lifts(mean_ranks(replies))
        assert lift is not None
        lifts.append(lift)
    return lifts


@pytest.mark.parametrize(("k", "place"), [(3, 0.3), (4, -0.2), (3, 0.0)])
def test_what_places_do_in_rankings_is_measured_within_its_interval(k: int, place: float) -> None:
    """A ranking by the places lifts the first by 1 and the last by −1; one by worth lifts none, over all orders."""
    draws = 100
    found = [measure_places(rankings_of(seed, 60, k, place)) for seed in range(draws)]
    for name, value in (("first", place), ("last", -place)):
        hits = sum(covers(getattr(places, name), value) for places in found)
        assert hits / draws >= 0.88, name  # 95 %, less three standard errors
        assert np.mean([getattr(places, name).mean for places in found]) == pytest.approx(value, abs=0.02)
    if place:
        assert not any(covers(places.first, -place) for places in found)


@pytest.mark.parametrize("place", [0.4, 0.0])
def test_rankings_through_the_judges_own_books(
    place: float, scripted: Scripted, judge_file: Callable[..., Path], tmp_path: Path
) -> None:
    """Three answers in three orders; a share of the verdicts names them as they stand, the others by their number."""
    store = Store(tmp_path / "three", create=True)
    store.add_slates(slate(f"Which number, {n}?", *(f"Number {i}." for i in (1, 2, 3))) for n in range(60))

    def reply(request: dict[str, Any], n: int) -> Reply:
        shown = request["messages"][-1]["content"]
        numbers = [float(number) for number in re.findall(r"Number (\d)", shown)]
        return completion(ranking([1, 2, 3] if random.Random(shown).random() < place else numbers))

    scripted.reply = reply
    judge = load_judge(judge_file(scripted.url, concurrency=8), DATA)
    label_slates(judge, store.slates(), store)
    found = calibrate(judge.annotator.id, store, {})
    assert (found.places.slates, found.bias.votes) == (60, 0)
    assert covers(found.places.first, place)
    assert covers(found.places.last, -place)
    assert found.places.first.high - found.places.first.low < 0.2
    disputed = found.outcomes["tie"] + sum(len(set(label.ranks or ())) == 2 for label in store.labels())
    assert (found.rankings.part < 180) == (disputed > 0) == (place > 0)
    assert found.rankings.whole == 180
    said = "\n".join(found.lines())
    assert f"the first place lifts by {found.places.first.mean:+.0%} [" in said
    assert "of 60 slates" in said
    assert "all orders of a ranking agree about " in said


def test_slates_whose_places_are_not_all_known_lift_nothing() -> None:
    one, two, three = ((n, (n + 1) % 3, (n + 2) % 3) for n in range(3))
    ranks = [1.0, 2.0, 3.0]
    assert place_lifts({one: ranks, two: ranks, three: ranks}) == (1.0, -1.0)
    assert place_lifts({one: ranks, two: ranks}) is None
    assert place_lifts({(0, 1): [1.0, 2.0], (1, 0): [1.0, 2.0]}) is None
    assert place_lifts({}) is None
    assert np.isnan(measure_places([(1.0, -1.0)]).first.mean)
