"""Whoever has no business here is not let in by an invitation, and nobody parts from their own labels by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_here import prefloop_here
from test_accounts import PASSWORD, label_as, member, quick_hashes  # noqa: F401

from labeling.records import UserError
from labeling.store import Store
from labeling.stored_accounts import NotAllowed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "project", create=True)


def test_no_account_stands_beside_labels_of_nearly_its_name(store: Store) -> None:
    label_as(store, "human:ann")
    with pytest.raises(UserError, match="labels of a 'ann', not 'Ann': take that very name"):
        store.join(store.invite("owner", "test"), "Ann", PASSWORD)
    member(store, "own", "owner")
    with pytest.raises(UserError, match="labels of a 'ann', not 'ANN'"):
        store.invite("labeler", "own", name="ANN")
    kim = store.invite("labeler", "own", name="Kim")
    label_as(store, "human:kim")  # came after the invitation
    with pytest.raises(UserError, match="labels of a 'kim', not 'Kim'"):
        store.join(kim, "Kim", PASSWORD)


@pytest.mark.parametrize("change", [{"closed": True}, {"role": "labeler"}])
def test_whoever_is_no_owner_any_more_has_no_invitation_left_to_come_back_by(store: Store, change: Any) -> None:
    member(store, "own", "owner"), member(store, "eve", "owner")
    back, other = store.invite("owner", "eve"), store.invite("labeler", "own")
    store.change_account("eve", role="owner", closed=False)
    assert len(store.invitations()) == 2
    store.change_account("eve", **change)
    with pytest.raises(NotAllowed):
        store.join(back, "eve2", PASSWORD)
    assert store.join(other, "kim", PASSWORD).role == "labeler"


def test_a_program_gets_no_password(store: Store) -> None:
    member(store, "own", "owner")
    store.add_script("bot")
    with pytest.raises(UserError, match="bot is a program, which has tokens and no password"):
        store.change_password("bot", PASSWORD)
    assert store.accounts()[-1].annotator == "script:bot"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("accounts", "--name", "ann"), "--name says whom an invitation is for"),
        (("accounts", "--password", "ann"), "--password: no password came"),
        (("quality", "--reason", "x"), "--reason says why somebody is revoked"),
    ],
)
def test_options_that_mean_nothing_alone(
    store: Store, options: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("getpass.getpass", ended)
    done = prefloop_here(*options, cwd=store.project)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert says in done.stderr
