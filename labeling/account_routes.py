"""The routes to sign in and out, to join by an invitation, and for owners to look after people and tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from labeling.accounts import NAME, WITH_ONE, Account, Role, new_secret, secret_id
from labeling.records import UserError
from labeling.sign_in import BROWSER_COOKIE, COOKIE, secret_of
from labeling.store import Store
from labeling.stored_accounts import BROWSER_SECONDS, KNOWN_SECONDS, NotAllowed, TooManyTries
from labeling.webhooks import check_hook

Name = Annotated[str, Field(pattern=NAME)]
Secret = Annotated[str, Field(min_length=1, max_length=100)]
Password = Annotated[str, Field(min_length=1, max_length=1024)]
HookId = Annotated[int, Path(ge=1, lt=2**63)]  # no database has a larger one
# Each try takes 32 MiB and a core. Threads of their own: a flood of tries must not keep an answer waiting.
HASHING_AT_ONCE = 2
Result = TypeVar("Result")


class Credentials(BaseModel):
    """A name with its password."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    password: Password


class Joining(Credentials):
    """A new account, by an invitation."""

    invitation: Secret


class NewPassword(BaseModel):
    """A change of one's own password."""

    model_config = ConfigDict(extra="forbid")
    old: Password
    new: Password


class NewInvitation(BaseModel):
    """Whom an invitation is for, and for how long it is good.

    name: the only name to join under, with the labels that stand under it; without one, any that has no labels.
    """

    model_config = ConfigDict(extra="forbid")
    role: Role
    hours: Annotated[float, Field(gt=0, le=24 * 90)] = 24 * 7
    name: Name | None = None


class Change(BaseModel):
    """What is to change about an account."""

    model_config = ConfigDict(extra="forbid")
    role: Role | None = None
    closed: bool | None = None


class NewToken(BaseModel):
    """A token for a program: for one that labels under a name of its own (`script`), or acts for whoever asks."""

    model_config = ConfigDict(extra="forbid")
    note: Annotated[str, Field(min_length=1, max_length=100)]
    script: Name | None = None
    days: Annotated[float, Field(gt=0, le=3660)] = 365


class NewWebhook(BaseModel):
    """An address, and of what it is told: "label", "iteration"."""

    model_config = ConfigDict(extra="forbid")
    url: Annotated[str, Field(min_length=1, max_length=2000)]
    events: Annotated[list[str], Field(min_length=1, max_length=10)] = ["label", "iteration"]


def account_of(request: Request) -> Account | None:
    """Who asks; None in a project without accounts."""
    found: Account | None = request.scope.get("state", {}).get("account")
    return found


def signed_in(request: Request) -> Account:
    """Who asks, where somebody must. Raises 409 in a project without accounts."""
    account = account_of(request)
    if account is None:
        raise HTTPException(409, "this project has no accounts: `prefloop accounts --invite owner` makes the first")
    return account


def add_to(app: FastAPI, store: Store) -> None:
    """Add the routes."""
    hashers = CapacityLimiter(HASHING_AT_ONCE)

    async def hashing(work: Callable[[], Result]) -> Result:
        return await to_thread.run_sync(work, limiter=hashers)

    @app.post("/api/login")
    async def login(who: Credentials, request: Request) -> JSONResponse:
        """Sign in: sets the session's cookie."""
        address = request.client.host if request.client else "?"
        before = request.cookies.get(BROWSER_COOKIE, "")

        def opened() -> tuple[str, str]:
            secret = store.sign_in(who.name, who.password, address, before)
            return secret, store.know_browser(who.name, before)

        try:
            secret, browser = await hashing(opened)
        except NotAllowed as error:
            return _refused(error)
        return _with_cookies({"name": who.name}, secret, browser, request)

    @app.post("/api/join")
    async def join(who: Joining, request: Request) -> JSONResponse:
        """Make an account by an invitation, and sign in."""

        def joined() -> tuple[str, str]:
            name = store.join(who.invitation, who.name, who.password).name
            return store.open_session(name, "browser", "", BROWSER_SECONDS), store.know_browser(name)

        try:
            secret, browser = await hashing(joined)
        except NotAllowed as error:
            return _refused(error)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 422)
        return _with_cookies({"name": who.name}, secret, browser, request)

    @app.post("/api/logout")
    def logout(request: Request) -> JSONResponse:
        """End this session."""
        secret, account = secret_of(request.headers), account_of(request)
        if secret and account:
            store.end_session(secret_id(secret))
        reply = JSONResponse({})
        reply.delete_cookie(COOKIE)
        return reply

    @app.get("/api/me")
    def me(request: Request) -> dict[str, Any]:
        """Who asks: name and role, both null in a project without accounts."""
        account = account_of(request)
        return {"name": account and account.name, "role": account and account.role}

    @app.post("/api/password")
    async def password(change: NewPassword, request: Request) -> JSONResponse:
        """Change one's own password. Every session ends but a new one for this browser."""
        account = signed_in(request)
        session = secret_id(secret_of(request.headers) or "")

        def changed() -> tuple[str, str]:
            store.check_password(account.name, change.old, {f"session:{session}": WITH_ONE})
            store.change_password(account.name, change.new)
            secret = store.open_session(account.name, "browser", "", BROWSER_SECONDS)
            return secret, store.know_browser(account.name)

        try:
            secret, browser = await hashing(changed)
        except TooManyTries as error:
            return _refused(error)
        except NotAllowed:
            return JSONResponse({"error": "the old password is wrong"}, 403)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 422)
        return _with_cookies({}, secret, browser, request)

    # For owners

    @app.get("/api/people")
    def people(request: Request) -> dict[str, Any]:
        """All accounts."""
        signed_in(request)
        return {"people": [vars(account) for account in store.accounts()]}

    @app.post("/api/people/{name}")
    def change(name: str, what: Change, request: Request) -> dict[str, Any]:
        """Change an account's role, close it or open it again."""
        signed_in(request)
        try:
            store.change_account(name, what.role, what.closed)
        except UserError as error:
            raise HTTPException(409, str(error)) from error
        return {}

    @app.get("/api/invites")
    def invites(request: Request) -> dict[str, Any]:
        """The invitations that nobody has used yet; the links themselves are not kept."""
        signed_in(request)
        return {"invites": [vars(invitation) for invitation in store.invitations()]}

    @app.delete("/api/invites/{invite_id}")
    def withdraw(invite_id: str, request: Request) -> dict[str, Any]:
        """Let nobody join by an invitation any more."""
        signed_in(request)
        return {"withdrawn": store.withdraw(invite_id)}

    @app.post("/api/invites")
    def invite(what: NewInvitation, request: Request) -> dict[str, Any]:
        """An invitation: the link is shown once, is good for one account, and expires."""
        by = signed_in(request)
        try:
            secret = store.invite(what.role, by.name, what.hours * 3600, what.name or "")
        except UserError as error:
            raise HTTPException(409, str(error)) from error
        return {
            "link": f"{request.base_url}join#{secret}",
            "role": what.role,
            "expires": time.time() + what.hours * 3600,
        }

    @app.get("/api/tokens")
    def tokens(request: Request) -> dict[str, Any]:
        """The tokens and open sessions of everybody, programs too; the secrets themselves are not kept."""
        signed_in(request)
        return {"tokens": [vars(session) for session in store.sessions()]}

    @app.post("/api/tokens")
    def new_token(what: NewToken, request: Request) -> dict[str, Any]:
        """A token, shown once: send it as `Authorization: Bearer TOKEN`."""
        name = signed_in(request).name
        if what.script is not None:
            try:
                store.add_script(what.script)
            except UserError as error:
                raise HTTPException(409, str(error)) from error
            name = what.script
        return {"token": store.open_session(name, "token", what.note, what.days * 86400)}

    @app.get("/api/webhooks")
    def hooks(request: Request) -> dict[str, Any]:
        """The webhooks: where they go, of what they tell, and what is wrong with each."""
        signed_in(request)
        found = [{k: v for k, v in vars(hook).items() if k != "secret"} for hook in store.webhooks()]
        return {"webhooks": found}

    @app.post("/api/webhooks")
    def add_hook(what: NewWebhook, request: Request) -> dict[str, Any]:
        """Have an address told of new labels or finished iterations, from now on. The secret is shown once."""
        signed_in(request)
        try:
            check_hook(what.url, tuple(what.events))
        except UserError as error:
            raise HTTPException(422, str(error)) from error
        secret = new_secret()
        return {"id": store.add_webhook(what.url, secret, tuple(what.events)), "secret": secret}

    @app.delete("/api/webhooks/{hook_id}")
    def end_hook(hook_id: HookId, request: Request) -> dict[str, Any]:
        """Tell an address no more."""
        signed_in(request)
        return {"ended": store.remove_webhook(hook_id)}

    @app.delete("/api/tokens/{token_id}")
    def end_token(token_id: str, request: Request) -> dict[str, Any]:
        """End a token or session, whosever it is."""
        signed_in(request)
        return {"ended": store.end_session(token_id)}


def _refused(error: NotAllowed) -> JSONResponse:
    if isinstance(error, TooManyTries):
        return JSONResponse({"error": str(error)}, 429, {"retry-after": str(error.seconds)})
    return JSONResponse({"error": str(error)}, 403)


def _with_cookies(body: dict[str, Any], secret: str, browser: str, request: Request) -> JSONResponse:
    """A reply that gives the browser its session, and what it is known by when it signs in again."""
    reply = JSONResponse(body)
    secure = request.url.scheme == "https"
    reply.set_cookie(COOKIE, secret, int(BROWSER_SECONDS), httponly=True, samesite="lax", secure=secure)
    reply.set_cookie(
        BROWSER_COOKIE, browser, int(KNOWN_SECONDS), path="/api", httponly=True, samesite="lax", secure=secure
    )
    return reply
