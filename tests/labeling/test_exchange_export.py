"""What goes out comes back the same, pairs have the shape that TRL reads, and a failed export leaves nothing."""

import gzip
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labeling.exchange import export_file, import_file
from labeling.jsonl import write_objects
from labeling.records import Annotator, Candidate, HumanRequest, Label, Lineage, Message, Prompt, Slate, UserError
from labeling.store import Store

TEA = Prompt((Message("user", "Tea?"),), "train", "small talk")
TALK = Prompt((Message("system", "Be kind."), Message("user", "Hi"), Message("assistant", "Ho"), Message("user", "¿?")))
HELD = Prompt((Message("user", "Held?"),), "heldout")
PAIR = Slate(TEA, (Candidate("Yes.", "policy-1"), Candidate("No.", "policy-1", finished=False)))
FOUR = Slate(
    TALK,
    tuple(Candidate(text) for text in ("a\n\u2028b", "c", "", '"d"\\')),
    Lineage("run-1", 3, "disagreement", 0.25, "rm-2", (0.5, -1.25, 0.0, 3.0)),
)
APART = Slate(HELD, (Candidate("A"), Candidate("B")))
PEOPLE = (Annotator("ann", "human"), Annotator("judge:x", "judge", 0.4, 0.2), Annotator("oracle", "oracle", 0.0))


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A store with every kind of label: superseded, undone, redone, tied, failed and unanswered."""
    store = Store(tmp_path / "full", create=True)
    store.add_slates([PAIR, FOUR, APART])
    for annotator in PEOPLE:
        store.add_annotator(annotator)
    store.add_labels(
        [
            Label(PAIR.id, "ann", "ranked", "first", (1, 2), strength=0.5, order=(1, 0), seconds=3.25, reason="näher"),
            Label(PAIR.id, "ann", "ranked", "second", (2, 1), supersedes="first"),
            Label(PAIR.id, "ann", "undone", "undo", supersedes="second"),
            Label(PAIR.id, "judge:x", "ranked", "j1", (1, 2), probability=0.7),
            Label(PAIR.id, "oracle", "parse_failure", "o1", reason="no verdict"),
            Label(FOUR.id, "ann", "ranked", "four", (2, 1, 2, 4), order=(3, 1, 0, 2)),
            Label(FOUR.id, "judge:x", "both_bad", "j2"),
        ]
    )
    return store


def by_key(store: Store, history: bool) -> list[Label]:
    return sorted(store.labels(history=history), key=lambda label: label.client_key)


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.jsonl.gz"])
def test_labels_come_back_equal_with_their_history(full: Store, tmp_path: Path, name: str) -> None:
    report = export_file(full, tmp_path / name, "labels")
    assert (report.lines, report.ties) == (3, 0)
    other = Store(tmp_path / "other", create=True)
    assert import_file(other, tmp_path / name).labels_new == 7
    assert other.prompts() == full.prompts()
    assert other.slates() == full.slates()
    assert other.annotators() == full.annotators()
    for history in (True, False):
        assert by_key(other, history) == by_key(full, history)
    assert other.labeled_slates() == full.labeled_slates()
    assert len(other.labels(history=True)) == 7
    assert len(other.labels()) == 4
    assert import_file(other, tmp_path / name).labels_new == 0


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.csv", "labels.parquet"])
def test_what_people_were_sent_and_why_comes_back(full: Store, tmp_path: Path, name: str) -> None:
    requests = [
        HumanRequest(APART.id, "judge:x", "audit", 0.0625, 0.1),
        HumanRequest(PAIR.id, "judge:x", "margin", 1.5),
        HumanRequest(PAIR.id, "judge:x", "orders", 1.5),
    ]
    full.request_people(requests)
    export_file(full, tmp_path / name, "labels")
    other = Store(tmp_path / "other", create=True)
    for new in (3, 0):
        report = import_file(other, tmp_path / name)
        assert (report.requests_new, "so are 3 requests to people" in str(report)) == (new, new == 3)
        assert other.human_requests() == full.human_requests() == requests
    assert other.audits() == {"judge:x": {APART.id: 0.1}}
    assert by_key(other, True) == by_key(full, True)
    queues = []
    for store in (full, other):
        store.add_annotator(Annotator("bob", "human"))
        queues.append([lease.slate_id for lease in store.leases("bob", range, (2, 9), 60, 3)])
    assert queues[0] == queues[1] == [APART.id, PAIR.id]  # as requested, and not as they came


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.csv", "labels.parquet"])
def test_what_counts_for_nothing_does_so_in_the_other_project_too(full: Store, tmp_path: Path, name: str) -> None:
    full.add_gold(APART.id, (2, 1))
    full.add_labels([Label(APART.id, "ann", "ranked", "checked", (1, 2)), Label(PAIR.id, "ann", "ranked", "p", (1, 2))])
    full.add_labels([Label(PAIR.id, "ann", "ranked", "changed", (2, 1), supersedes="p")])
    full.revoke("ann", "answers at random", "me")
    export_file(full, tmp_path / name, "labels")
    other = Store(tmp_path / "other", create=True)
    report = import_file(other, tmp_path / name)
    assert (report.gold_new, report.revoked_new) == (1, 1)
    assert "and 1 slates have a known answer; 1 annotators are revoked, as the file says" in str(report)
    assert other.gold() == full.gold() == {APART.id: (2, 1)}
    assert other.revoked() == full.revoked() == {"ann": "answers at random"}
    assert other.labeled_slates() == full.labeled_slates()
    assert (by_key(other, True), by_key(other, False)) == (by_key(full, True), by_key(full, False))
    again = import_file(other, tmp_path / name)
    assert (again.labels_new, again.gold_new, again.revoked_new) == (0, 0, 0)
    other.restore("ann")
    import_file(other, tmp_path / name)
    assert other.revoked() == {}  # who is known here stays as they are


def test_a_slate_that_taught_here_is_no_known_answer_by_import(full: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other", create=True)
    export_file(full, tmp_path / "labels.jsonl", "labels")
    import_file(other, tmp_path / "labels.jsonl")
    other.add_labels([Label(APART.id, "ann", "ranked", "taught", (1, 2))])
    full.add_gold(APART.id, (2, 1))
    export_file(full, tmp_path / "labels.jsonl", "labels")
    with pytest.raises(UserError, match=r"labels.jsonl:\d: the slate slate_\w+ teaches already"):
        import_file(other, tmp_path / "labels.jsonl")


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"judge": "ann", "reason": "audit", "place": 0, "propensity": 0.5}, "a request names 'ann', and no judge"),
        ({"judge": "nobody", "reason": "margin", "place": 1}, "a request names 'nobody', and no judge"),
        ({"judge": "judge:x", "reason": "audit", "place": 0}, "a propensity in \\(0, 1\\] belongs to"),
        ({"judge": "judge:x", "reason": "bored", "place": 1}, "reason 'bored' is not one of audit, orders"),
        ({"judge": "judge:x", "reason": "margin", "place": 1, "why": 1}, "a request has no key 'why'"),
        ({"judge": "judge:x", "reason": "margin"}, "the key 'place' is missing"),
        (7, "'requests' must hold objects, not 7"),
    ],
)
def test_a_request_that_cannot_be_is_named_and_nothing_is_imported(
    full: Store, tmp_path: Path, request_: Any, says: str
) -> None:
    path = tmp_path / "labels.jsonl"
    export_file(full, path, "labels")
    lines = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
    lines[0]["lineage"]["requests"] = [request_]
    path.write_text("\n".join(map(json.dumps, lines)))
    other = Store(tmp_path / "other", create=True)
    with pytest.raises(UserError, match=f"labels.jsonl:1: .*{says}"):
        import_file(other, path)
    assert (other.slates(), other.human_requests()) == ([], [])


def test_a_file_that_was_exported_twice_is_the_same_file(full: Store, tmp_path: Path) -> None:
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        export_file(full, tmp_path / name, "labels")
    one, two = ((tmp_path / name).read_bytes() for name in ("one.jsonl.gz", "two.jsonl.gz"))
    assert one == two
    assert one[4:8] == bytes(4)  # where gzip keeps the time of day
    assert gzip.decompress(one).count(b"\n") == 3


def test_prompts_come_back_equal(full: Store, tmp_path: Path) -> None:
    assert export_file(full, tmp_path / "p.jsonl", "prompts").lines == 3
    other = Store(tmp_path / "other", create=True)
    import_file(other, tmp_path / "p.jsonl")
    assert other.prompts() == full.prompts()


@pytest.mark.parametrize(("what", "lines"), [("prompts", 1), ("labels", 1), ("pairs", 0)])
def test_one_split_alone(full: Store, tmp_path: Path, what: Any, lines: int) -> None:
    assert export_file(full, tmp_path / "x.jsonl", what, "heldout").lines == lines
    assert (tmp_path / "x.jsonl").read_text().count("\n") == lines


def test_pairs_have_the_conversational_shape_that_trl_reads(full: Store, tmp_path: Path) -> None:
    report = export_file(full, tmp_path / "pairs.jsonl", "pairs")
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().split("\n")[:-1]]
    assert (report.lines, report.ties) == (len(lines), 1) == (6, 1)  # the pair, and C(4, 2) = 6 with one tie
    assert str(report) == "6 lines written; 1 pairs left out because nobody came out ahead"
    assert lines[0] == {
        "prompt": [{"role": "user", "content": "Tea?"}],
        "chosen": [{"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    assert [turn["role"] for turn in lines[1]["prompt"]] == ["system", "user", "assistant", "user"]
    ranks = dict(zip((c.text for c in FOUR.candidates), (2, 1, 2, 4), strict=True))
    for line in lines[1:]:
        assert set(line) == {"prompt", "chosen", "rejected"}
        assert ranks[line["chosen"][0]["content"]] < ranks[line["rejected"][0]["content"]]


def export_of(tmp_path: Path, *answers: tuple[Annotator, tuple[int, int], float | None]) -> list[str]:
    """The chosen texts when these annotators answered about PAIR ("Yes." is candidate 0)."""
    store = Store(tmp_path / "votes", create=True)
    store.add_slates([PAIR])
    for annotator, ranks, probability in answers:
        store.add_annotator(annotator)
        store.add_labels([Label(PAIR.id, annotator.id, "ranked", annotator.id, ranks, probability)])
    report = export_file(store, tmp_path / "votes.jsonl", "pairs")
    assert report.lines + report.ties == 1
    lines = (tmp_path / "votes.jsonl").read_text().splitlines()
    return [json.loads(line)["chosen"][0]["content"] for line in lines]


def person(name: str, weight: float = 1.0, flip_rate: float = 0.0) -> Annotator:
    return Annotator(name, "human", weight, flip_rate)


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ([(person("a"), (1, 2), None), (person("b"), (2, 1), None)], []),
        ([(person("a"), (1, 2), None), (person("b"), (2, 1), None), (person("c"), (2, 1), None)], ["No."]),
        ([(person("a", 3.0), (1, 2), None), (person("b"), (2, 1), None), (person("c"), (2, 1), None)], ["Yes."]),
        ([(person("a", 1.0, 0.6), (1, 2), None), (person("b", 0.5), (2, 1), None)], ["No."]),  # 0.4 against 0.5
        ([(person("a"), (1, 2), 0.6), (person("b"), (2, 1), 0.3)], ["No."]),  # mean 0.45
        ([(person("a"), (1, 1), None)], []),
        ([(person("a", 0.0), (1, 2), None)], []),
        ([(person("a"), (1, 2), 0.6), (person("b"), (1, 2), 0.7), (person("c"), (1, 2), 0.2)], []),  # 0.1+0.2-0.3
    ],
)
def test_annotators_who_disagree_are_weighed(tmp_path: Path, answers: Any, chosen: list[str]) -> None:
    assert export_of(tmp_path, *answers) == chosen


def test_exported_pairs_import_as_the_same_preferences(full: Store, tmp_path: Path) -> None:
    export_file(full, tmp_path / "pairs.jsonl", "pairs")
    other = Store(tmp_path / "other", create=True)
    report = import_file(other, tmp_path / "pairs.jsonl")
    empty = 2  # the empty candidate lost to one and beat another
    assert (report.labels_new, len(report.skipped)) == (6 - empty, empty)


def folder(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_place_that_cannot_be_written(full: Store, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    before = folder(tmp_path)
    for bad in (tmp_path / "nowhere" / "x.jsonl", tmp_path / "taken", tmp_path / "file" / "x.jsonl"):
        with pytest.raises(UserError, match="cannot be written"):
            export_file(full, bad, "prompts")
    assert folder(tmp_path) == before


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_full_disk_leaves_the_older_file_and_no_leftover(full: Store, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_text("older\n")
    before = folder(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # from here on the kernel refuses to grow a file
    try:
        with pytest.raises(UserError, match=r"cannot be written \(File too large\)"):
            export_file(full, target, "labels")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert folder(tmp_path) == before
    assert target.read_text() == "older\n"


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_interrupted_export_leaves_no_leftover(tmp_path: Path, name: str) -> None:
    def interrupted() -> Iterator[dict[str, Any]]:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_objects(tmp_path / name, interrupted())
    assert folder(tmp_path) == []


def test_a_link_keeps_pointing_to_the_file_that_was_rewritten(full: Store, tmp_path: Path) -> None:
    (tmp_path / "real.jsonl").write_text("older\n")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    export_file(full, tmp_path / "link.jsonl", "prompts")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "real.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize("name", ["x.xlsx", "x.csv.gz", "x.json", "x.parquet.gz", "x.txt"])
def test_a_name_of_a_format_that_is_not_written_gets_no_file_of_another(full: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"let the name end in \.jsonl, \.jsonl\.gz, \.csv, \.parquet"):
        export_file(full, tmp_path / name, "pairs")
    assert not (tmp_path / name).exists()
