"""TRL's dataset types, by the names of its documentation: all forms of a preference, and unpaired preferences."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from test_exchange_export import full  # noqa: F401 - the store with every kind of label

from labeling.exchange import export_file, import_file
from labeling.records import Message, Prompt, UserError
from labeling.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def ranking(store: Store) -> list[tuple[str, str, str]]:
    """(prompt, better, worse) of each label."""
    slates = {slate.id: slate for slate in store.slates()}
    found = []
    for label in store.labels():
        slate = slates[label.slate_id]
        better, worse = sorted(range(2), key=(label.ranks or ()).__getitem__)
        texts = [candidate.text for candidate in slate.candidates]
        found.append((slate.prompt.messages[-1].content, texts[better], texts[worse]))
    return found


STANDARD_IMPLICIT = {"chosen": "The sky is blue.", "rejected": "The sky is green."}
STANDARD_EXPLICIT = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}


def test_a_standard_preference_is_the_same_with_its_prompt_implicit(store: Store, tmp_path: Path) -> None:
    import_file(store, write(tmp_path / "pairs.jsonl", STANDARD_IMPLICIT))
    assert ranking(store) == [("The sky is", " blue.", " green.")]
    assert import_file(store, write(tmp_path / "pairs.jsonl", STANDARD_EXPLICIT)).labels_new == 0


def test_an_implicit_prompt_ends_with_a_whole_word(store: Store, tmp_path: Path) -> None:
    lines = [{"chosen": "Say brown", "rejected": "Say bread"}, {"chosen": "Do it", "rejected": "Do it's best"}]
    import_file(store, write(tmp_path / "pairs.jsonl", *lines))
    assert ranking(store) == [("Say", " brown", " bread"), ("Do", " it", " it's best")]


def test_texts_that_share_no_word_have_no_prompt(store: Store, tmp_path: Path) -> None:
    for chosen, rejected in (("brown", "bread"), ("A x", "B x"), (" x", " y")):
        with pytest.raises(UserError, match='give the prompt under the key "prompt"'):
            import_file(store, write(tmp_path / "pairs.jsonl", {"chosen": chosen, "rejected": rejected}))


def test_a_response_that_the_other_goes_on_from_is_empty(store: Store, tmp_path: Path) -> None:
    report = import_file(store, write(tmp_path / "pairs.jsonl", {"chosen": "It is", "rejected": "It is so"}))
    assert report.skipped == ((1, "an empty response"),)


def turns(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def unpaired(completion: str, label: bool, prompt: str = "Tea?") -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "label": label}


def test_unpaired_completions_of_a_prompt_become_pairs_in_turn(store: Store, tmp_path: Path) -> None:
    lines = [
        unpaired("bad 1", False),
        unpaired("other", True, "Coffee?"),
        unpaired("bad 2", False),
        unpaired("good 1", True),
        {"prompt": turns("user", "Tea?"), "completion": turns("assistant", "good 2"), "label": True},
        unpaired("good 3", True),
    ]
    report = import_file(store, write(tmp_path / "kto.jsonl", *lines))
    assert ranking(store) == [("Tea?", "good 1", "bad 1"), ("Tea?", "good 2", "bad 2")]
    why = "no completion of the same prompt has the other verdict"
    assert report.skipped == ((2, why), (6, why))
    assert (report.lines, report.labels_new) == (6, 2)
    assert import_file(store, tmp_path / "kto.jsonl").labels_new == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"prompt": "x", "completion": "y", "label": 1}, "'label' must be true or false"),
        ({"prompt": "x", "completion": "y"}, "'label' is missing"),
        ({"prompt": "x", "label": True}, "a line of prompts has no key 'label'"),
        ({"completion": "y", "label": True}, "'prompt' is missing"),
        ({"prompt": "x", "completion": 5, "label": True}, "'completion' must be text"),
        ({"prompt": "x", "completion": "y", "label": True, "score": 1}, "no key 'score'"),
    ],
)
def test_an_unpaired_line_that_is_none(store: Store, tmp_path: Path, line: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=rf"kto\.jsonl:2: .*{says}"):
        import_file(store, write(tmp_path / "kto.jsonl", unpaired("a", True), line))
    assert store.prompts() == []


SCORED = {"prompt_id": "6f", "score_chosen": 8.5, "score_rejected": 3, "margin": 5.5, "messages": turns("user", "Tea?")}


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.json", "pairs.parquet"])
def test_scores_beside_a_pair_are_left_out_in_every_kind_of_file(store: Store, tmp_path: Path, name: str) -> None:
    pairs = [
        {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."},
        {"prompt": "Tea?", "chosen": "A", "rejected": "B"},
    ]
    lines = [{**pairs[0], **SCORED}, {**SCORED, **pairs[1]}]
    path = write(tmp_path / name, *lines)
    if name.endswith(".json"):
        path.write_text(json.dumps(lines))
    elif name.endswith(".parquet"):
        pyarrow = importlib.import_module("pyarrow")
        importlib.import_module("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(lines), path)
    report = import_file(store, path)
    assert ranking(store) == [("Tea?", "Yes.", "No."), ("Tea?", "A", "B")]
    assert set(report.ignored) == SCORED.keys()
    assert "columns or keys not read: " in str(report)


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "x", "chosen": "a", "rejected": "b", "scores": 1},  # a slip of the pen is told as before
        {"prompt": "x", "score_chosen": 1},
        {"prompt": "x", "response_1": "a", "response_2": "b", "margin": 1},
    ],
)
def test_other_keys_are_refused(store: Store, tmp_path: Path, line: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"has no key '{list(line)[-1]}'"):
        import_file(store, write(tmp_path / "x.jsonl", line))


def test_each_decided_pair_is_exported_as_a_good_and_a_bad_completion(full: Store, tmp_path: Path) -> None:  # noqa: F811
    pairs, singles = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    won = export_file(full, pairs, "pairs")
    report = export_file(full, singles, "unpaired")
    assert (report.lines, report.ties) == (2 * won.lines, won.ties) == (12, 1)
    lines = [json.loads(line) for line in singles.read_text().split("\n")[:-1]]
    assert lines[:2] == [
        {"prompt": turns("user", "Tea?"), "completion": turns("assistant", "Yes."), "label": True},
        {"prompt": turns("user", "Tea?"), "completion": turns("assistant", "No."), "label": False},
    ]
    for pair, good, bad in zip(
        map(json.loads, pairs.read_text().split("\n")[:-1]), lines[::2], lines[1::2], strict=True
    ):
        assert (good["completion"], good["label"]) == (pair["chosen"], True)
        assert (bad["completion"], bad["label"]) == (pair["rejected"], False)
        assert good["prompt"] == bad["prompt"] == pair["prompt"]


TALK = [{"role": str, "content": str}]
SHAPES: dict[Any, dict[str, Any]] = {
    "pairs": {"prompt": TALK, "chosen": TALK, "rejected": TALK},
    "unpaired": {"prompt": TALK, "completion": TALK, "label": bool},
    "prompts": {"prompt": TALK, "split": str, "category": str},
}


def shape(value: Any) -> Any:
    if isinstance(value, list):
        return [shape(value[0])]
    return {key: shape(item) for key, item in value.items()} if isinstance(value, dict) else type(value)


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the datasets library is not installed")
@pytest.mark.parametrize("kind", ["json", "parquet", "csv"])
@pytest.mark.parametrize("what", ["pairs", "unpaired", "prompts", "labels"])
def test_the_datasets_library_reads_every_export(
    full: Store,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: Any,
    kind: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = importlib.import_module("datasets")
    file = tmp_path / f"export.{'jsonl' if kind == 'json' else kind}"
    written = export_file(full, file, what).lines
    loaded = datasets.load_dataset(kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == written > 0
    if what in SHAPES and kind != "csv" and (what, kind) != ("prompts", "json"):
        assert shape(loaded[0]) == SHAPES[what]  # TRL's conversational format
        plain = json.loads(json.dumps(list(loaded)))
        (tmp_path / "again.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
        one, other = Store(tmp_path / "one", create=True), Store(tmp_path / "other", create=True)
        import_file(one, tmp_path / "again.jsonl")
        file.rename(tmp_path / f"again{file.suffix}")
        import_file(other, tmp_path / f"again{file.suffix}")
        assert (one.prompts(), one.slates(), one.labels()) == (other.prompts(), other.slates(), other.labels())


def test_a_prompt_of_the_prompt_only_type(store: Store, tmp_path: Path) -> None:
    import_file(store, write(tmp_path / "p.jsonl", {"prompt": turns("user", "Tea?")}), split="train")
    assert store.prompts() == [Prompt((Message("user", "Tea?"),))]
