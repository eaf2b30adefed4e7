"""Judges and rubrics as files: what ships works, and a mistake is one line that names file, key and cure."""

from collections.abc import Callable
from pathlib import Path

import pytest

from judges.config import load_judge
from judges.endpoint_judge import EndpointJudge
from judges.rubric import load_rubric
from labeling.records import UserError

DATA = Path(__file__).parents[2] / "data"
CRITERIA = 'name = "r"\ninstructions = "x"\n[[criteria]]\n'


@pytest.mark.parametrize("path", sorted((DATA / "judges").glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_judges_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-key")
    judge = load_judge(path, DATA, lambda clip, count: [], lambda name: pytest.fail("it loaded a model"))
    assert judge.annotator.id.startswith("judge:")
    assert "test-key" not in repr(judge)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (CRITERIA + 'kind = "lenght"', ["criteria.#1.kind = 'lenght'", "'length'", "'finished'"]),
        (
            CRITERIA + 'kind = "length"\nleast = 9\nmost = 5',
            ["criteria.#1.length: least (9) must not exceed"],
        ),
        (CRITERIA + 'kind = "length"\nleast = 9', ["criteria.#1.length.most is missing"]),
        (CRITERIA + 'kind = "finished"\nwieght = 2', ["criteria.#1.finished.wieght is not a known key"]),
        (CRITERIA + 'kind = "finished"\nweight = -2', ["criteria.#1.finished.weight = -2", "greater than 0"]),
        (CRITERIA + "weight = 1", ["criteria.#1.kind is missing"]),
        ('name = "r"', ["instructions is missing"]),
        ('name = "r"\ninstructions = "x"\ntie = 1', ["tie is not a known key", "tie_margin"]),
        ('name = "r"\ninstructions = !\n', ["not valid TOML", "line 2"]),
    ],
)
def test_a_mistake_in_a_rubric(text: str, says: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_rubric(str(path), DATA / "rubrics")
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    for part in says:
        assert part in str(error.value)


def test_a_rubric_in_markdown(tmp_path: Path, judge_file: Callable[..., Path]) -> None:
    path = tmp_path / "kind.md"
    path.write_text("# What is better\n\nThe **kind** answer.\n")
    plain = load_rubric(str(path), DATA / "rubrics")
    assert (plain.name, plain.instructions) == ("kind", "# What is better\n\nThe **kind** answer.")
    path.write_text(
        '+++\nscale = [1, 10]\n[[aspects]]\nname = "tone"\ndescription = "warm"\n+++\nThe kind one.\n\n+++ no\n'
    )
    more = load_rubric(str(path), DATA / "rubrics")
    assert (more.scale, more.aspects[0].name, more.instructions) == ((1, 10), "tone", "The kind one.\n\n+++ no")
    judge = load_judge(judge_file("http://127.0.0.1:1/v1", rubric="kind.md"), DATA)
    assert judge.rubric == more


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "instructions = '': string should have at least 1 character"),
        ("+++\nscale = [1, 10]\nThe kind one.", r"the line \+\+\+ at its top has no second one"),
        ("+++\nscale = !\n+++\nx", "is not valid TOML"),
        ("+++\nscal = 1\n+++\nx", "scal is not a known key"),
    ],
)
def test_a_mistake_in_a_rubric_in_markdown(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "kind.md"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        load_rubric(str(path), DATA / "rubrics")


def test_an_unknown_rubric_names_the_shipped_ones() -> None:
    with pytest.raises(
        UserError, match="'consice': use one of brief, clip, code, concise, friendly, harmless, helpful, honest"
    ):
        load_rubric("consice", DATA / "rubrics")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "oracle"}, "kind = 'oracle': must be one of criteria, endpoint, local"),
        ({"concurrency": 0}, "concurrency = 0: "),
        ({"base_url": "localhost:8080"}, "base_url = 'localhost:8080': "),
        ({"modle": "x"}, r"modle is not a known key \(known: .*model"),
        ({"api_key": "sk-secret"}, r"api_key is not a known key \(known: .*api_key_env"),
        ({"api_key_env": "NO_SUCH_KEY_HERE"}, "environment variable NO_SUCH_KEY_HERE .* is not set"),
        ({"base_url": ""}, "base_url is missing: add it, or set the environment variable OPENAI_BASE_URL"),
        ({"kind": "criteria"}, "is not a known key"),
        ({"name": "a b"}, "name = 'a b': "),
        ({"max_tokens": 10**400}, f"max_tokens = 1{'0' * 78}…: a whole number has 64 bits at most"),
        ({"max_tokens": 2**62}, "max_tokens = 4611686018427387904: input should be less than or equal to 2147483648"),
        ({"name": "a b" * 100}, r"name = 'a b[^\n]{75}…: "),
    ],
)
def test_a_mistake_in_a_judge(
    settings: dict[str, object], says: str, judge_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    path = judge_file(**{"base_url": "http://127.0.0.1:1/v1", **settings})
    with pytest.raises(UserError, match=says) as error:
        load_judge(path, DATA)
    assert str(path) in str(error.value)
    assert "sk-secret" not in str(error.value)


def test_the_address_may_come_from_the_environment(
    judge_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:7/v1")
    judge = load_judge(judge_file(""), DATA)
    assert isinstance(judge, EndpointJudge)
    assert judge.endpoint.base_url == "http://127.0.0.1:7/v1"


def test_a_changed_rubric_or_model_is_another_annotator(judge_file: Callable[..., Path], tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/v1"
    first = load_judge(judge_file(url), DATA).annotator.id
    assert load_judge(judge_file(url, concurrency=3), DATA).annotator.id == first
    assert load_judge(judge_file(url, model="other"), DATA).annotator.id != first
    path = judge_file(url)
    (tmp_path / "rubric.toml").write_text('name = "test"\ninstructions = "The better answer is false."')
    assert load_judge(path, DATA).annotator.id != first


def test_a_criteria_judge_needs_criteria(judge_file: Callable[..., Path], tmp_path: Path) -> None:
    path = judge_file("unused")
    path.write_text('kind = "criteria"\nname = "c"\nrubric = "rubric.toml"')
    with pytest.raises(UserError, match="has no \\[\\[criteria\\]\\]"):
        load_judge(path, DATA)
