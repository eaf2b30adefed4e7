"""CSV and Parquet: what goes out comes back, no cell becomes a formula, and whatever a file holds, one line answers."""

import csv
import json
import random
import resource
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

# The same store with every kind of label, and how labels are compared.
from test_exchange_export import APART, FOUR, PAIR, by_key, full  # noqa: F401

from labeling.exchange import export_file, import_file
from labeling.parquet_files import rows_of
from labeling.records import Annotator, Candidate, Label, Lineage, Message, Prompt, Slate, UserError
from labeling.store import Store
from labeling.tables import open_csv, write_csv

TABLES = ["table.csv", "table.parquet"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def cells(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", [*TABLES, "table.jsonl"])
def test_labels_come_back_equal_with_history_and_times(full: Store, tmp_path: Path, name: str) -> None:  # noqa: F811
    full.add_labels(
        [Label(PAIR.id, "oracle", "ranked", "says", (1, 2), flags=("unsafe",), criteria=(("kind", "second"),))],
        {"says": 1234.5},
    )
    full.add_labels(
        [Label(FOUR.id, "oracle", "ranked", "part", (1, 3, 2, 3), unranked=(1, 3), purpose="repeat", reason="=1+1")]
    )
    export_file(full, tmp_path / name, "labels")
    other = Store(tmp_path / "other", create=True)
    assert import_file(other, tmp_path / name).labels_new == 9
    assert other.slates() == full.slates()
    assert other.annotators() == full.annotators()
    for history in (True, False):
        assert by_key(other, history) == by_key(full, history)
    assert other.label_times() == full.label_times()
    assert other.label_times()["says"] == 1234.5
    assert import_file(other, tmp_path / name).labels_new == 0


def test_a_table_of_labels_from_before_there_were_requests_is_read(full: Store, tmp_path: Path) -> None:  # noqa: F811
    export_file(full, tmp_path / "new.csv", "labels")
    rows = [{key: cell for key, cell in row.items() if key != "requests"} for row in cells(tmp_path / "new.csv")]
    with open(tmp_path / "old.csv", "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    other = Store(tmp_path / "other", create=True)
    assert import_file(other, tmp_path / "old.csv").labels_new == 7
    assert (other.slates(), other.human_requests()) == (full.slates(), [])


@pytest.mark.parametrize("name", TABLES)
def test_a_label_is_one_flat_row_with_who_when_in_which_order_and_where_from(
    full: Store,  # noqa: F811
    tmp_path: Path,
    name: str,
) -> None:
    assert export_file(full, tmp_path / name, "labels").lines == 8  # seven labels, and a slate that has none
    rows: list[dict[str, Any]] = (
        cells(tmp_path / name) if name.endswith("csv") else parquet.read_table(tmp_path / name).to_pylist()
    )
    first = next(row for row in rows if row["client_key"] == "first")
    assert first["slate"] == PAIR.id
    assert first["prompt"] == "Tea?"
    assert json.loads(first["candidates"]) == ["Yes.", "No."]
    assert json.loads(first["policies"]) == ["policy-1", "policy-1"]
    assert json.loads(first["finished"]) == [True, False]
    assert (first["annotator"], first["kind"], first["outcome"], first["reason"]) == ("ann", "human", "ranked", "näher")
    assert (json.loads(first["ranks"]), json.loads(first["order"])) == ([1, 2], [1, 0])
    assert (float(first["seconds"]), float(first["strength"]), float(first["weight"])) == (3.25, 0.5, 1.0)
    assert float(first["created"]) == full.label_times()["first"]
    four = next(row for row in rows if row["client_key"] == "four")
    assert json.loads(four["prompt"])[0] == {"role": "system", "content": "Be kind."}
    assert (four["run"], int(four["iteration"]), four["selector"]) == ("run-1", 3, "disagreement")
    assert (float(four["propensity"]), four["reward_model"]) == (0.25, "rm-2")
    assert json.loads(four["predicted"]) == [0.5, -1.25, 0.0, 3.0]
    (unlabeled,) = [row for row in rows if row["slate"] == APART.id]
    assert unlabeled["annotator"] in (None, "")


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("what", ["prompts", "pairs", "unpaired"])
def test_prompts_and_pairs_come_back_as_from_jsonl(full: Store, tmp_path: Path, name: str, what: Any) -> None:  # noqa: F811
    for file in (name, "table.jsonl"):
        export_file(full, tmp_path / file, what)
    stores = [Store(tmp_path / f"from-{file}", create=True) for file in (name, "table.jsonl")]
    reports = [import_file(store, tmp_path / file) for store, file in zip(stores, (name, "table.jsonl"), strict=True)]
    assert stores[0].prompts() == stores[1].prompts() != []
    assert stores[0].slates() == stores[1].slates()
    assert stores[0].labels() == stores[1].labels()
    assert stores[0].annotators() == stores[1].annotators()
    assert [why for _, why in reports[0].skipped] == [why for _, why in reports[1].skipped]
    assert import_file(stores[1], tmp_path / name).labels_new == 0  # the same answers, whatever the file's kind


DANGEROUS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "'=1",
    "''=1",
    "＝1+1",
    "=cmd|' /C calc'!A0",
]
HARMLESS = [
    "a=1",
    "1-1",
    "'quoted'",
    "",
    '"',
    "a,b;c",
    "line\nbreak\r\nand \r alone",
    "ünï 😀",
    "TRUE",
    "1e5",
    "[{",
    "'",
]


def test_no_cell_of_csv_begins_like_a_formula_and_every_text_comes_back(tmp_path: Path) -> None:
    dice = random.Random(0)
    texts = (
        DANGEROUS + HARMLESS + ["".join(dice.choices("'=+-@\t\r\n a,\"＝", k=dice.randrange(6))) for _ in range(2000)]
    )
    write_csv(tmp_path / "t.csv", ["n", "text"], [{"n": -n, "text": text} for n, text in enumerate(texts)])
    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        raw = list(csv.reader(file))[1:]
    assert [int(n) for n, _ in raw] == [-n for n in range(len(texts))]  # numbers stay numbers
    for _, cell in raw:
        assert not cell.startswith(("\t", "\r", "\n"))
        assert not cell.lstrip().startswith(tuple("=+-@＝＋－＠"))
    table = open_csv(tmp_path / "t.csv")
    assert [row["text"] or "" for _, row in table.rows(["text"])] == texts
    for text in DANGEROUS:
        assert raw[texts.index(text)][1] == "'" + text
    for text in HARMLESS:
        assert raw[texts.index(text)][1] == text


def test_an_exported_answer_that_is_a_formula_stays_text(store: Store, tmp_path: Path) -> None:
    prompt = Prompt((Message("user", '=HYPERLINK("http://x")'),))
    slate = Slate(prompt, (Candidate("@evil"), Candidate("-good")), Lineage(run="+run"))
    store.add_slates([slate])
    store.add_annotator(Annotator("=who", "human"))
    store.add_labels([Label(slate.id, "=who", "ranked", "-key", (1, 2), reason="\t=why")])
    for what in ("labels", "pairs", "unpaired", "prompts"):
        export_file(store, tmp_path / f"{what}.csv", what)  # type: ignore[arg-type]
        for row in cells(tmp_path / f"{what}.csv"):
            assert not any(cell.startswith(tuple("=+-@\t\r\n")) for cell in row.values())
    other = Store(tmp_path / "other", create=True)
    import_file(other, tmp_path / "labels.csv")
    assert (other.slates(), other.labels(), other.annotators()) == (store.slates(), store.labels(), store.annotators())


def test_csv_that_a_spreadsheet_saved(store: Store, tmp_path: Path) -> None:
    text = "\ufeffid,prompt,chosen,rejected,category,,score\r\n"
    text += '1,Tea?,"Yes, please.",No.,drinks,x,0.5\r\n\r\n2,Tea?,A,,,,\r\n'
    (tmp_path / "saved.csv").write_text(text, encoding="utf-8", newline="")
    report = import_file(store, tmp_path / "saved.csv")
    assert (report.lines, report.labels_new, report.skipped) == (2, 1, ((4, "an empty response"),))
    assert report.ignored == ("id", "score")
    assert "columns or keys not read: id, score" in str(report)
    assert [(p.messages[0].content, p.category) for p in store.prompts()] == [("Tea?", "drinks")]
    assert {label.annotator for label in store.labels()} == {"import:saved"}


def test_conversations_in_csv_are_json_and_a_text_that_looks_like_one_stays_text(store: Store, tmp_path: Path) -> None:
    odd = '[{"role": "user", "content": "x"}]'
    store.add_prompts([Prompt((Message("user", odd),)), Prompt((Message("system", "s"), Message("user", "u")))])
    export_file(store, tmp_path / "p.csv", "prompts")
    other = Store(tmp_path / "other", create=True)
    import_file(other, tmp_path / "p.csv")
    assert other.prompts() == store.prompts()


def refusal(store: Store, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        import_file(store, path)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert (store.prompts(), store.slates(), store.labels()) == ([], [], [])
    return message


BAD_CSV = [
    (b"", "the file is empty"),
    (b"\n\n", "the file is empty"),
    (b"a;b\n1;2\n", "no column has a name that is known here, only 'a;b'"),
    (b"prompt,prompt\nx,y\n", ":1: the column 'prompt' occurs twice"),
    (b"prompt,split\nx\n", ":2: 1 cells for 2 columns"),
    (b'prompt,split\nx,train\n"multi\nline",train,more\n', ":3: 3 cells for 2 columns"),
    (b'prompt\n"open\n', ":2: not valid CSV"),
    (b'prompt\n"a"b\n', ":2: not valid CSV"),
    (b"prompt\na\rb\n", ":2: not valid CSV"),
    (b"prompt\n\xff\n", ":2: not UTF-8"),
    (b"prompt\nx\n\0y\n", ":3: the text holds the character"),
    (b"prompt,split\nx,test\n", ":2: split 'test' is not one of"),
    (b"prompt,chosen\nx,y\n", ":2: the key 'rejected' is missing"),
    (b"prompt,chosen,rejected\n,a,b\n", ":2: the prompt is empty"),
    (b"prompt,completion,label\nx,a,perhaps\n", ":2: 'label' must be true or false"),
    (b"prompt,completion\nx,a\n", ":2: the key 'label' is missing"),
    (b"q.responses,q.responses.users\nx,a\n", "does not fit into CSV"),
    (b"client_key,annotator\nx,a\n", "a table of labels needs the column"),
    (b"prompt\n" + b"x" * (10 * 2**20 + 1) + b"\n", ":2: longer than 10 MiB"),
    (b'prompt\n"' + (b"x" * 1000 + b"\n") * 12_000 + b'"\n', ":2: a row of more than 10 MiB begins here"),
    (b",".join(b"c%d" % n for n in range(1001)) + b"\n", "1001 columns are more than 1000"),
]


@pytest.mark.parametrize(("content", "says"), BAD_CSV, ids=[says[:35] for _, says in BAD_CSV])
def test_csv_that_cannot_be_read(store: Store, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    message = refusal(store, tmp_path / "bad.csv")
    assert message.startswith(str(tmp_path / "bad.csv"))
    assert says in message


LABEL_FAULTS = [
    ("iteration", "many", "'iteration' must be a whole number, not 'many'"),
    ("propensity", "x", "'propensity' must be a number"),
    ("propensity", "nan", "a propensity lies in (0, 1]"),
    ("weight", "inf", "a weight is >= 0"),
    ("created", "inf", "'created' is a time in Unix seconds"),
    ("created", "-1", "'created' is a time in Unix seconds"),
    ("candidates", "[1, 2]", "'text' must be text"),
    ("candidates", '["a"]', "must be lists of the same length"),
    ("candidates", "a", "'candidates' is not valid JSON"),
    ("order", "[0, 2, 1]", "order has 3 entries"),
    ("ranks", "{}", "'ranks' must be a list"),
    ("predicted", "[NaN, 1]", "NaN is not a JSON number"),
    ("criteria", "[]", "'criteria' must be an object"),
    ("annotator", "", "'annotator' is missing"),
    ("kind", "robot", "annotator kind 'robot' is not one of"),
]


@pytest.mark.parametrize(("column", "cell", "says"), LABEL_FAULTS, ids=[f"{c}={v}" for c, v, _ in LABEL_FAULTS])
def test_a_bad_cell_of_a_label_is_named(
    full: Store,  # noqa: F811
    store: Store,
    tmp_path: Path,
    column: str,
    cell: str,
    says: str,
) -> None:
    export_file(full, tmp_path / "labels.csv", "labels")
    rows = cells(tmp_path / "labels.csv")
    rows[0][column] = cell
    with open(tmp_path / "labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    message = refusal(store, tmp_path / "labels.csv")
    assert "labels.csv:2: " in message
    assert says in message


def write_parquet(path: Path, **columns: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_parquet_with_columns_of_other_kinds(store: Store, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "p.parquet", prompt=["x", "y"], image=[b"1", b"2"], score=[0.5, None])
    report = import_file(store, path)
    assert (report.prompts_new, report.ignored) == (2, ("score", "image"))


def test_parquet_as_trl_and_datasets_have_it(store: Store, tmp_path: Path) -> None:
    """Dialogues as lists of structs, with a key that no message fills, and large or dictionary-encoded texts."""
    turns = [{"role": "user", "content": "Tea?", "name": None}, {"role": "assistant", "content": "Yes.", "name": None}]
    chosen, rejected = turns, [turns[0], {"role": "assistant", "content": "No.", "name": None}]
    path = write_parquet(tmp_path / "p.parquet", chosen=[chosen], rejected=[rejected])
    assert import_file(store, path).labels_new == 1
    large = pyarrow.array(["Tea?"], pyarrow.large_string())
    few = pyarrow.array(["Yes."]).dictionary_encode()
    path = write_parquet(tmp_path / "p.parquet", prompt=large, chosen=few, rejected=["No."])
    assert import_file(store, path).labels_new == 0  # the same pair from a file of the same name


def test_parquet_that_cannot_be_used(store: Store, tmp_path: Path) -> None:
    for content, says in [
        (b"", "not usable as Parquet"),
        (b"PAR1" * 9, "not usable as Parquet"),
        (b"x" * 99, "usable"),
    ]:
        (tmp_path / "p.parquet").write_bytes(content)
        assert says in refusal(store, tmp_path / "p.parquet")
    assert "holds binary" in refusal(store, write_parquet(tmp_path / "p.parquet", prompt=[b"x"]))
    assert "no column" in refusal(store, write_parquet(tmp_path / "p.parquet", text=["x"]))
    assert "p.parquet, row 2: 'prompt' must be text or a list" in refusal(
        store, write_parquet(tmp_path / "p.parquet", prompt=[[{"role": "user", "content": "x"}], []])
    ).replace("holds no messages", "must be text or a list")
    assert "row 1: 'prompt' must be text or a list" in refusal(store, write_parquet(tmp_path / "p.parquet", prompt=[5]))
    assert "row 2: the prompt is empty" in refusal(store, write_parquet(tmp_path / "p.parquet", prompt=["x", None]))
    assert "row 2: the text holds the character" in refusal(
        store, write_parquet(tmp_path / "p.parquet", prompt=["x", "\0"])
    )
    assert "No such file" in refusal(store, tmp_path / "missing.parquet")
    assert "No such file" in refusal(store, tmp_path / "missing.csv")


def test_a_few_bytes_of_parquet_that_stand_for_gigabytes(store: Store, tmp_path: Path) -> None:
    """A megabyte of text that is repeated 5,000 times in 100 kB, and a list of ten million nothings."""
    same = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5000, pyarrow.int32()), ["x" * 3 * 2**20])
    path = write_parquet(tmp_path / "bomb.parquet", prompt=same)
    assert path.stat().st_size < 1_000_000
    assert "rows 1 to 256: a text of more than 10 MiB, or too much for so few rows" in refusal(store, path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # what follows runs in this process, to be measured
    with pytest.raises(UserError, match="too much for so few rows"):
        list(rows_of(str(path), ["prompt"]))
    offsets = pyarrow.array([0, 10_000_000], pyarrow.int32())
    nothing = pyarrow.ListArray.from_arrays(offsets, pyarrow.nulls(10_000_000, pyarrow.string()))
    path = write_parquet(tmp_path / "bomb.parquet", prompt=nothing)
    assert path.stat().st_size < 1_000_000
    assert "too much for so few rows" in refusal(store, path)
    with pytest.raises(UserError, match="too much for so few rows"):
        list(rows_of(str(path), ["prompt"]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    long = write_parquet(tmp_path / "long.parquet", prompt=["x" * (10 * 2**20 + 1)])
    assert "more than 10 MiB" in refusal(store, long)


def test_damaged_parquet_never_raises_anything_else(full: Store, store: Store, tmp_path: Path) -> None:  # noqa: F811
    dice, refusals = random.Random(1), []
    for what in ("labels", "pairs"):
        export_file(full, tmp_path / "good.parquet", what)  # type: ignore[arg-type]
        good = (tmp_path / "good.parquet").read_bytes()
        for _ in range(150):
            raw = bytearray(good)
            for _ in range(dice.choice([1, 3, 20])):
                raw[dice.randrange(4, len(raw))] = dice.randrange(256)
            (tmp_path / "bad.parquet").write_bytes(raw)
            try:
                import_file(Store(tmp_path / "scratch", create=True), tmp_path / "bad.parquet")
            except UserError as error:
                refusals.append(str(error))
    assert len(refusals) > 100
    assert not any("\n" in line for line in refusals)


@pytest.mark.parametrize("name", TABLES)
def test_a_full_disk_leaves_the_older_file_and_no_leftover(full: Store, tmp_path: Path, name: str) -> None:  # noqa: F811
    (tmp_path / name).write_text("older\n")
    before = sorted(file.name for file in tmp_path.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # from here on the kernel refuses to grow a file
    try:
        with pytest.raises(UserError, match="cannot be written"):
            export_file(full, tmp_path / name, "labels")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    assert (tmp_path / name).read_text() == "older\n"


def test_a_pickle_is_not_read(store: Store, tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pathlib_touch, (str(tmp_path / "sprung"),))

    for name in ("trap.csv", "trap.parquet", "trap.json", "trap.jsonl", "trap.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        refusal(store, tmp_path / name)
    assert not (tmp_path / "sprung").exists()


def pathlib_touch(name: str) -> None:
    Path(name).touch()
