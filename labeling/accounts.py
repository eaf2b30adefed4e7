"""Accounts: who may do what, and secrets that are kept only as hashes. Nothing here reads or writes anything.

A project without accounts serves one person on their own computer. With accounts, everybody signs in: owners do
everything, reviewers see results and settle disagreements, labelers label.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Literal, get_args

from labeling.records import UserError

Role = Literal["owner", "reviewer", "labeler"]
SessionKind = Literal["browser", "token"]
NAME = r"^[\w.@-]{1,64}$"
PASSWORD_LENGTH = (10, 1024)
# Letters of Cyrillic, Greek and Armenian that are drawn as Latin ones (of Unicode's confusables, UTS 39, those in use).
LOOK_ALIKE = str.maketrans(
    "аеорсухіјѕԁһԛԝӏАВЕЗКМНОРСТУХІЈЅԌԚԜ" + "αινορυχγκωΑΒΕΖΗΙΚΜΝΟΡΤΥΧ" + "օհոսցզԼՕՏՍ",
    "aeopcyxijsdhqwlABE3KMHOPCTYXIJSGQW" + "aivopuxykwABEZHIKMNOPTYX" + "ohnugqLOSU",
)
# scrypt (RFC 7914): 32 MiB and some tenths of a second for each try.
LOG_N, BLOCK, PARALLEL = 15, 8, 3
FORGOTTEN_AFTER = 10 * 60.0  # seconds without a wrong password, or a wait for one, in which one is forgotten


@dataclass(frozen=True)
class Patience:
    """How many wrong passwords bring no wait, and how many seconds the longest wait has."""

    free: int
    longest: float


WITH_ONE = Patience(5, 15 * 60.0)  # one account from one address, or from one browser that signed in before
WITH_MANY = Patience(20, 60.0)  # all accounts from one address, or one account from everywhere: others wait along


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


@dataclass(frozen=True)
class Invitation:
    """A link that nobody has used yet. id: the hash of its secret. name: the only one that it is good for, "" for any.

    by: the owner who made it. created, expires: Unix seconds.
    """

    id: str
    role: Role
    name: str
    by: str
    created: float
    expires: float


def check_name(name: str) -> str:
    """The name, if it can be an account's. Raises UserError."""
    if not re.fullmatch(NAME, name):
        raise UserError(f"the name {name[:80]!r} does not fit: use 1 to 64 letters, digits or . _ @ -")
    return name


def alike(one: str, other: str) -> bool:
    """Whether people would take two names for one: in capitals or not, however composed, in letters that look alike."""
    return _folded(one) == _folded(other) or _folded(_drawn(one)) == _folded(_drawn(other))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _drawn(name: str) -> str:
    """A name in Latin letters, where other scripts have some that look the same."""
    return unicodedata.normalize("NFKC", name).translate(LOOK_ALIKE)


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


def guessers(name: str, address: str, browser: str | None) -> dict[str, Patience]:
    """Under which names a wrong password is counted, each with the patience for it.

    A browser that signed in to this account before (OWASP: device cookies) is counted alone, so nobody else can make
    its person wait. browser: its id, None for one that is not known.
    """
    if browser is not None:
        return {f"browser:{browser}": WITH_ONE}
    name, place = name[:64].lower(), network(address)
    return {f"pair:{place} {name}": WITH_ONE, f"address:{place}": WITH_MANY, f"name:{name}": WITH_MANY}


def network(address: str) -> str:
    """The part of an address that one household or office has: an IPv4 address, or the first 64 bits of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.IPv6Network((int(found), 64), strict=False).network_address)


def still_counted(failures: int, quiet: float) -> int:
    """How many of so many wrong passwords count `quiet` seconds after the last wait: one less every ten minutes."""
    return max(0, failures - int(max(0.0, quiet) // FORGOTTEN_AFTER))


def wait_after(failures: int, patience: Patience) -> float:
    """Seconds to wait after so many wrong passwords: none at first, then doubling up to the longest."""
    over = failures - patience.free
    return 0.0 if over < 0 else min(2.0 ** min(over, 20), patience.longest)


def _scrypt(password: str, salt: bytes, log_n: int, block: int, parallel: int) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    memory = 128 * block * (2**log_n + parallel) + 2**20
    return hashlib.scrypt(secret, salt=salt, n=2**log_n, r=block, p=parallel, maxmem=memory, dklen=32)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
