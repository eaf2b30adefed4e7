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
from judges.calibration import calibrate, observe, summed, truth_of
from judges.config import load_judge
from judges.orders import mean_ranks
from judges.panel import effective_votes, mean_correlation, measure_panel
from judges.reply import Reply as JudgeReply
from judges.slate_shares import slate_share
from judges.verdict import LETTERS
from labeling.agreement import Pair, answers_of
from labeling.intervals import Interval, wilson
from labeling.records import Annotator, Label, Slate, pairs
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
        better[Pair(made.id, 0, 1)] = 1 if flip else -1
        store.add_slates([made])
    store.add_annotator(Annotator("human:anna", "human"))
    ranks = {1: (1, 2), -1: (2, 1)}
    store.add_labels(
        Label(pair.slate_id, "human:anna", "ranked", f"a{pair.slate_id}", ranks[side]) for pair, side in better.items()
    )

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
    truth = {Pair(f"slate_{n}", 0, 1): chance.choice((1, -1)) for n in range(2000)}

    def noisy(side: int) -> int:
        return side if chance.random() < 0.8 else -side

    judges = ["a", "b", "c"]
    free = {pair: {judge: noisy(side) for judge in judges} for pair, side in truth.items()}
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


def three_answers(chance: random.Random, n: int) -> tuple[Slate, list[float]]:
    """A slate of three answers of different lengths, and what each is worth, whatever its length."""
    lengths, worth = [1, 2, 3], [1.0, 2.0, 3.0]
    chance.shuffle(lengths)
    chance.shuffle(worth)
    return slate(
        f"Which door, {n}?", *(f"{w:g}" + " door" * length for length, w in zip(lengths, worth, strict=True))
    ), worth


def truth_about(made: Slate, worth: Sequence[float]) -> dict[Pair, int]:
    return {Pair(made.id, i, j): 1 if worth[i] > worth[j] else -1 for i, j in pairs(3)}


def verdicts_about(made: Slate, worth: Sequence[float], length: float, chance: random.Random) -> list[JudgeReply]:
    """Rankings in three orders, each by the lengths with this probability and else by what the answers are worth."""
    replies = []
    for first in range(3):
        order = (first, (first + 1) % 3, (first + 2) % 3)
        sizes = [float(len(candidate.text)) for candidate in made.candidates]
        by = sizes if chance.random() < length else worth
        replies.append(JudgeReply(order, ranking([-by[n] for n in order])))
    return replies


def test_the_length_bias_of_rankings_is_measured_within_its_interval() -> None:
    draws, hits, means = 60, 0, []
    for seed in range(draws):
        chance, seen, truth = random.Random(seed), [], {}
        for n in range(60):
            made, worth = three_answers(chance, n)
            truth |= truth_about(made, worth)
            seen.append(observe(made, None, verdicts_about(made, worth, 0.3, chance), truth))
        found = summed(seen)
        assert (found.bias.votes, found.ranked_bias.votes) == (0, 60 * 3 * 3)
        hits += covers(found.ranked_bias.length, 0.3)
        means.append(found.ranked_bias.length.mean)
    assert hits / draws >= 0.87  # 95 %, less three standard errors
    assert np.mean(means) == pytest.approx(0.3, abs=0.02)
    said = "\n".join(found.lines())
    assert "rankings of three and more are swayed +" in said
    assert "of 540 pairs in them" in said


def test_the_longest_answer_is_the_baseline_of_rankings_too() -> None:
    """The judge is right about all, the longest by chance. Three pairs of a slate are no three slates."""
    chance, seen, truth, right = random.Random(3), [], {}, 0
    for n in range(50):
        made, worth = three_answers(chance, n)
        truth |= truth_about(made, worth)
        ranks = tuple(sorted(worth, reverse=True).index(w) + 1 for w in worth)
        seen.append(observe(made, Label(made.id, "judge:j", "ranked", f"j{n}", ranks), [], truth))
        sizes = [len(candidate.text) for candidate in made.candidates]
        right += sum((sizes[i] > sizes[j]) == (worth[i] > worth[j]) for i, j in pairs(3))
    found = summed(seen)
    assert (found.agrees.part, found.agrees.whole, found.agrees.effective) == (150, 150, 50)
    assert (found.longest.part, found.longest.whole) == (right, 150)
    assert found.longer.part == right
    assert found.longest.effective < 120
    assert covers(found.longest.interval, 0.5)
    assert "of 150 pairs; the longest answer: " in "\n".join(found.lines())


def test_pairs_asked_one_by_one_in_a_slate_of_three_enter_the_bias() -> None:
    made = slate("Which?", "a", "bb", "ccc")
    replies = [JudgeReply(order, "[[A]]") for pair in pairs(3) for order in (pair, pair[::-1])]
    seen = observe(made, None, replies, {Pair(made.id, 0, 2): -1})
    assert (seen.counts["orders"], seen.counts["orders agree"]) == (3, 0)
    assert sum(vote.times for vote in seen.votes) == 6
    assert {(vote.chosen, vote.longer, vote.better): vote.times for vote in seen.votes} == {
        (1, -1, 0): 2,
        (1, 1, 0): 2,
        (1, -1, -1): 1,
        (1, 1, 1): 1,
    }
    sound = [
        JudgeReply(order, "[[B]]" if order[0] < order[1] else "[[A]]") for order in ((0, 1), (1, 0), (1, 2), (2, 1))
    ]
    assert observe(made, None, sound).counts == {"orders": 2, "orders agree": 2}
    assert summed([seen] * 5).bias.place == (1.0, 1.0, 1.0)


def test_a_vote_that_counts_twice_is_two_votes() -> None:
    votes = votes_of(4, 50, 0.2, 0.1, 0.2)
    counted = measure_bias([vote._replace(times=2 if vote.chosen > 0 else 1) for vote in votes])
    written_out = votes + [vote for vote in votes if vote.chosen > 0]
    assert np.array(counted[:4]) == pytest.approx(np.array(measure_bias(written_out)[:4]))
    assert counted.votes == len(written_out) > 100


def test_the_interval_of_a_share_is_over_slates() -> None:
    """Of six pairs nearly all are right on half of the slates, few on others: Wilson's over pairs is too narrow."""
    draws, hits, narrow = 400, 0, 0
    for seed in range(draws):
        chance = random.Random(seed)
        shares = [chance.choice((0.9, 0.3)) for _ in range(60)]
        found = slate_share([(sum(chance.random() < p for _ in range(6)), 6) for p in shares])
        hits += covers(found.interval, 0.6)
        narrow += covers(wilson(found.part / found.whole, found.whole), 0.6)
    assert 0.92 <= hits / draws <= 0.98
    assert narrow / draws < 0.85
    alone = slate_share([(1, 1)] * 30 + [(0, 1)] * 10)
    assert alone.effective == pytest.approx(39)  # pairs of slates of their own: independent, but for S − 1
    assert slate_share([(3, 3)] * 4).effective == 4
    assert slate_share([(1, 2)] * 4).effective == 8
    assert slate_share([(1, 3)]).effective == 1
    assert np.isnan(slate_share([]).interval.mean)
