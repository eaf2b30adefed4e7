"""What counts as a verdict, and what must never count as one."""

import time

import pytest

from judges.verdict import read_verdict

A, B, TIE = (1.0, 2.0), (2.0, 1.0), (1.5, 1.5)


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("[[A]]", A),
        ("[[B]]", B),
        ("[[tie]]", TIE),
        ("[[ B ]]", B),
        ("[[B > A]]", B),
        ("[[A=B]]", TIE),
        ("A", A),
        (" **B**.\n", B),
        ("Answer B", B),
        ("A\n\nB", A),  # a verdict, then what may be quoted from an answer
        ("The answer that is better is B.", B),
        ("[[A]] is what I first thought, but: [[B]]", B),
        ("Verdict: A\nOn reflection the better answer is B.", B),
        ("I weigh both.\n\nFinal answer: **A**", A),
        ("<think>[[B]] would be kind</think>[[A]]", A),
        ("<THINKING>[[B]] would be kind</THINKING>\n[[A]]", A),
        ("<reasoning>[[B]]?</reasoning><thought>[[B]]!</thought>[[A]]", A),
        ("Both claim [[A]]. My verdict: B", B),
    ],
)
def test_the_last_verdict_about_a_pair_counts(text: str, ranks: tuple[float, ...]) -> None:
    verdict = read_verdict(text, 2)
    assert (verdict.outcome, verdict.ranks) == ("tie" if ranks == TIE else "label", ranks)


@pytest.mark.parametrize(
    ("text", "finish", "outcome"),
    [
        ("", "stop", "parse_failure"),
        ("Both are fine answers.", "stop", "parse_failure"),
        ("[[C]]", "stop", "parse_failure"),
        ("[[A or B]]", "stop", "parse_failure"),
        ("[[A]] no: [[both]]", "stop", "parse_failure"),
        ("A good answer names its source.", "stop", "parse_failure"),
        ("The better answer is a matter of taste", "stop", "parse_failure"),
        ("Answer A is better.\nB", "stop", "parse_failure"),
        ("[ [A] ]", "stop", "parse_failure"),
        ("[[A]] if answer A is better, [[B]] if answer B is better", "stop", "parse_failure"),
        ("I'm sorry, I can't compare these.", "stop", "refused"),
        ("[[A]]", "content_filter", "refused"),
        ("Let me compare them. First,", "length", "truncated"),
        ("<think>[[A]] seems right, but", "length", "truncated"),
        ("<think>[[A]] seems right", "stop", "truncated"),
        ("<thinking>[[B]] maybe</thinking> Hmm. no decision", "stop", "parse_failure"),
        ("<thinking>[[B]] maybe", "stop", "truncated"),
        ("<reasoning>[[B]] maybe</reasoning>", "stop", "parse_failure"),
        ("<reasoning>[[B]] maybe", "stop", "truncated"),
        ("<thought>[[B]] maybe</thought>", "stop", "parse_failure"),
        ("<thought>[[B]] maybe", "stop", "truncated"),
        ("[[ABSTAIN]]", "stop", "abstain"),
        ("A > A", "stop", "parse_failure"),
    ],
)
def test_no_verdict_is_a_typed_outcome_with_a_reason(text: str, finish: str, outcome: str) -> None:
    verdict = read_verdict(text, 2, finish)
    assert verdict.outcome == outcome
    assert verdict.ranks == ()
    assert verdict.reason


@pytest.mark.parametrize(
    "text",
    [
        "[[A]] is what a hasty reader would say. On checking, the other one is",
        "I weigh both. [[A]]",
        "Verdict: A\nBut",
        "A",  # of "A good answer"
        '{"verdict": "A", "why',
        '{"verdict": "A"} is what a hasty',
        "<think>Hm.</think>The verdict: B",
    ],
)
def test_the_beginning_of_a_reply_is_no_verdict(text: str) -> None:
    assert read_verdict(text, 2, "length").outcome == "truncated"


@pytest.mark.parametrize("text", ["[[A]]", " [[A]]\n", '{"verdict": "A"}\n\n', "<think>[[B]]?</think>\n[[A]]"])
def test_a_reply_that_is_all_it_was_asked_to_be_counts_though_it_reached_the_limit(text: str) -> None:
    assert read_verdict(text, 2, "length").ranks == A


@pytest.mark.parametrize(
    ("text", "ranks"),
    [
        ("[[B > A = C]]", (2.5, 1.0, 2.5)),  # A and C share places 2 and 3
        ("[[C>B>A]]", (3.0, 2.0, 1.0)),
        ("[[A = B = C]]", (2.0, 2.0, 2.0)),
        ("Ranking: C > A > B", (2.0, 3.0, 1.0)),
        ("[[A > B > C]] wait: [[B > C > A]]", (3.0, 1.0, 2.0)),
    ],
)
def test_a_ranking_of_three(text: str, ranks: tuple[float, ...]) -> None:
    assert read_verdict(text, 3).ranks == ranks


@pytest.mark.parametrize("text", ["[[A > B]]", "[[A > B > B]]", "[[A > B > C > D]]", "[[A]]", "[[A B C]]", "[[TIE]]"])
def test_a_ranking_must_be_a_permutation(text: str) -> None:
    assert read_verdict(text, 3).outcome == "parse_failure"


@pytest.mark.parametrize(
    "unit", ["<think>", "</thought>", "<", "[[", "verdict: A ", "[[A ", "]]", "sorry ", " ", "A > "]
)
def test_long_hostile_replies_are_read_in_linear_time(unit: str) -> None:
    started = time.perf_counter()
    read_verdict(unit * (1_000_000 // len(unit)), 2)
    assert time.perf_counter() - started < 3
