"""The settings of a project are checked when they are set, all or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeling.records import UserError
from labeling.settings import Settings, parse_assignments, parse_settings
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
