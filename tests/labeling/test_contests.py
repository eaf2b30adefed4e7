"""What an agent's run asks about: contests chosen from a pool, how many in each iteration, and segments that stay."""

from __future__ import annotations

import io
import itertools
import pickle
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from labeling.segments import Segment, from_bytes, to_bytes
from labeling.selection import Contest, choose_contests
from labeling.store import Store
from rlhf.run_config import LabelConfig

DRAWS = 6000  # standard error of a frequency <= 0.0065
RATES = (0.1, 0.4, 0.2, 0.3)


def draws(count: int, share: float = 0.3, rates: tuple[float, ...] = RATES) -> list[list[Contest]]:
    chance = random.Random(7)
    return [choose_contests(4, rates, count, share, chance) for _ in range(DRAWS)]


# Which contests


def test_the_first_choice_is_as_likely_as_it_says() -> None:
    # Largest: number 1, with (1 − 0.3) + 0.3/4 = 0.775; each other 0.3/4 = 0.075. Together 1.
    made = [chosen[0] for chosen in draws(1)]
    told = {c.number: c.propensity for c in made}
    assert told == {n: pytest.approx(0.775 if n == 1 else 0.075) for n in range(4)}
    assert sum(told.values()) == pytest.approx(1)
    seen = Counter(c.number for c in made)
    for number, propensity in told.items():
        assert seen[number] / DRAWS == pytest.approx(propensity, abs=0.025)


def test_a_later_choice_is_as_likely_as_it_says_given_those_before() -> None:
    # After number 1 the largest is 3: (1 − 0.3) + 0.3/3 = 0.8, and 0.1 for 0 and 2. After 0, 2 or 3 it still is 1.
    after: dict[int, Counter[int]] = {n: Counter() for n in range(4)}
    for first, second in draws(2):
        after[first.number][second.number] += 1
        best = 3 if first.number == 1 else 1
        assert second.propensity == pytest.approx(0.8 if second.number == best else 0.1)
    assert after[1][3] / after[1].total() == pytest.approx(0.8, abs=0.03)
    assert after[1][0] / after[1].total() == pytest.approx(0.1, abs=0.03)
    assert after[3][1] / after[3].total() == pytest.approx(0.8, abs=0.08)


def test_the_arm_that_is_written_down_is_the_one_that_chose() -> None:
    made = [c for chosen in draws(3) for c in chosen]
    assert sum(c.selector == "random" for c in made) / len(made) == pytest.approx(0.3, abs=0.015)
    for chosen in draws(3):
        left = set(range(4))
        for c in chosen:
            if c.selector == "disagreement":
                assert c.number == max(left, key=RATES.__getitem__)
            left.remove(c.number)
    uniform = Counter(c.number for (c,) in draws(1) if c.selector == "random")
    for number in range(4):
        assert uniform[number] / uniform.total() == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("rates", [RATES, ()])
def test_none_is_chosen_twice_and_no_more_than_there_are(rates: tuple[float, ...]) -> None:
    for chosen in draws(9, rates=rates)[:200]:
        assert sorted(c.number for c in chosen) == [0, 1, 2, 3]
        assert chosen[-1].propensity == pytest.approx(1)  # the only one left
    assert choose_contests(0, (), 3, 0.2, random.Random(0)) == []
    assert choose_contests(4, RATES, 0, 0.2, random.Random(0)) == []


def test_where_no_disagreement_is_known_all_is_chance() -> None:
    made = draws(2, share=0.0, rates=())
    assert {(c.selector, c.propensity) for chosen in made for c in chosen} == {("random", 1 / 4), ("random", 1 / 3)}
    firsts = Counter(chosen[0].number for chosen in made)
    assert all(firsts[n] / DRAWS == pytest.approx(0.25, abs=0.03) for n in range(4))


def test_without_a_random_arm_the_largest_come_in_turn_and_for_certain() -> None:
    chosen = choose_contests(4, RATES, 3, 0.0, random.Random(0))
    assert chosen == [Contest(n, "disagreement", 1.0) for n in (1, 3, 2)]


def test_with_nothing_but_the_random_arm_disagreement_counts_for_nothing() -> None:
    made = [chosen[0] for chosen in draws(1, share=1.0)]
    assert {(c.selector, c.propensity) for c in made} == {("random", 0.25)}


def test_the_same_stream_makes_the_same_choice() -> None:
    one, other = (choose_contests(4, RATES, 3, 0.5, random.Random(3)) for _ in range(2))
    assert one == other


# How many


def wrong_totals(first: int | None, anneal: float | None) -> list[tuple[int, int]]:
    """Totals and iterations for which the run asks about another number of slates, or about less than none."""
    wrong = []
    for total, iterations in itertools.product((60, 61, 97, 200, 1403), (1, 2, 3, 7, 30, 101)):
        labels = LabelConfig(slates=12, first_slates=first, total=total, anneal=anneal)
        asked = [labels.asked(i, iterations) for i in range(1, iterations + 1)]
        if sum(asked) != total or min(asked) < 0 or (iterations > 1 and asked[0] != (first or 12)):
            wrong.append((total, iterations))
    return wrong


@pytest.mark.parametrize("anneal", [0.5, 2.0, 7.5, 1000.0])
@pytest.mark.parametrize("first", [None, 1, 5, 60])
def test_the_whole_run_asks_about_exactly_the_total(first: int | None, anneal: float) -> None:
    assert wrong_totals(first, anneal) == []


def test_a_slate_is_not_lost_or_asked_twice_where_shares_are_halves() -> None:
    # 200 − 5 = 195 over 100 iterations: 1.95 each, so sums such as 58.5 are rounded to one side only.
    assert [wrong_totals(first, None) for first in (None, 1, 5, 60)] == [[]] * 4


def test_shares_by_hand() -> None:
    # anneal 2: 2/(2 + i) for i = 2, 3, 4 is 1/2, 2/5, 1/3, together 37/30. 84 − 10 = 74 makes 60 each unit: 30, 24, 20.
    labels = LabelConfig(first_slates=10, total=84, anneal=2.0)
    assert [labels.asked(i, 4) for i in (1, 2, 3, 4)] == [10, 30, 24, 20]
    # Without a total the unit is `slates`: 60/2, 60·2/5, 60/3.
    labels = LabelConfig(slates=60, first_slates=10, anneal=2.0)
    assert [labels.asked(i, 4) for i in (1, 2, 3, 4)] == [10, 30, 24, 20]
    assert [LabelConfig(slates=7).asked(i, 3) for i in (1, 2, 3)] == [7, 7, 7]
    assert [LabelConfig(first_slates=3, total=10).asked(i, 4) for i in (1, 2, 3, 4)] == [3, 2, 3, 2]  # 7/3 each


@pytest.mark.parametrize("total", [None, 400, 1400])
@pytest.mark.parametrize("anneal", [1.0, 5.0, 20.0])
def test_requests_fall_with_anneal(anneal: float, total: int | None) -> None:
    labels = LabelConfig(slates=40, first_slates=20, total=total, anneal=anneal)
    asked = [labels.asked(i, 40) for i in range(2, 41)]
    assert all(later <= sooner + 1 for sooner, later in itertools.pairwise(asked))  # but for the rounding
    fall = asked[0] / asked[-1]
    assert fall == pytest.approx((anneal + 40) / (anneal + 2), rel=0.35)


# Segments


def segment(seed: int = 2**31 - 1, actions: np.ndarray | None = None, start: int = 2, **more: object) -> Segment:
    actions = np.linspace(-1, 1, 10, dtype=np.float32).reshape(5, 2) if actions is None else actions
    steps = np.random.default_rng(seed).normal(size=(len(actions) - start, 4)).astype(np.float32)
    return Segment('{"id": "A-v0"}', seed, start, actions, steps, -1.25, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "made",
    [segment(ended=True), segment(0, np.array([0, 2, 1])), segment(1, np.zeros((3, 1), dtype=np.float64), start=0)],
    ids=["ended", "choices", "from the reset on"],
)
def test_a_segment_comes_back_as_it_was(made: Segment, tmp_path: Path) -> None:
    store = Store(tmp_path / "project", create=True)
    other = segment(5)
    assert [store.add_segments([made, made, other]), store.add_segments([made])] == [2, 0]
    found = Store(tmp_path / "project").segments([made.id, "clip_0000000000000000"])
    assert list(found) == [made.id]
    (back,) = found.values()
    for name in ("environment", "seed", "start", "gold", "ended", "id"):
        assert getattr(back, name) == getattr(made, name), name
    for name in ("actions", "steps"):
        assert getattr(back, name).dtype == getattr(made, name).dtype
        assert np.array_equal(getattr(back, name), getattr(made, name))
    assert store.segments([]) == {}


def test_what_is_shown_names_a_segment() -> None:
    one = segment()
    assert one.id == segment().id == segment(ended=True).id
    different = {one.id, segment(3).id, segment(start=1).id, segment(actions=np.zeros((5, 2), dtype=np.float32)).id}
    assert len(different | {segment(actions=np.zeros((5, 2), dtype=np.int32)).id}) == 5


class Bomb:
    """Runs code when it is unpickled."""

    gone_off = False

    def __reduce__(self) -> tuple:
        return setattr, (Bomb, "gone_off", True)


def test_bytes_that_bring_code_along_are_refused_and_never_run() -> None:
    array = np.array([Bomb()], dtype=object)
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    for data in (file.getvalue(), pickle.dumps(Bomb())):
        with pytest.raises(ValueError, match="allow_pickle"):
            from_bytes(data)
    assert not Bomb.gone_off
    with pytest.raises(ValueError, match="allow_pickle"):
        to_bytes(array)


def test_a_stored_segment_that_was_swapped_for_code_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "project", create=True)
    made = segment()
    store.add_segments([made])
    file = io.BytesIO()
    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    with store.writing():
        store.db.execute("UPDATE segment SET actions = ?", [file.getvalue()])
    with pytest.raises(ValueError, match="allow_pickle"):
        store.segments([made.id])
    assert not Bomb.gone_off
