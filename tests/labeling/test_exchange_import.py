"""Files of prompts and pairs become records, or one line that says what to mend."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from labeling.exchange import import_file
from labeling.records import Message, Prompt, UserError
from labeling.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def write(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def hh(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {turn}" for n, turn in enumerate(turns))


def ranking(store: Store) -> list[tuple[Prompt, str, str]]:
    """(prompt, better text, worse text) of every label."""
    found = []
    for labeled in store.labeled_slates():
        for label in labeled.labels:
            assert label.ranks is not None
            better, worse = sorted(range(2), key=label.ranks.__getitem__)
            texts = [c.text for c in labeled.slate.candidates]
            found.append((labeled.slate.prompt, texts[better], texts[worse]))
    return found


def test_prompts_in_every_form(store: Store, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    turns.append({"role": "user", "content": "Bye"})
    file = write(
        tmp_path / "p.jsonl",
        {"prompt": "One?", "split": "heldout", "category": "list"},
        {"prompt": turns, "split": "train"},
        {"messages": turns[:1], "split": "train"},
    )
    report = import_file(store, file)
    assert (report.lines, report.prompts_new, report.slates_new, report.labels_new) == (3, 3, 0, 0)
    talk = (Message("user", "Hi"), Message("assistant", "Hello"), Message("user", "Bye"))
    assert store.prompts() == [
        Prompt((Message("user", "One?"),), "heldout", "list"),
        Prompt(talk),
        Prompt((Message("user", "Hi"),)),
    ]


def test_responses_that_nobody_compared_wait_for_labels(store: Store, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Coffee?"}]
    file = write(
        tmp_path / "r.jsonl",
        {"prompt": "Tea?", "response_1": "Yes.", "response_2": "No.", "split": "heldout"},
        {"messages": talk, "responses": ["x", "y", "z"], "policies": ["base", "new", "new"]},
        {"prompt": "Milk?", "Answer B": "b", "Answer A": "a", "category": "drinks"},
        {"prompt": "Same?", "responses": ["x", "x"]},
        {"prompt": "Empty?", "response_1": "x", "response_2": " "},
    )
    report = import_file(store, file)
    assert (report.slates_new, report.labels_new) == (3, 0)
    assert report.skipped == ((4, "two responses are the same"), (5, "an empty response"))
    assert [[(c.text, c.policy) for c in slate.candidates] for slate in store.slates()] == [
        [("Yes.", ""), ("No.", "")],
        [("x", "base"), ("y", "new"), ("z", "new")],
        [("a", ""), ("b", "")],
    ]
    assert store.waiting("human:ann", (2, 9)) == 3
    assert str(import_file(store, file)).startswith("5 lines read: 0 prompts, 0 slates and 0 labels are new")


def test_responses_stand_in_columns_too(store: Store, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("prompt,response_a,response_b,response_c,id\nTea?,'=1+1,No.,,7\n")
    report = import_file(store, tmp_path / "r.csv")
    assert ([[c.text for c in slate.candidates] for slate in store.slates()], report.ignored) == (
        [["=1+1", "No."]],
        ("id",),
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"response_1": "a", "response_2": "b"}, "either 'prompt' or 'messages'"),
        ({"prompt": "q", "response_1": "a"}, "no key 'response_1'"),
        ({"prompt": "q", "responses": "a"}, "'responses' must be a list"),
        ({"prompt": "q", "responses": ["a", 2]}, "'responses' must be text, not 2"),
        ({"prompt": "q", "responses": ["a", "b"], "response_1": "a", "response_2": "b"}, "and not both"),
        ({"prompt": "q", "responses": ["a", "b"], "policies": ["one"]}, "'policies' names 1 for 2 responses"),
        ({"prompt": "q", "responses": list("abcdefghij")}, "10"),
        ({"prompt": "q", "response_1": "a", "response_2": "b", "winner": "a"}, "no key 'winner'"),
        ({"prompt": "q", "candidates": ["a", "b"]}, "call a list of plain texts 'responses'"),
    ],
)
def test_responses_that_do_not_fit_are_explained(store: Store, tmp_path: Path, line: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=r"^\S*r\.jsonl:1: ") as caught:
        import_file(store, write(tmp_path / "r.jsonl", line))
    assert said in str(caught.value)
    assert store.prompts() == []


def test_bytes_that_editors_add_are_harmless(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "windows.jsonl"
    file.write_bytes('\ufeff{"prompt": "Ünïcode 😀\\ud83d\\ude00?"}\r\n\r\n  \r\n{"prompt": "Two?"}'.encode())
    assert import_file(store, file).lines == 2
    assert [p.messages[0].content for p in store.prompts()] == ["Ünïcode 😀😀?", "Two?"]


def test_gzip_whatever_its_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(b'{"prompt": "One?"}\n'))
    assert import_file(store, tmp_path / "packed.jsonl").prompts_new == 1


@pytest.mark.parametrize(
    "line",
    [
        {"prompt": "Tea?", "chosen": "Yes please.", "rejected": "No."},
        {
            "prompt": [{"role": "user", "content": "Tea?"}],
            "chosen": [{"role": "assistant", "content": "Yes please."}],
            "rejected": [{"role": "assistant", "content": "No."}],
        },
        {
            "chosen": [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes please."}],
            "rejected": [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "No."}],
        },
        {"chosen": hh("Tea?", "Yes please."), "rejected": hh("Tea?", "No.")},
    ],
    ids=["standard", "conversational", "implicit prompt", "hh"],
)
def test_a_pair_in_every_form_is_the_same_pair(store: Store, tmp_path: Path, line: dict[str, Any]) -> None:
    import_file(store, write(tmp_path / "pairs.jsonl", line), split="train")
    assert ranking(store) == [(Prompt((Message("user", "Tea?"),)), "Yes please.", "No.")]
    (label,) = store.labels()
    assert (label.annotator, label.outcome) == ("import:pairs", "ranked")
    assert store.annotators()["import:pairs"].kind == "human"


def test_dialogues_that_part_early_lose_no_turn(store: Store, tmp_path: Path) -> None:
    file = write(
        tmp_path / "hh.jsonl",
        {"chosen": hh("a", "b", "c", "d"), "rejected": hh("a", "b", "c", "e")},
        {"chosen": hh("a", "b", "more", "d"), "rejected": hh("a", "x")},
        {"chosen": hh("a", "b", "one way", "d"), "rejected": hh("a", "b", "other way", "d")},
    )
    import_file(store, file)
    long, short = (Message("user", "a"), Message("assistant", "b"), Message("user", "c")), (Message("user", "a"),)
    went_on = "b\n\nHuman: {}\n\nAssistant: d"
    assert [(prompt.messages, better, worse) for prompt, better, worse in ranking(store)] == [
        (long, "d", "e"),
        (short, went_on.format("more"), "x"),
        (short, went_on.format("one way"), went_on.format("other way")),
    ]


def test_pairs_that_prefer_nothing_are_counted_with_their_lines(store: Store, tmp_path: Path) -> None:
    file = write(
        tmp_path / "hh.jsonl",
        {"chosen": hh("a", "same"), "rejected": hh("a", "same")},
        {"chosen": hh("a", "b"), "rejected": hh("a", "")},
        {"chosen": hh("a", "b"), "rejected": hh("other", "b")},
        {"chosen": hh("", "b"), "rejected": hh("", "c")},
        {"chosen": hh("a", "b"), "rejected": hh("a", "c")},
    )
    report = import_file(store, file)
    assert [line for line, _ in report.skipped] == [1, 2, 3, 4]
    assert len({reason for _, reason in report.skipped}) == 4
    assert (report.lines, report.slates_new, report.labels_new) == (5, 1, 1)
    assert "1 skipped: an empty response (line 2)" in str(report)


def test_importing_twice_adds_nothing_and_disagreement_is_two_labels_of_one_slate(store: Store, tmp_path: Path) -> None:
    one, other = {"prompt": "Tea?", "chosen": "A", "rejected": "B"}, {"prompt": "Tea?", "chosen": "B", "rejected": "A"}
    file = write(tmp_path / "pairs.jsonl", one, other)
    first, again = import_file(store, file), import_file(store, file)
    assert (first.prompts_new, first.slates_new, first.labels_new) == (1, 1, 2)
    assert (again.prompts_new, again.slates_new, again.labels_new) == (0, 0, 0)
    assert sorted(label.ranks or () for label in store.labels()) == [(1, 2), (2, 1)]


def test_the_place_of_a_response_does_not_betray_the_winner(store: Store, tmp_path: Path) -> None:
    """Of 200 fair coins 72 to 128 fall on one side but for one chance in 10,000; the texts' order betrays nothing."""
    lines = [{"prompt": f"Question {n}?", "chosen": f"a good {n}", "rejected": f"b bad {n}"} for n in range(200)]
    import_file(store, write(tmp_path / "pairs.jsonl", *lines))
    assert 72 <= sum(label.ranks == (1, 2) for label in store.labels()) <= 128


def test_the_split_is_the_lines_then_the_callers_then_drawn(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", {"prompt": "One?", "split": "train"}, {"prompt": "Two?"})
    import_file(store, file, split="heldout")
    assert [p.split for p in store.prompts()] == ["train", "heldout"]
    drawn = write(tmp_path / "q.jsonl", *({"prompt": f"Question {n}?"} for n in range(1000)))
    import_file(store, drawn, heldout_share=0.3)
    held_out = len(store.prompts("heldout")) - 1
    assert 245 <= held_out <= 355  # 300 ± 3.8 standard deviations of a binomial, 14.5 each


def test_a_prompt_keeps_the_split_that_it_has_and_the_report_says_so(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path / "p.jsonl", {"prompt": "One?"}, {"prompt": "Two?"})
    import_file(store, file, split="train")
    report = import_file(store, file, split="heldout")
    assert (report.splits_kept, len(store.prompts("train"))) == (2, 2)
    assert "keeps its own" in str(report)


def test_a_conversation_and_its_continuation_never_part(store: Store, tmp_path: Path) -> None:
    lines = []
    for n in range(60):
        opening = f"Opening {n}"
        lines.append({"chosen": hh(opening, "b"), "rejected": hh(opening, "c")})
        lines.append({"chosen": hh(opening, "b", "and?", "d"), "rejected": hh(opening, "b", "and?", "e")})
    import_file(store, write(tmp_path / "hh.jsonl", *lines), heldout_share=0.5)
    splits: dict[str, set[str]] = {}
    for prompt in store.prompts():
        splits.setdefault(prompt.messages[0].content, set()).add(prompt.split)
    assert len(splits) == 60
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "heldout"}


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_refused(store: Store, tmp_path: Path, share: float) -> None:
    with pytest.raises(UserError, match="share"):
        import_file(store, write(tmp_path / "p.jsonl", {"prompt": "One?"}), heldout_share=share)


def test_a_conflict_in_the_last_line_takes_back_the_whole_file(store: Store, tmp_path: Path) -> None:
    annotator = {"id": "ann", "kind": "human"}
    base = {"candidates": [{"text": "A"}, {"text": "B"}], "split": "train"}
    answers = [{"annotator": annotator, "outcome": "ranked", "client_key": "k", "ranks": [1, 2]}]
    lines = [{**base, "prompt": f"Question {n}?", "labels": answers} for n in range(2)]
    with pytest.raises(UserError, match=r"labels\.jsonl:2: the client_key 'k' was already used"):
        import_file(store, write(tmp_path / "labels.jsonl", *lines))
    assert (store.prompts(), store.slates(), store.labels(), store.annotators()) == ([], [], [], {})


def test_an_annotator_keeps_its_weight_here_and_cannot_change_kind(store: Store, tmp_path: Path) -> None:
    def labels(key: str, **annotator: Any) -> Path:
        answers = [{"annotator": annotator, "outcome": "skip", "client_key": key}]
        line = {"prompt": "Tea?", "candidates": [{"text": "A"}, {"text": "B"}], "labels": answers}
        return write(tmp_path / "labels.jsonl", line)

    import_file(store, labels("one", id="ann", kind="human", weight=2))
    import_file(store, labels("two", id="ann", kind="human", weight=9))
    assert store.annotators()["ann"].weight == 2
    with pytest.raises(UserError, match=r"labels\.jsonl:1: 'ann' is a judge here, but a human before"):
        import_file(store, labels("three", id="ann", kind="judge"))
    assert [label.client_key for label in store.labels()] == ["one", "two"]


def test_the_slate_is_the_same_whichever_response_was_chosen(store: Store, tmp_path: Path) -> None:
    lines = [{"prompt": f"Question {n}?", "chosen": "A", "rejected": "B"} for n in range(20)]
    import_file(store, write(tmp_path / "x.jsonl", *lines))
    import_file(store, write(tmp_path / "y.jsonl", *({**line, "chosen": "B", "rejected": "A"} for line in lines)))
    assert len(store.slates()) == 20
    for labeled in store.labeled_slates():
        assert {c.text for c in labeled.slate.candidates} == {"A", "B"}
        assert {label.annotator for label in labeled.labels} == {"import:x", "import:y"}
        assert {label.ranks for label in labeled.labels} == {(1, 2), (2, 1)}


def test_what_only_one_side_was_asked_is_no_common_prompt(store: Store, tmp_path: Path) -> None:
    asked, more = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
    answer = {"role": "assistant", "content": "c"}
    file = write(tmp_path / "x.jsonl", {"chosen": [asked, more, answer], "rejected": [asked, answer]})
    assert [line for line, _ in import_file(store, file).skipped] == [1]
