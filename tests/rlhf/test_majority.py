"""Answers in texts, nasty ones too, and the vote over them."""

import pytest

from rlhf.majority import boxed, choice, last_line, last_number, vote


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is 42.", "42"),
        ("first 1, then 2", "2"),
        ("$1,250.0", "1250"),
        ("1250", "1250"),
        ("007", "7"),
        ("1,234,567.50 in all", "1234567.5"),
        ("1,2,3", "3"),  # a list and no thousands
        ("12,34", "34"),
        ("-3.00", "-3"),
        ("−3", "-3"),  # a minus sign that is not a hyphen
        ("it lost (-5)", "-5"),
        ("x = -4", "-4"),
        ("pages 3-4", "4"),  # a range
        ("f(x)-7", "7"),
        (".5", "0.5"),
        ("-.25", "-0.25"),
        ("-0", "0"),
        ("0.000", "0"),
        ("100", "100"),  # zeros before the point stay
        ("5,", "5"),
        ("٣", "3"),  # Arabic digits are digits
        ("1" * 40, "1" * 40),  # not rounded to what a float or a short decimal holds
        ("0." + "1" * 40, "0." + "1" * 40),
        ("no number", None),
        ("", None),
        ("- , .", None),
    ],
)
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


def test_a_very_long_number_takes_no_time() -> None:
    assert last_number("9" * 100_000) == "9" * 100_000
    assert last_number("1," * 50_000) == "1"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{12}", "12"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{ x +  y }", "x+y"),
        (r"\boxed{{}}", "{}"),
        (r"\boxed{}", None),
        (r"\boxed{1", None),
        (r"\boxed", None),
        ("12", None),
    ],
)
def test_boxed(text: str, answer: str | None) -> None:
    assert boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is (B).", "B"),
        ("A or B? It is C", "C"),
        ("**D**", "D"),
        ("_E_", "E"),
        ("vitamin B12", None),
        ("ÉA", None),
        ("Because", None),
        ("a, b, c", None),
        ("F", None),
        ("", None),
    ],
)
def test_choice(text: str, answer: str | None) -> None:
    assert choice(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("well\n  The   SUN \n\n", "the sun"),
        ("one line", "one line"),
        ("a\r\nb\r\n", "b"),
        ("Straße", "strasse"),
        ("  \n \t\n", None),
        ("", None),
    ],
)
def test_last_line(text: str, answer: str | None) -> None:
    assert last_line(text) == answer


@pytest.mark.parametrize(
    ("answers", "winner", "share"),
    [
        (["1", "2", "2", None], "2", 0.5),  # of all samples, with or without an answer
        (["3", "1", "1", "3"], "3", 0.5),  # of equally frequent ones the first
        ([None, "7", None], "7", 1 / 3),  # silence is no answer, however frequent
        ([None, None], None, 0.0),
        ([], None, 0.0),
    ],
)
def test_vote(answers: list[str | None], winner: str | None, share: float) -> None:
    assert vote(answers) == (winner, pytest.approx(share))
