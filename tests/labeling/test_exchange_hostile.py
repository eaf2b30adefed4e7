"""Whatever a file holds, the answer is one line for the user, and the store stays as it was."""

import copy
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from labeling.exchange import import_file
from labeling.records import UserError
from labeling.store import Store

GOOD = b'{"prompt": "A good line?"}\n'
PAIR: dict[str, Any] = {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."}
LABELS: dict[str, Any] = {
    "prompt": "Tea?",
    "split": "train",
    "category": "",
    "candidates": [{"text": "A", "policy": "p", "finished": True}, {"text": "B", "policy": "p", "finished": True}],
    "lineage": {
        "run": "r",
        "iteration": 1,
        "selector": "random",
        "propensity": 0.5,
        "reward_model": "m",
        "predicted": [0.1, 0.2],
    },
    "labels": [
        {
            "annotator": {"id": "ann", "kind": "human", "weight": 1.0, "flip_rate": 0.1},
            "outcome": "ranked",
            "client_key": "k",
            "ranks": [1, 2],
            "probability": 0.9,
            "strength": 0.5,
            "order": [1, 0],
            "seconds": 2.5,
            "reason": "",
            "supersedes": None,
        }
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def row_count(store: Store) -> int:
    return sum(store.db[table].count for table in ("prompt", "slate", "candidate", "label", "annotator"))


def refusal(store: Store, path: Path) -> str:
    with pytest.raises(UserError) as caught:
        import_file(store, path)
    assert row_count(store) == 0
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    message.encode()  # it can be printed
    return message


def changed(line: dict[str, Any], *path: Any, to: Any) -> bytes:
    line = copy.deepcopy(line)
    spot: Any = line
    for key in path[:-1]:
        spot = spot[key]
    spot[path[-1]] = to
    return json.dumps(line).encode()


BAD_LINES = [
    (b'{"prompt": "cut', "not valid JSON at column"),
    (b"[1, 2]", "must be a JSON object"),
    (b'"prompt"', "must be a JSON object"),
    (b'{"prompt": NaN}', "NaN is not a JSON number"),
    (b'{"prompt": [-Infinity]}', "-Infinity is not a JSON number"),
    (b'{"prompt": 1e999}', "1e999 is not a JSON number"),
    (b'{"prompt": ' + b"9" * 5000 + b"}", "not usable as JSON"),
    (b'{"prompt": "twice", "prompt": "once"}', "'prompt' occurs twice"),
    (b'{"prompt": "\xff\xfe"}', "byte 13 is not UTF-8"),
    (b'{"prompt": "half \\ud800 a pair"}', "cannot be stored"),
    (b'{"prompt": "nul \\u0000"}', "cannot be stored"),
    (b'{"\\udc00": "key"}', "cannot be stored"),
    (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    (b'{"prompt": ""}', "the prompt is empty"),
    (b'{"prompt": " \\n"}', "the prompt is empty"),
    (b'{"prompt": 5}', "'prompt' must be text or a list of messages"),
    (b'{"prompt": null}', "'prompt' must be text or a list of messages"),
    (b'{"prompt": []}', "holds no messages"),
    (b'{"prompt": ["Hi"]}', "'prompt' must hold objects"),
    (b'{"prompt": [{"role": "user"}]}', "'content' is missing"),
    (b'{"prompt": [{"role": "narrator", "content": "x"}]}', "role 'narrator' is not one of"),
    (b'{"prompt": [{"role": ["user"], "content": "x"}]}', "'role' must be text"),
    (b'{"prompt": [{"role": "assistant", "content": "x"}]}', "must end before the assistant's turn"),
    (b'{"prompt": [{"role": "user", "content": "x", "name": "y"}]}', "no key 'name'"),
    (b'{"prompt": "x", "messages": []}', "either 'prompt' or 'messages'"),
    (b'{"split": "train"}', "either 'prompt' or 'messages'"),
    (b'{"prompt": "x", "colour": 1}', "no key 'colour'"),
    (b'{"prompt": "x", "split": "test"}', "split 'test' is not one of train, heldout"),
    (b'{"prompt": "x", "category": 3}', "'category' must be text"),
    (b'{"prompt": "x", "chosen": "y"}', "'rejected' is missing"),
    (b'{"chosen": "y", "rejected": "z"}', 'must begin with "Human:"'),
    (changed(PAIR, "chosen", to=7), "'chosen' must be text or a list"),
    (changed(PAIR, "chosen", to=[{"role": "user", "content": "x"}]), "must begin with the assistant's turn"),
    (changed(PAIR, "score", to=1), "no key 'score'"),
    (changed(LABELS | {"lineage": {}}, "candidates", to=[{"text": "A"}]), "2 to 9 candidates"),
    (changed(LABELS, "candidates", 1, "text", to="A"), "must differ"),
    (changed(LABELS, "candidates", 1, "finished", to=1), "'finished' must be true or false"),
    (changed(LABELS, "lineage", "iteration", to=2**70), "'iteration' is too large"),
    (changed(LABELS, "lineage", "iteration", to=True), "'iteration' must be a whole number"),
    (changed(LABELS, "lineage", "propensity", to=0), "propensity"),
    (changed(LABELS, "lineage", "predicted", to=[0.5]), "1 scores for 2 candidates"),
    (changed(LABELS, "lineage", "predicted", to=["a", "b"]), "'predicted' must be a number"),
    (changed(LABELS, "labels", 0, "order", to=[0, 2, 1]), "order has 3 entries"),
    (changed(LABELS, "labels", 0, "ranks", to=[1.0, 2.0]), "'ranks' must be a whole number"),
    (changed(LABELS, "labels", 0, "ranks", to=None), "exactly when its outcome is 'ranked'"),
    (changed(LABELS, "labels", 0, "order", to=[0, 0]), "permutation"),
    (changed(LABELS, "labels", 0, "order", to=["a", 1]), "'order' must be a whole number"),
    (changed(LABELS, "labels", 0, "probability", to=2), "lies in [0, 1]"),
    (changed(LABELS, "labels", 0, "outcome", to="won"), "outcome 'won' is not one of"),
    (changed(LABELS, "labels", 0, "supersedes", to="nobody"), "not a standing label"),
    (changed(LABELS, "labels", 0, "annotator", to={"kind": "human"}), "'id' is missing"),
    (changed(LABELS, "labels", 0, "annotator", "weight", to=-1), "a weight is >= 0"),
]


@pytest.mark.parametrize(("line", "says"), BAD_LINES, ids=[says[:40] for _, says in BAD_LINES])
def test_each_bad_line_is_named_with_its_fault(store: Store, tmp_path: Path, line: bytes, says: str) -> None:
    form = json.dumps(LABELS | {"prompt": "Other?", "labels": []}) if b"candidates" in line else None
    form = json.dumps(PAIR) if b"chosen" in line else form
    first = GOOD if form is None else form.encode() + b"\n"
    (tmp_path / "bad.jsonl").write_bytes(first + b"\n" + line + b"\n")
    message = refusal(store, tmp_path / "bad.jsonl")
    assert "bad.jsonl:3: " in message
    assert says in message


def test_the_line_that_the_bad_ones_are_made_from_is_good(store: Store, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(json.dumps(LABELS))
    assert import_file(store, tmp_path / "good.jsonl").labels_new == 1


def test_two_formats_in_one_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "mixed.jsonl").write_bytes(GOOD + json.dumps(PAIR).encode())
    assert "mixed.jsonl:2: this is a line of pairs, but line 1 is one of prompts" in refusal(
        store, tmp_path / "mixed.jsonl"
    )


def test_a_line_without_end(store: Store, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_bytes(GOOD + b'{"prompt": "' + b"x" * (10 * 2**20) + b'"}\n')
    assert "long.jsonl:2: longer than 10 MiB" in refusal(store, tmp_path / "long.jsonl")


def test_a_megabyte_in_the_wrong_place_is_not_repeated(store: Store, tmp_path: Path) -> None:
    (tmp_path / "loud.jsonl").write_text(json.dumps({"prompt": "x", "split": "y" * 1_000_000}))
    assert "is not one of train, heldout" in refusal(store, tmp_path / "loud.jsonl")


def test_gzip_that_was_cut_short_or_damaged(store: Store, tmp_path: Path) -> None:
    lines = b"".join(b'{"prompt": "Question %d?"}\n' % random.Random(n).getrandbits(200) for n in range(5000))
    packed = gzip.compress(lines)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    assert "cut short or damaged" in refusal(store, tmp_path / "cut.jsonl.gz")
    (tmp_path / "hurt.jsonl.gz").write_bytes(packed[:500] + bytes(40) + packed[540:])
    refusal(store, tmp_path / "hurt.jsonl.gz")
    (tmp_path / "short.jsonl.gz").write_bytes(packed[:5])
    assert "cut short or damaged" in refusal(store, tmp_path / "short.jsonl.gz")


def test_files_that_are_none(store: Store, tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "blank.jsonl").write_bytes(b"\n \r\n")
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    assert "No such file" in refusal(store, tmp_path / "missing.jsonl")
    assert "directory" in refusal(store, tmp_path / "folder.jsonl")
    for name in ("empty.jsonl", "blank.jsonl", "empty.jsonl.gz"):
        assert "is empty" in refusal(store, tmp_path / name)


def mutations(seed: int, count: int) -> list[bytes]:
    """Lines that were good once: bytes flipped, ends cut off, values swapped for others, keys dropped or doubled."""
    dice = random.Random(seed)
    hh = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    odd = [
        None,
        True,
        -1,
        0,
        2**64,
        1.5,
        1e308,
        "",
        "x",
        "\ud800",
        "\0",
        [],
        {},
        [[]],
        [None],
        {"role": "user"},
        "k" * 300,
    ]

    def vary(value: Any) -> Any:
        if dice.random() < 0.12:
            return dice.choice(odd)
        if isinstance(value, dict):
            return {(k if dice.random() > 0.05 else "odd"): vary(v) for k, v in value.items() if dice.random() > 0.05}
        if isinstance(value, list):
            return [vary(v) for v in value for _ in range(dice.choice([1, 1, 1, 1, 0, 2]))]
        return value

    found = []
    for _ in range(count):
        line = json.dumps(
            vary(dice.choice([PAIR, LABELS, LABELS, hh, {"messages": [{"role": "user", "content": "Hi"}]}]))
        )
        raw = bytearray(line.encode())
        if raw and dice.random() < 0.3:
            del raw[dice.randrange(len(raw)) :]
        for _ in range(dice.choice([0, 0, 0, 1, 3])):
            if raw:
                raw[dice.randrange(len(raw))] = dice.randrange(256)
        found.append(bytes(raw) if dice.random() > 0.05 else dice.randbytes(60))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_no_line_ever_raises_anything_else_or_leaves_a_row(store: Store, tmp_path: Path, seed: int) -> None:
    refused = 0
    rows = row_count(store)
    for line in mutations(seed, 400):
        (tmp_path / "fuzz.jsonl").write_bytes(json.dumps(LABELS | {"labels": []}).encode() + b"\n" + line)
        try:
            import_file(store, tmp_path / "fuzz.jsonl")
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - what else was raised fails the test by itself
            assert row_count(store) == rows
        rows = row_count(store)
    assert refused > 200
