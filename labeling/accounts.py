"""Accounts: who may do what, and secrets that are kept only as hashes. Nothing here reads or writes anything.

A project without accounts serves one person on their own computer. With accounts, everybody signs in: owners do
everything, reviewers see results and settle disagreements, labelers label.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from labeling.records import UserError

Role = Literal["owner", "reviewer", "labeler"]
SessionKind = Literal["browser", "token"]
NAME = r"^[\w.@-]{1,64}$"
PASSWORD_LENGTH = (10, 1024)
# scrypt (RFC 7914): 32 MiB and some tenths of a second for each try.
LOG_N, BLOCK, PARALLEL = 15, 8, 3
FREE_TRIES = 5  # wrong passwords before a wait
LONGEST_WAIT = 15 * 60.0


@dataclass(frozen=True)
class Account:
    """Somebody who can act in a project. closed: when the account was closed, Unix seconds.

    script: a program, which has a token and no password.
    """

    name: str
    role: Role
    created: float
    closed: float | None = None
    script: bool = False

    @property
    def annotator(self) -> str:
        """Under which id its labels stand: people and programs never mix."""
        return f"{'script' if self.script else 'human'}:{self.name}"


@dataclass(frozen=True)
class Session:
    """A browser that signed in, or a token for a program. id: the hash of its secret."""

    id: str
    account: str
    kind: SessionKind
    note: str
    created: float
    expires: float


def check_name(name: str) -> str:
    """The name, if it can be an account's. Raises UserError."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"the name {name[:80]!r} does not fit: use 1 to 64 letters, digits or . _ @ -")
    return name


def check_role(role: str) -> Role:
    """The role, if it is one. Raises UserError."""
    if role not in get_args(Role):
        raise UserError(f"there is no role {role[:40]!r}: choose one of {', '.join(get_args(Role))}")
    return role  # type: ignore[return-value]


def hash_password(password: str) -> str:
    """A salted scrypt hash with its parameters. Raises UserError for a password that is too short or too long."""
    least, most = PASSWORD_LENGTH
    if not least <= len(password) <= most:
        raise UserError(f"a password has {least} to {most} characters")
    salt = secrets.token_bytes(16)
    return f"scrypt${LOG_N}${BLOCK}${PARALLEL}${_text(salt)}${_text(_scrypt(password, salt, LOG_N, BLOCK, PARALLEL))}"


def password_fits(password: str, kept: str) -> bool:
    """Whether the password has this hash; the time it takes says nothing about where they differ."""
    try:
        _, log_n, block, parallel, salt, digest = kept.split("$")
        found = _scrypt(password[: PASSWORD_LENGTH[1]], _bytes(salt), int(log_n), int(block), int(parallel))
    except ValueError:
        return False
    return hmac.compare_digest(found, _bytes(digest))


# In place of a hash: the account of a program, which nobody can sign in to.
NO_PASSWORD = "!"
# What a try for an unknown name is compared with, so that it takes as long as one for a known name.
NOBODY = f"scrypt${LOG_N}${BLOCK}${PARALLEL}${'A' * 24}${'A' * 44}"


def new_secret() -> str:
    """256 random bits, to be given away once: a session, a token or an invitation."""
    return secrets.token_urlsafe(32)


def secret_id(secret: str) -> str:
    """What is kept of a secret: enough to recognise it, not to use it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def wait_after(failures: int) -> float:
    """Seconds to wait after so many wrong passwords in a row: none at first, then doubling."""
    over = failures - FREE_TRIES
    return 0.0 if over < 0 else min(2.0 ** min(over, 20), LONGEST_WAIT)


def _scrypt(password: str, salt: bytes, log_n: int, block: int, parallel: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    memory = 128 * block * (2**log_n + parallel) + 2**20
    return hashlib.scrypt(secret, salt=salt, n=2**log_n, r=block, p=parallel, maxmem=memory, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
