"""Texts of the pretraining term, from a file and as tokens."""

from pathlib import Path

import pytest

from labeling.records import UserError
from rlhf.backbones import load_backbone
from rlhf.pretraining_texts import Text, read_texts, text_groups


def write(folder: Path, *lines: str) -> Path:
    path = folder / "texts.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_texts_and_responses(tmp_path: Path) -> None:
    # A line separator inside a text is text.
    path = write(tmp_path, '{"text": "one\u2028line"}', "", '{"prompt": "p", "response": "r"}')
    assert read_texts(path) == (Text("one\u2028line"), Text("r", "p"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"text": " "}', 'write {"text"'),
        ('{"text": 3}', 'write {"text"'),
        ('{"response": "r"}', 'write {"text"'),
        ('{"text": "\\ud800"}', "cannot be stored"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        read_texts(write(tmp_path, '{"text": "fine"}', line))
    assert "texts.jsonl:2: " in str(caught.value)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jsonl", write(tmp_path, "")):
        with pytest.raises(UserError, match=path.name):
            read_texts(path)


def test_only_what_is_not_the_prompt_counts() -> None:
    backbone = load_backbone("tiny")
    plain, answered = text_groups(backbone, [Text("ab"), Text("r", "p")])
    first, second = backbone.tokenizer("ab")["input_ids"]
    assert (plain.prompt, plain.candidates) == ((first,), ((second, 0),))  # closed by the end-of-sequence token
    assert answered.prompt == tuple(backbone.tokenizer("u:p\na:")["input_ids"])
    assert answered.candidates == ((*backbone.tokenizer("r")["input_ids"], 0),)
    # A text longer than the model's context is cut, a prompt that fills it is left out.
    (cut,) = text_groups(backbone, [Text("x" * 9999), Text("r", "p" * 9999)])
    assert cut.tokens == backbone.context
