"""People answer a random share of what a judge ranked, and its doubtful slates."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from conftest import slate

import app
from judges.asking_people import audit, doubts, lot, route
from judges.reply import Reply, kept
from labeling.records import (
    Annotator,
    Candidate,
    HumanRequest,
    InvalidRecord,
    JudgeCall,
    Label,
    Lineage,
    Message,
    Prompt,
    Slate,
)
from labeling.store import Store
from labeling.stored_requests import RequestCount

JUDGE, ANN = "judge:j", "human:ann"


def made(n: int, predicted: tuple[float, ...] = ()) -> Slate:
    one = slate(f"Question {n}?", f"One answer to {n}.", f"Another answer to {n}.")
    return Slate(one.prompt, one.candidates, Lineage("r", 1, "random", 1.0, "rm", predicted))


def judged(store: Store, one: Slate, p: float, first_sides: tuple[int, int] | None = None) -> str:
    """A slate with a judge's label; first_sides: which place the replies to both orders name."""
    store.add_slates([one])
    for order, side in zip(((0, 1), (1, 0)), first_sides or (), strict=False):
        reply = Reply(order, "[[A]]" if side == 0 else "[[B]]")
        call = JudgeCall(f"{one.id}{order}", JUDGE, one.id, "unsettled")
        store.reserve_call(call)
        store.settle_call(JudgeCall(call.key, JUDGE, one.id, "label", kept([reply])))
    ranks = (1, 1) if p == 0.5 else (1, 2) if p > 0.5 else (2, 1)
    store.add_labels([Label(one.id, JUDGE, "ranked", f"judged {one.id}", ranks, p)])
    return one.id


def answered(store: Store, id: str) -> None:
    store.add_labels([Label(id, ANN, "ranked", f"ann {id}", (1, 2))])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "project", create=True)
    store.add_annotator(Annotator(JUDGE, "judge"))
    store.add_annotator(Annotator(ANN, "human"))
    return store


def test_a_lot_is_uniform() -> None:
    drawn = np.sort([lot(made(n).id) for n in range(4000)])
    # Kolmogorov-Smirnov: P(sup |F_n - F| > 1.95/sqrt(n)) < 0.001.
    assert np.abs(drawn - (np.arange(4000) + 0.5) / 4000).max() < 1.95 / 4000**0.5


def test_an_audit_is_a_share_of_what_was_ranked_the_same_every_time(store: Store) -> None:
    unjudged, known = made(1000), slate("Known?", "Yes.", "No.")
    store.add_slates([unjudged, known])
    with store.writing():
        ids = [judged(store, made(n), 0.9) for n in range(300)]
    store.add_gold(known.id, (1, 2))
    store.add_labels([Label(known.id, JUDGE, "ranked", "known", (1, 2), 0.9)])
    small = list(audit(JUDGE, 0.1, store))
    assert {r.slate_id for r in small} == {id for id in ids if lot(id) < 0.1}
    assert store.request_people(small) == len(small)
    assert store.request_people(audit(JUDGE, 0.1, store)) == 0
    large = list(audit(JUDGE, 0.2, store))
    assert {r.slate_id for r in small} < {r.slate_id for r in large}
    store.request_people(large)
    store.request_people(audit(JUDGE, 0.05, store))  # a smaller share later takes nothing back
    assert {r.propensity for r in store.human_requests(JUDGE)} == {0.2}
    assert len(store.human_requests(JUDGE)) == len(large)
    assert store.request_counts() == [RequestCount(JUDGE, "audit", len(large), 0, 300)]


def test_the_most_doubtful_are_routed_within_the_budget_each_with_its_reasons(store: Store) -> None:
    sure = judged(store, made(0, (1.0, -1.0)), 0.95, (0, 1))
    even = judged(store, made(1), 0.55)
    orders = judged(store, made(2), 0.7, (0, 0))  # both orders name the first place: opposite answers
    model = judged(store, made(3, (-1.0, 1.0)), 0.9, (0, 1))
    both = judged(store, made(4, (-2.0, 2.0)), 0.45, (1, 1))
    done = judged(store, made(5), 0.5)
    answered(store, done)
    found = route(JUDGE, 10, store)
    by_slate: dict[str, set[str]] = {}
    for request in found:
        by_slate.setdefault(request.slate_id, set()).add(request.reason)
        assert request.propensity is None
    # The reward model agrees with 0.45 that the second is better: its reasons are orders and margin.
    expected = {even: {"margin"}, orders: {"orders"}, model: {"reward_model"}, both: {"orders", "margin"}}
    assert by_slate == expected
    assert sure not in by_slate
    assert found[0].slate_id == both
    first = route(JUDGE, 1, store)
    assert {r.slate_id for r in first} == {both}
    store.request_people(first)
    assert route(JUDGE, 1, store) == []  # the budget is over all runs
    assert {r.slate_id for r in route(JUDGE, 2, store)} == {orders}
    store.request_people([HumanRequest(orders, JUDGE, "audit", 0.1, 0.5)])  # people are to answer that anyway
    assert {r.slate_id for r in route(JUDGE, 9, store)} == {even, model}


def test_rankings_are_doubted_pair_by_pair(store: Store) -> None:
    prompt = made(0).prompt
    three = Slate(prompt, tuple(Candidate(f"answer {n}") for n in range(3)), Lineage(predicted=(2.0, 0.0, -2.0)))
    store.add_slates([three])
    store.add_labels([Label(three.id, JUDGE, "ranked", "k", (3, 2, 1))])
    [request] = route(JUDGE, 9, store)
    # |0 - sigma(2)| = 0.88 twice and |0 - sigma(4)| = 0.98 once: the mean is at least one half.
    assert (request.slate_id, request.reason) == (three.id, "reward_model")


@pytest.mark.parametrize(("reason", "propensity"), [("audit", None), ("audit", 0.0), ("margin", 0.5), ("whim", None)])
def test_a_request_knows_its_chance_exactly_when_it_was_drawn(reason: str, propensity: float | None) -> None:
    with pytest.raises(InvalidRecord):
        HumanRequest("slate_1", JUDGE, reason, 0.0, propensity)  # type: ignore[arg-type]


def test_the_command_asks_people_and_says_whom_and_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(0)
    store = Store(tmp_path / "p", create=True)
    words = ["short", "a longer one", "yes", "no, by no means", "it depends on what is meant by that"]
    store.add_slates(slate(f"Why {n}?", *(f"{w} {n}." for w in chance.sample(words, 2))) for n in range(60))
    arguments = ["judge", "--project", str(tmp_path / "p"), "--judge", "criteria"]
    assert app.main([*arguments, "--audit", "0.25", "--route", "3"]) == 0
    said = capsys.readouterr().out
    asked = {count.reason: count.asked for count in store.request_counts()}
    assert asked["audit"] == sum(lot(s.id) < 0.25 for s in store.slates())
    assert f"people are to answer {asked['audit']} of 60 slates that it ranked" in said
    assert "drawn at random, to measure the judge by; 0 are answered" in said
    assert 1 <= asked.get("margin", 0) <= 3
    assert app.main([*arguments, "--audit", "0.25", "--route", "3"]) == 0  # nothing is asked twice
    assert {count.reason: count.asked for count in store.request_counts()} == asked
    for option, value in (("--audit", "0"), ("--audit", "1.5"), ("--audit", "ten"), ("--route", "0")):
        with pytest.raises(SystemExit):
            app.main([*arguments, option, value])
        assert value in capsys.readouterr().err


RUN = """
iterations = 1
[model]
name = "tiny"
adaptation = "full"
[sampling]
prompts = 4
responses = 3
max_new_tokens = 8
[labels]
slates = 8
candidates = [2]
heldout_share = 0.0
judges = ["criteria"]
audit = 0.5
route = 1
[reward_model]
adaptation = "full"
epochs = 1
[recipe]
name = "grpo"
[evaluation]
prompts = 2
"""


def test_a_loop_asks_people_as_the_command_does(tmp_path: Path) -> None:
    store = Store(tmp_path / "p", create=True)
    store.add_prompts(Prompt((Message("user", f"say {n}"),), "heldout" if n % 3 == 0 else "train") for n in range(12))
    (tmp_path / "run.toml").write_text(RUN)
    assert app.main(["loop", "--project", str(tmp_path / "p"), str(tmp_path / "run.toml")]) == 0
    asked = {count.reason: count for count in store.request_counts()}
    ranked = {s.id for s in store.slates()}
    assert asked["audit"].ranked == len(ranked) == 8
    assert {r.slate_id for r in store.human_requests() if r.reason == "audit"} == {id for id in ranked if lot(id) < 0.5}
    assert len({r.slate_id for r in store.human_requests() if r.reason != "audit"}) <= 1


def test_orders_of_single_pairs_are_compared_pair_by_pair() -> None:
    """As a local judge asks about three: of (0, 2) both orders name the first place, so a third is doubtful."""
    three = slate("Question?", "One.", "Two.", "Three.")
    said = {(0, 1): "[[A]]", (1, 0): "[[B]]", (0, 2): "[[A]]", (2, 0): "[[A]]", (1, 2): "[[A]]", (2, 1): "[[B]]"}
    label = Label(three.id, JUDGE, "ranked", "l", (1, 2, 3))
    assert doubts(three, label, [Reply(order, text) for order, text in said.items()]) == {
        "orders": pytest.approx(1 / 3)
    }
    scores = [Reply((n,), f"[[{n}]]", scale=(0, 5)) for n in range(3)]
    assert doubts(three, label, scores) == {}
