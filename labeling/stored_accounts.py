"""Accounts, invitations and sessions, as the store keeps them. Secrets are kept as hashes alone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from labeling.accounts import (
    FORGOTTEN_AFTER,
    NO_PASSWORD,
    NOBODY,
    Account,
    Invitation,
    Patience,
    Role,
    Session,
    SessionKind,
    alike,
    check_name,
    check_role,
    guessers,
    hash_password,
    new_secret,
    password_fits,
    secret_id,
    still_counted,
    wait_after,
)
from labeling.database import ProjectDatabase
from labeling.records import UserError

INVITE_SECONDS = 7 * 86400.0
BROWSER_SECONDS = 14 * 86400.0
KNOWN_SECONDS = 365 * 86400.0  # for so long a browser is known as one that signed in
MAX_NOTE = 100


class NotAllowed(UserError):
    """Wrong name or password, or a secret that is not known any more."""


class TooManyTries(NotAllowed):
    """Too many wrong passwords: what is tried before so many seconds are over is not looked at."""

    def __init__(self, seconds: float) -> None:
        self.seconds = math.ceil(seconds)
        wait = f"{self.seconds} s" if self.seconds <= 90 else f"{math.ceil(seconds / 60)} minutes"
        super().__init__(f"too many wrong passwords: try again in {wait}")


class StoredAccounts(ProjectDatabase):
    """The part of `labeling.store.Store` that knows who may sign in."""

    _accounts = False

    def has_accounts(self) -> bool:
        """Whether this project wants people to sign in; once it does, it always will."""
        self._accounts = self._accounts or bool(self.rows("SELECT 1 FROM account LIMIT 1"))
        return self._accounts

    def accounts(self) -> list[Account]:
        """Everybody, the closed accounts too, in the order in which they came."""
        return [_account(row) for row in self.rows("SELECT * FROM account ORDER BY created, name")]

    def invite(self, role: str, by: str, seconds: float = INVITE_SECONDS, name: str = "") -> str:
        """A secret that lets one person make an account with this role; under `name` alone, if that is given.

        Whoever joins by an invitation for a name goes on with the labels that stand under it: so people keep their own
        when labels were given before there were accounts, or come from another project. Raises UserError for an unknown
        role, and for a name that is taken, does not fit or is nearly that of other labels.
        """
        secret, now = new_secret(), time.time()
        with self.writing() as db:
            if name:
                self._refuse_taken(check_name(name))
                self._refuse_nearly(name)
            values = [secret_id(secret), check_role(role), by, now, now + seconds, name]
            db.execute("INSERT INTO invite VALUES (?, ?, ?, ?, ?, NULL, ?)", values)
        return secret

    def invitations(self) -> list[Invitation]:
        """The invitations by which somebody could join now, oldest first."""
        rows = self.rows(
            "SELECT token AS id, role, name, created_by AS by, created, expires FROM invite "
            "WHERE used_by IS NULL AND expires > ? ORDER BY created",
            [time.time()],
        )
        return [Invitation(**row) for row in rows]

    def withdraw(self, invitation_id: str) -> bool:
        """Let nobody join by an invitation any more. Returns whether somebody could."""
        with self.writing() as db:
            open_ones = "token = ? AND used_by IS NULL AND expires > ?"
            return db.execute(f"DELETE FROM invite WHERE {open_ones}", [invitation_id, time.time()]).rowcount > 0

    def join(self, secret: str, name: str, password: str) -> Account:
        """Make the account that an invitation is for; it can be used once.

        Labels that are here already belong to whoever gave them, so nobody joins under a name that has some, but by
        an invitation for that name, or as the first owner: who made that one holds the project's files.

        Raises NotAllowed for an invitation that is unknown, used, withdrawn or expired, UserError for a name that is
        taken, does not fit or is not the invitation's, and for a password that is too short.
        """
        check_name(name)
        self._invited_as(secret)  # before the hash: a stranger must not keep those who sign in waiting
        kept = hash_password(password)  # before the transaction: it takes a while
        now = time.time()
        with self.writing() as db:
            role, only = self._invited_as(secret)
            if only not in ("", name):
                raise UserError(f"this invitation is for {only!r}: join under that name, or ask for another one")
            self._refuse_taken(name)
            if only or (role == "owner" and not self.accounts()):
                self._refuse_nearly(name)
            elif self._names_of_labels(name):
                raise UserError(
                    f"there are labels of a {name!r} already: choose another name, or, if they are yours, ask an owner "
                    "for an invitation for that name"
                )
            db.execute("INSERT INTO account VALUES (?, ?, ?, ?, NULL)", [name, role, kept, now])
            db.execute("UPDATE invite SET used_by = ? WHERE token = ?", [name, secret_id(secret)])
        return Account(name, role, now)

    def _invited_as(self, secret: str) -> tuple[Role, str]:
        """The role that an open invitation is for, and the name ("": any). Raises NotAllowed for any other."""
        found = self.rows("SELECT * FROM invite WHERE token = ?", [secret_id(secret)])
        if not found or found[0]["used_by"] is not None or found[0]["expires"] < time.time():
            raise NotAllowed("this invitation was used, has expired or never was: ask for a new one")
        return check_role(found[0]["role"]), found[0]["name"]

    def _refuse_taken(self, name: str) -> None:
        if self._accounts_like(name):
            raise UserError(f"the name {name!r} is taken: choose another")

    def _accounts_like(self, name: str) -> list[Account]:
        """The accounts whose name people would take for this one."""
        return [account for account in self.accounts() if alike(account.name, name)]

    def _refuse_nearly(self, name: str) -> None:
        """Raise UserError where labels stand under nearly this name alone: they would not go with the account."""
        found = self._names_of_labels(name)
        if found and name not in found:
            raise UserError(
                f"there are labels of a {found[0]!r}, not {name!r}: take that very name, or quite another one"
            )

    def _names_of_labels(self, name: str) -> list[str]:
        """Under which names like this one a person labelled before accounts were there, or elsewhere."""
        rows = self.rows(
            "SELECT id FROM annotator WHERE EXISTS (SELECT 1 FROM label WHERE annotator = annotator.id) "
            "AND substr(id, 1, 6) = 'human:'"
        )
        return [row["id"][6:] for row in rows if alike(row["id"][6:], name)]

    def sign_in(self, name: str, password: str, address: str, browser: str = "") -> str:
        """The secret of a new browser session. browser: what `know_browser` gave to this one before.

        After some wrong passwords, every further try waits, longer each time; what is tried meanwhile is not looked
        at. `guessers` says who waits for whose. Raises NotAllowed, which does not say whether the name exists, and
        TooManyTries.
        """
        self.check_password(name, password, guessers(name, address, self._known_browser(browser, name)))
        return self.open_session(name, "browser", "", BROWSER_SECONDS)

    def check_password(self, name: str, password: str, counted: Mapping[str, Patience]) -> None:
        """Return when the password is that of an open account. Wrong ones are counted under these names.

        Raises NotAllowed, TooManyTries.
        """
        self._refuse_while_waiting(counted)
        found = self.rows("SELECT password FROM account WHERE name = ? AND closed IS NULL", [name])
        fits = password_fits(password, found[0]["password"] if found else NOBODY)
        if not found or not fits:
            self._note_failure(counted)
            raise NotAllowed("this name and password do not belong together")
        with self.writing() as db:  # the first of them is this person's alone
            db.execute("DELETE FROM failed_login WHERE who = ?", [next(iter(counted))])

    def _refuse_while_waiting(self, counted: Mapping[str, Patience]) -> None:
        for who, patience in counted.items():
            for row in self.rows("SELECT until FROM failed_login WHERE who = ?", [who]):
                left = row["until"] - time.time()
                if 0 < left <= patience.longest:  # more than that is left only where the clock was put back
                    raise TooManyTries(left)

    def _note_failure(self, counted: Mapping[str, Patience]) -> None:
        now = time.time()
        with self.writing() as db:
            db.execute("DELETE FROM failed_login WHERE until + count * ? < ?", [FORGOTTEN_AFTER, now])
            for who, patience in counted.items():
                row = self.rows("SELECT count, until FROM failed_login WHERE who = ?", [who])
                count = 1 + (still_counted(row[0]["count"], now - row[0]["until"]) if row else 0)
                until = now + wait_after(count, patience)
                db.execute("INSERT OR REPLACE INTO failed_login VALUES (?, ?, ?)", [who, count, until])

    def know_browser(self, account: str, browser: str = "") -> str:
        """A secret by which a browser that just signed in is known as one of this account's; `browser`, if it has one.

        It opens nothing; it only keeps other people's wrong passwords from making this browser wait.
        """
        if self._known_browser(browser, account) is not None:
            return browser
        secret, now = new_secret(), time.time()
        with self.writing() as db:
            db.execute("DELETE FROM known_browser WHERE created < ?", [now - KNOWN_SECONDS])
            db.execute("INSERT INTO known_browser VALUES (?, ?, ?)", [secret_id(secret), account, now])
        return secret

    def _known_browser(self, browser: str, account: str) -> str | None:
        """The id of a browser that signed in to this account before; None for any other."""
        wanted = [secret_id(browser), account, time.time() - KNOWN_SECONDS]
        found = self.rows("SELECT token FROM known_browser WHERE token = ? AND account = ? AND created > ?", wanted)
        return found[0]["token"] if found else None

    def open_session(self, account: str, kind: SessionKind, note: str, seconds: float) -> str:
        """A secret with which requests act for the account, until it expires or is ended."""
        secret, now = new_secret(), time.time()
        with self.writing() as db:
            db.execute("DELETE FROM session WHERE expires < ?", [now])
            values = [secret_id(secret), account, kind, note[:MAX_NOTE], now, now + seconds]
            db.execute("INSERT INTO session VALUES (?, ?, ?, ?, ?, ?)", values)
        return secret

    def account_of(self, secret: str) -> Account | None:
        """Who a session or token belongs to; None when it is unknown, expired or ended, or the account is closed."""
        rows = self.rows(
            "SELECT account.* FROM session JOIN account ON account.name = session.account "
            "WHERE token = ? AND expires > ? AND closed IS NULL",
            [secret_id(secret), time.time()],
        )
        return _account(rows[0]) if rows else None

    def add_script(self, name: str) -> None:
        """Make the account of a program: a labeler without a password; one that is there stays.

        Raises UserError when the name is a person's or does not fit.
        """
        check_name(name)
        with self.writing() as db:
            found = self._accounts_like(name)
            if found and (not found[0].script or found[0].name != name):
                whose = "a program of nearly that name" if found[0].script else "a person"
                raise UserError(f"{found[0].name} is {whose}: choose another name for a program")
            if not found:
                db.execute("INSERT INTO account VALUES (?, 'labeler', ?, ?, NULL)", [name, NO_PASSWORD, time.time()])

    def sessions(self) -> list[Session]:
        """The live sessions and tokens of everybody, oldest first."""
        rows = self.rows(
            "SELECT token AS id, account, kind, note, created, expires FROM session WHERE expires > ? ORDER BY created",
            [time.time()],
        )
        return [Session(**row) for row in rows]

    def end_session(self, session_id: str) -> bool:
        """End a session or token. Returns whether there was one."""
        with self.writing() as db:
            return db.execute("DELETE FROM session WHERE token = ?", [session_id]).rowcount > 0

    def change_account(self, name: str, role: Role | None = None, closed: bool | None = None) -> None:
        """Give an account another role, close it (which ends its sessions) or open it again.

        The open invitations of who is no owner any more end too: they would be a way back. Raises UserError for an
        unknown account, and when no open owner would be left.
        """
        with self.writing() as db:
            if not self.rows("SELECT 1 FROM account WHERE name = ?", [name]):
                raise UserError(f"there is no account {name[:80]!r}")
            if role is not None:
                db.execute("UPDATE account SET role = ? WHERE name = ?", [check_role(role), name])
            if closed is not None:
                db.execute("UPDATE account SET closed = ? WHERE name = ?", [time.time() if closed else None, name])
            if closed:
                db.execute("DELETE FROM session WHERE account = ?", [name])
            if closed or role not in (None, "owner"):
                db.execute("DELETE FROM invite WHERE created_by = ? AND used_by IS NULL", [name])
            if not self.rows("SELECT 1 FROM account WHERE role = 'owner' AND closed IS NULL"):
                raise UserError(f"{name} is the last owner: make another one first")

    def change_password(self, name: str, password: str) -> None:
        """Set a password and end every session of the account, tokens too. Raises UserError."""
        kept = hash_password(password)
        with self.writing() as db:
            if any(account.name == name and account.script for account in self.accounts()):
                raise UserError(
                    f"{name} is a program, which has tokens and no password: its labels would be a person's"
                )
            if not db.execute("UPDATE account SET password = ? WHERE name = ?", [kept, name]).rowcount:
                raise UserError(f"there is no account {name[:80]!r}")
            db.execute("DELETE FROM session WHERE account = ?", [name])
            db.execute("DELETE FROM known_browser WHERE account = ?", [name])
            counted = [f"name:{name.lower()}", f" {name.lower()}"]  # the second ends `pair:ADDRESS NAME`
            db.execute("DELETE FROM failed_login WHERE who = ?1 OR substr(who, -length(?2)) = ?2", counted)


def _account(row: Mapping[str, Any]) -> Account:
    return Account(row["name"], row["role"], row["created"], row["closed"], row["password"] == NO_PASSWORD)
