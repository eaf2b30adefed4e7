"""A record that breaks its own rules cannot exist."""

from __future__ import annotations

import pytest

from labeling.preferences import expand
from labeling.records import Annotator, Candidate, InvalidRecord, Label, Lineage, Message, Prompt, Slate

QUESTION = Prompt((Message("user", "Why is the sky blue?"),))
ANYONE = Annotator("human:a", "human")


def ranked(*ranks: int, **more: object) -> Label:
    return Label("slate_1", "human:a", "ranked", "key", ranks=ranks, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Message("robot", "hi"), "role 'robot' is not one of system, user, assistant"),  # type: ignore[arg-type]
        (lambda: Prompt(()), "at least one message"),
        (lambda: Prompt((Message("user", " \n"),)), "the prompt is empty"),
        (lambda: Prompt((Message("assistant", "hi"),)), "before the assistant's turn"),
        (lambda: Prompt(QUESTION.messages, "test"), "split 'test' is not one of train, heldout"),  # type: ignore[arg-type]
        (lambda: Slate(QUESTION, (Candidate("a"),)), "2 to 9 candidates, not 1"),
        (lambda: Slate(QUESTION, tuple(map(Candidate, "abcdefghij"))), "2 to 9 candidates, not 10"),
        (lambda: Slate(QUESTION, (Candidate("a"), Candidate("a", "other"))), "must differ"),
        (lambda: Lineage(propensity=0.0), "propensity"),
        (lambda: Lineage(predicted=(float("nan"),)), "finite"),
        (lambda: Annotator(" ", "human"), "needs a name"),
        (lambda: Annotator("a", "human", weight=-1), "weight"),
        (lambda: Annotator("a", "human", flip_rate=1), "flip rate"),
        (lambda: ranked(1, 3), "whole numbers from 1 (best) to 2"),
        (lambda: ranked(0, 1), "whole numbers"),
        (lambda: ranked(True, 1), "whole numbers"),
        (lambda: ranked(1), "2 to 9"),
        (lambda: ranked(1, 2, order=(0, 0)), "permutation"),
        (lambda: ranked(1, 2, 3, probability=0.5), "ranked pair"),
        (lambda: ranked(1, 2, probability=1.1), "lies in [0, 1]"),
        (lambda: Label("slate_1", "human:a", "skip", "key", ranks=(1, 2)), "exactly when"),
        (lambda: Label("slate_1", "human:a", "ranked", "key"), "exactly when"),
        (lambda: Label("slate_1", "human:a", "maybe", "key"), "outcome 'maybe'"),  # type: ignore[arg-type]
        (lambda: Label("slate_1", "human:a", "skip", ""), "client_key"),
    ],
)
def test_a_broken_record_is_refused_with_one_line(make, complaint):
    with pytest.raises(InvalidRecord) as refused:
        make()
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_the_same_has_the_same_id_and_what_differs_does_not():
    texts = (Candidate("red"), Candidate("blue"))
    assert Slate(QUESTION, texts).id == Slate(Prompt(QUESTION.messages, "heldout"), texts).id
    different = [
        Slate(QUESTION, texts),
        Slate(QUESTION, texts[::-1]),
        Slate(QUESTION, (Candidate("red"), Candidate("blue", finished=False))),
        Slate(QUESTION, texts, Lineage(run="r")),
        Slate(QUESTION, texts, Lineage(run="r", iteration=1)),
        Slate(Prompt((Message("user", "Why?"),)), texts),
    ]
    assert len({slate.id for slate in different}) == len(different)


def test_a_weak_order_expands_into_all_pairs_with_ties_at_one_half():
    # Candidate 2 is best, 0 and 3 tie behind it, 1 is last.
    expanded = expand(ranked(2, 3, 1, 2), Annotator("human:a", "human", weight=2.0, flip_rate=0.1))
    assert {(p.i, p.j): p.p for p in expanded} == {(0, 1): 1, (0, 2): 0, (0, 3): 0.5, (1, 2): 0, (1, 3): 0, (2, 3): 1}
    assert {(p.weight, p.flip_rate) for p in expanded} == {(2.0, 0.1)}


def test_a_strength_becomes_a_margin_on_the_preferred_side():
    assert [p.margin for p in expand(ranked(2, 1, strength=0.5), ANYONE)] == [-0.5]
    assert [p.margin for p in expand(ranked(1, 1, strength=0.5), ANYONE)] == [0.0]


@pytest.mark.parametrize("outcome", ["both_bad", "skip", "abstain", "parse_failure", "endpoint_failure", "undone"])
def test_what_is_no_answer_expands_into_nothing(outcome):
    assert expand(Label("slate_1", "human:a", outcome, "key"), ANYONE) == ()
