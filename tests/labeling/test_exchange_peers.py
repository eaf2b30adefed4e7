"""Exports of Argilla and Label Studio, written by hand in the shapes that their documentation gives, become labels."""

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from labeling.exchange import ImportReport, import_file
from labeling.records import Label, Message, UserError
from labeling.store import Store

SAMPLES = Path(__file__).resolve().parent.parent / "data"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def said(store: Store, prompt: str) -> dict[str, dict[str, int]]:
    """{annotator: {response: rank}} of the ranked labels on a prompt."""
    slates = {slate.id: slate for slate in store.slates() if slate.prompt.messages[-1].content == prompt}
    return {
        label.annotator: dict(zip((c.text for c in slates[label.slate_id].candidates), label.ranks, strict=True))
        for label in store.labels()
        if label.slate_id in slates and label.ranks
    }


def unskipped(report: ImportReport) -> list[int]:
    return [number for number, _ in report.skipped]


def test_argilla_rankings(store: Store) -> None:
    report = import_file(store, SAMPLES / "argilla_records.json", split="train")
    one, two = "human:11111111-1111-4111-8111-111111111111", "human:22222222-2222-4222-8222-222222222222"
    physics, sea = "Air scatters blue light most.", "It reflects the sea."
    assert said(store, "Why is the sky blue?") == {one: {physics: 1, sea: 2}, two: {physics: 2, sea: 1}}
    assert said(store, "Tea?") == {one: {"Yes.": 1, "No.": 1}}  # the server's form of a ranking knows ties
    tea = next(slate.prompt for slate in store.slates() if len(slate.prompt.messages) == 2)
    assert tea.messages == (Message("system", "Be brief."), Message("user", "Tea?"))
    assert (report.lines, report.slates_new, report.labels_new) == (3, 2, 3)
    assert report.skipped == ((3, "nobody has answered"),)
    assert "3 records read" in str(report)
    assert "(record 3)" in str(report)
    assert {a.kind for a in store.annotators().values()} == {"human"}


def test_argilla_ratings_and_labels_flat(store: Store) -> None:
    report = import_file(store, SAMPLES / "argilla_flat.jsonl")
    assert said(store, "Name a fruit.") == {"human:ann": {"A pear.": 1, "A stone.": 2, "An apple.": 1}}
    assert said(store, "Say hello.") == {
        "human:ann": {"Hello!": 1, "Go away.": 2},
        "human:bob": {"Hello!": 1, "Go away.": 1},
    }
    assert [label.annotator for label in store.labels() if label.outcome == "both_bad"] == ["human:cy"]
    reasons = dict.fromkeys(why for _, why in report.skipped)
    assert list(reasons) == [
        "an answer that was not submitted",
        "an answer that does not say which response is better",
    ]
    assert unskipped(report) == [1, 1, 1, 2]  # one draft for each of three questions, and "purple"


def test_label_studio_pairs_keep_who_when_and_how_long(store: Store) -> None:
    report = import_file(store, SAMPLES / "label_studio_pairwise.json")
    physics, sea = "Air scatters blue light most.", "It reflects the sea."
    assert said(store, "Why is the sky blue?") == {
        "human:ann@example.org": {physics: 2, sea: 1},
        "human:10": {physics: 1, sea: 2},
    }
    assert said(store, "Tea?") == {"human:10": {"Yes.": 1, "No.": 1}}
    first = next(label for label in store.labels() if label.annotator == "human:ann@example.org")
    assert (first.order, first.seconds) == ((0, 1), 4.288)
    times = store.label_times()
    assert times[first.client_key] == datetime(2021, 3, 9, 22, 16, 8, 728353, UTC).timestamp()
    assert datetime(2021, 3, 9, 22, 0, 0, 0, UTC).timestamp() in times.values()  # 23:00 one hour east
    assert report.skipped == (
        (1, "an annotation that does not say which response is better"),
        (1, "an annotation that was cancelled"),
        (3, "nobody has answered"),
    )


def test_label_studio_rankings(store: Store) -> None:
    report = import_file(store, SAMPLES / "label_studio_ranker.json")
    assert said(store, "What caused the ancient library to burn?") == {
        "human:4": {"Wars.": 2, "A lamp.": 3, "Nobody knows.": 1},
        "human:5": {"Wars.": 2, "A lamp.": 1, "Nobody knows.": 2},
    }
    picked = next(label for label in store.labels() if label.annotator == "human:5")
    assert picked.unranked == (0, 2)  # worse than the one that was picked; nothing is said among them
    assert unskipped(report) == [1]  # buckets


def test_a_shortened_export_of_label_studio_is_named(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "min.json"
    row = {"id": 1, "prompt": "Tea?", "response_1": "Yes", "response_2": "No", "pref": "left", "annotator": 1}
    path.write_text(json.dumps([{**row, "annotation_id": 5, "created_at": "2024-01-01T00:00:00Z", "lead_time": 3.2}]))
    with pytest.raises(UserError, match=r"record 1: this is Label Studio's JSON-MIN.*export the project again as JSON"):
        import_file(store, path)
    columns = {**row, "annotation_id": 5, "lead_time": 3.2}
    table = tmp_path / "rows.csv"
    table.write_text(f"{','.join(columns)}\n{','.join(map(str, columns.values()))}\n")
    with pytest.raises(UserError, match=r"rows.csv: this is Label Studio's CSV.*export the project again as JSON"):
        import_file(store, table)
    assert store.slates() == []


@pytest.mark.parametrize(
    "name", ["argilla_records.json", "argilla_flat.jsonl", "label_studio_pairwise.json", "label_studio_ranker.json"]
)
def test_importing_twice_adds_nothing(store: Store, name: str) -> None:
    first, again = import_file(store, SAMPLES / name), import_file(store, SAMPLES / name)
    assert first.labels_new > 0
    assert (again.prompts_new, again.slates_new, again.labels_new) == (0, 0, 0)
    assert again.skipped == first.skipped


def test_argilla_in_parquet_as_datasets_writes_it(store: Store, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    lines = [json.loads(line) for line in (SAMPLES / "argilla_flat.jsonl").read_text().splitlines()]
    keys = list(dict.fromkeys(key for line in lines for key in line))
    rows = [{key: line.get(key) for key in keys} | {"when": datetime(2024, 1, 1, tzinfo=UTC)} for line in lines]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "flat.parquet")
    report = import_file(store, tmp_path / "flat.parquet")
    assert (report.lines, report.labels_new, report.unit, report.ignored) == (2, 4, "row", ("when",))
    other = Store(tmp_path / "other", create=True)
    import_file(other, SAMPLES / "argilla_flat.jsonl")
    assert other.labels() == store.labels()


def changed(name: str, *path: Any, to: Any) -> list[dict[str, Any]]:
    """A sample in which one value is another, or gone (to is ...)."""
    records: Any = json.loads((SAMPLES / name).read_text())
    spot = records
    for key in path[:-1]:
        spot = spot[key]
    if to is ...:
        del spot[path[-1]]
    else:
        spot[path[-1]] = copy.deepcopy(to)
    return records


ARGILLA, PAIRWISE, RANKER = "argilla_records.json", "label_studio_pairwise.json", "label_studio_ranker.json"
ANNOTATION = (1, "annotations", 0)
BAD = [
    (changed(ARGILLA, 1, "fields", to={"prompt": "x", "good": "a", "bad": "b"}), "no responses to compare"),
    (changed(ARGILLA, 1, "fields", "prompt", to=...), "no prompt, only 'response_1'"),
    (changed(ARGILLA, 1, "fields", "prompt", to=""), "the prompt is empty"),
    (changed(ARGILLA, 1, "fields", "response_1", to=5), "'response_1' must be text"),
    (changed(ARGILLA, 1, "fields", to=[]), "'fields' must be an object"),
    (changed(ARGILLA, 1, "responses", "preference", 0, "user_id", to=...), "'user_id' is missing"),
    (changed(ARGILLA, 1, "responses", "preference", 0, "user_id", to=" "), "an annotator's name has 1 to 200"),
    (changed(ARGILLA, 1, "responses", "preference", 0, "user_id", to="x" * 300), "an annotator's name has 1 to 200"),
    (changed(ARGILLA, 1, "responses", "preference", to="x"), "'preference' must be a list"),
    (changed(PAIRWISE, 1, "data", to=[]), "'data' must be an object"),
    (changed(PAIRWISE, 1, "data", "prompt", to=...), "no prompt"),
    (changed(PAIRWISE, 1, "annotations", to=[1]), "'annotations' must hold objects"),
    (changed(PAIRWISE, *ANNOTATION, "completed_by", to=None), "'completed_by' must be a number"),
    (changed(PAIRWISE, *ANNOTATION, "completed_by", to={"name": "x"}), "'completed_by' must be a number"),
    (changed(PAIRWISE, *ANNOTATION, "created_at", to="yesterday"), "'created_at' must be a time like"),
    (changed(PAIRWISE, *ANNOTATION, "created_at", to="1821-01-01T00:00:00Z"), "'created' is a time in Unix seconds"),
    (changed(PAIRWISE, *ANNOTATION, "lead_time", to=-1), "seconds are >= 0"),
    (changed(PAIRWISE, *ANNOTATION, "result", to={}), "'result' must be a list"),
    (changed(PAIRWISE, *ANNOTATION, "result", 0, "value", to=1), "'value' must be an object"),
]


@pytest.mark.parametrize(("records", "says"), BAD, ids=[says[:30] for _, says in BAD])
def test_one_bad_record_refuses_the_file(store: Store, tmp_path: Path, records: Any, says: str) -> None:
    (tmp_path / "bad.json").write_text(json.dumps(records, indent=1))
    with pytest.raises(UserError) as caught:
        import_file(store, tmp_path / "bad.json")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'bad.json'}, record 2: ")
    assert says in message
    assert "\n" not in message
    assert (store.prompts(), store.labels()) == ([], [])


def test_rankings_that_fit_no_data(store: Store, tmp_path: Path) -> None:
    value = (0, "annotations", 0, "result", 0, "value", "ranker")
    items = (0, "data", "items")
    for records, says in [
        (changed(RANKER, *value, to=["llm_1", "llm_9"]), "'llm_9', which is not once in the data"),
        (changed(RANKER, *value, to=["llm_1", "llm_1"]), "'llm_1', which is not once in the data"),
        (changed(RANKER, *items, to=[{"id": "a", "body": "x"}, {"id": "a", "body": "y"}]), "have the same id"),
        (changed(RANKER, *items, to="gone"), "needs one list of objects with an 'id' in its data, not 0"),
    ]:
        (tmp_path / "bad.json").write_text(json.dumps(records))
        with pytest.raises(UserError, match=says):
            import_file(store, tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "record 1: not valid JSON"),
        ("[]", "the file is empty"),
        ("[{}", "record 1: neither a comma nor the closing bracket follows"),
        ('[{"prompt": "x"},]', "record 2: not valid JSON"),
        ('[{"prompt": "x"}, 5]', "record 2: a record must be a JSON object"),
        ('[{"prompt": "x"}] 5', "something follows the end of the array"),
        ('[{"prompt": "x"}, {"prompt": NaN}]', "record 2: NaN is not a JSON number"),
        ('[{"prompt": "x"}, {"prompt": "\\u0000"}]', "record 2: the text holds the character"),
        ('[{"prompt": "x"}, {"prompt": "y", "prompt": "z"}]', "record 2: the key 'prompt' occurs twice"),
        ('[{"prompt": "x"}, {"prompt": "y", "chosen": "z", "rejected": "a"}]', "record 2: this is a record of pairs"),
        ("[" * 100_000, "record 1: nested too deeply"),
    ],
)
def test_an_array_that_is_none(store: Store, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=says):
        import_file(store, tmp_path / "bad.json")
    assert store.prompts() == []


def test_an_array_of_pairs_is_read_like_lines(store: Store, tmp_path: Path) -> None:
    pair = {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}
    (tmp_path / "pairs.json").write_text(json.dumps([pair], indent=2))
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair))
    assert import_file(store, tmp_path / "pairs.json").labels_new == 1
    assert import_file(store, tmp_path / "pairs.jsonl").labels_new == 0  # the same answer of import:pairs


def test_a_pair_in_words_of_every_kind(store: Store, tmp_path: Path) -> None:
    def ranks(choice: str) -> list[Label]:
        (tmp_path / "task.json").write_text(
            json.dumps(changed(PAIRWISE, 1, "annotations", 0, "result", 0, "value", "choices", to=[choice])[1:2])
        )
        before = {label.client_key for label in store.labels()}
        import_file(store, tmp_path / "task.json")
        return [label for label in store.labels() if label.client_key not in before]

    assert [label.ranks for label in ranks("answer2")] == [(2, 1)]
    assert [label.ranks for label in ranks("Left is better")] == [(1, 2)]
    for again in ("A", "1", "first", "Answer 1"):
        assert ranks(again) == []  # the same answer by the same person at the same time
    assert ranks("Purple") == []
