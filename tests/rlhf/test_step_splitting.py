"""Where steps end, in texts and among the bytes of the tiny model's tokenizer."""

import pytest

from rlhf.backbones import Backbone, decode_response, encode_response, load_backbone
from rlhf.step_splitting import SPLITTERS, token_ends


def pieces(text: str, split: str) -> list[str]:
    ends = SPLITTERS[split](text)
    return [text[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)] if ends else []


@pytest.mark.parametrize(
    ("split", "text", "steps"),
    [
        ("lines", "one\ntwo", ["one\n", "two"]),
        ("lines", "one\n\n\ntwo\n", ["one\n\n\n", "two\n"]),
        ("lines", "\n\none\n  \ntwo", ["\n\none\n  \n", "two"]),  # blank space belongs to the step before it
        ("lines", "a\r\nb", ["a\r\n", "b"]),
        ("lines", "one", ["one"]),
        ("lines", "", []),
        ("lines", " \n ", []),
        ("paragraphs", "one\ntwo\n \nthree", ["one\ntwo\n \n", "three"]),
        ("sentences", "One. Two! Three?", ["One. ", "Two! ", "Three?"]),
        ("sentences", "It is 3.14, see a.b.", ["It is 3.14, see a.b."]),
        ("sentences", 'He said "Go." Then left...', ['He said "Go." ', "Then left..."]),
        ("sentences", "你好。再见！「好？」走", ["你好。", "再见！", "「好？」", "走"]),  # no space between sentences
        ("sentences", "no end", ["no end"]),
    ],
)
def test_splitters(split: str, text: str, steps: list[str]) -> None:
    assert pieces(text, split) == steps


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("tiny")


def steps_of(backbone: Backbone, ids: list[int], split: str) -> list[str]:
    """The text of each step's tokens."""
    ends = token_ends(ids, lambda part: decode_response(backbone, part), SPLITTERS[split])
    assert ends[-1] == len(ids) - 1
    return [
        decode_response(backbone, ids[a : b + 1]) for a, b in zip([0, *(e + 1 for e in ends[:-1])], ends, strict=True)
    ]


@pytest.mark.parametrize(
    ("split", "text", "steps"),
    [
        ("lines", "one\ntwo\nthree", ["one\n", "two\n", "three"]),
        ("lines", "naïve 😀😀\n日本語\n👩‍👩‍👧\nend", ["naïve 😀😀\n", "日本語\n", "👩‍👩‍👧\n", "end"]),
        # Each of these characters is three bytes: a step ends with the last of them, not with the first.
        ("sentences", "你好。再见。走", ["你好。", "再见。", "走"]),
        ("sentences", "Fine 😀. Next é! ok", ["Fine 😀. ", "Next é! ", "ok"]),
        ("lines", "one", ["one"]),
        ("lines", "one\n\n", ["one\n\n"]),
    ],
)
def test_steps_among_tokens(backbone: Backbone, split: str, text: str, steps: list[str]) -> None:
    assert steps_of(backbone, encode_response(backbone, text, finished=False), split) == steps
    # The end-of-sequence token belongs to the last step and has no text.
    assert steps_of(backbone, encode_response(backbone, text, finished=True), split) == steps


def test_a_response_that_is_its_end_alone_is_one_step(backbone: Backbone) -> None:
    assert token_ends([0], lambda part: decode_response(backbone, part), SPLITTERS["lines"]) == [0]


def test_broken_bytes_are_split_like_any_text(backbone: Backbone) -> None:
    # A response that was cut off inside an emoji, and stray bytes of one in the middle.
    ids = encode_response(backbone, "a\n😀", finished=False)[:-2]
    assert steps_of(backbone, ids, "lines")[0] == "a\n"
    stray = encode_response(backbone, "😀", finished=False)[1:3]
    ids = [*encode_response(backbone, "x", finished=False), *stray, *encode_response(backbone, "\ny", finished=False)]
    assert steps_of(backbone, ids, "lines")[-1] == "y"


def test_tokens_of_many_characters() -> None:
    # A token may be a whole step, end two at once, or begin the next one: that step ends where its text is complete.
    pieces = ["a\n", "b\nc", "\nd", "e", ""]
    ends = token_ends(range(5), lambda ids: "".join(pieces[i] for i in ids), SPLITTERS["lines"])
    assert ends == [0, 1, 2, 4]
    pieces = ["a", "\nb\nc\n", "d"]
    assert token_ends(range(3), lambda ids: "".join(pieces[i] for i in ids), SPLITTERS["lines"]) == [1, 2]
