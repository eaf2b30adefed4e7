"""The settings of a project are checked when they are set, all or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeling.records import UserError
from labeling.settings import Settings, in_lines, parse_assignments, parse_settings, read_guidelines
from labeling.store import Store


def test_settings_are_kept_and_changed_one_by_one(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    assert store.settings() == Settings()
    store.set_settings({"overlap": "3", "gold_rate": "0.1"})
    assert store.set_settings({"gold_rate": "0.2"}) == Settings(overlap=3, gold_rate=0.2)
    assert Store(tmp_path).settings() == Settings(overlap=3, gold_rate=0.2)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"overlaps": "2"}, "there is no setting 'overlaps': the settings are overlap, gold_rate"),
        ({"overlap": "two"}, "overlap is a whole number, not 'two'"),
        ({"overlap": "0"}, "overlap lies between 1 and 50, not 0"),
        ({"gold_rate": "0.6"}, "gold_rate lies between 0 and 0.5, not 0.6"),
        ({"repeat_rate": "nan"}, "repeat_rate lies between 0 and 0.5, not nan"),
        ({"stale_iterations": "-1"}, "stale_iterations is a count from 0"),
        ({"strength": "maybe"}, "strength is yes or no, not 'maybe'"),
        ({"criteria": "two words,b"}, "criteria are at most 8 different words"),
        ({"criteria": "a,a"}, "criteria are at most 8 different words"),
        ({"guidelines": "x" * 20_001}, "guidelines have at most 20000 characters, not 20001"),
        ({"qualifying": "-1"}, "qualifying is a count of items"),
        ({"qualifying_share": "1.5"}, "qualifying_share lies between 0 and 1"),
    ],
)
def test_a_bad_setting_is_named_and_nothing_changes(tmp_path: Path, given: dict[str, str], complaint: str) -> None:
    store = Store(tmp_path, create=True)
    with pytest.raises(UserError, match=complaint):
        store.set_settings({"repeat_rate": "0.1", **given})
    assert store.settings() == Settings()
    with pytest.raises(UserError, match=complaint):
        parse_settings(given)


def test_an_assignment_needs_its_equals_sign() -> None:
    assert parse_assignments(["overlap=2", "gold_rate = 0.1"]) == {"overlap": "2", "gold_rate": "0.1"}
    with pytest.raises(UserError, match="'overlap' sets nothing: write KEY=VALUE"):
        parse_assignments(["overlap"])


def test_what_is_asked_is_set_as_words(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    found = store.set_settings({"strength": "yes", "criteria": " tone, facts ", "guidelines": "# How\n"})
    assert (found.strength, found.criteria, found.guidelines) == (True, ("tone", "facts"), "# How\n")
    assert {"strength = yes", "criteria = tone,facts", "guidelines = (6 characters)"} < set(in_lines(found))
    assert "criteria =" in in_lines(store.set_settings({"criteria": ""}))


def test_guidelines_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"guidelines names a Markdown file, and .*guide.md cannot be read"):
        read_guidelines(tmp_path / "guide.md")
    (tmp_path / "guide.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        read_guidelines(tmp_path / "guide.md")
