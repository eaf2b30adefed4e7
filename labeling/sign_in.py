"""Who a request comes from, and what their role lets them do: decided once, before any route.

In a project without accounts every request is the local person's. With accounts, a request without a valid session
reaches nothing but the pages to sign in; a labeler reaches what labeling needs and nothing else, so that scores, names
of models and other people's work are not merely hidden from them.
"""

from __future__ import annotations

from html import escape
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from labeling.accounts import Account
from labeling.store import Store

COOKIE = "prefloop_session"
BROWSER_COOKIE = "prefloop_browser"  # opens nothing, see `StoredAccounts.know_browser`
# Exact paths, or beginnings that end in a slash.
PUBLIC = ("/login", "/join", "/api/login", "/api/join", "/prefloop/", "/favicon.ico")
LABELER = (
    "/",
    "/label",
    "/guidelines",
    "/password",
    "/clips/",
    "/api/lease",
    "/api/submit",
    "/api/undo",
    "/api/revise",
    "/api/recent",
    "/api/task",
    "/api/heartbeat",
    "/api/progress",
    "/api/me",
    "/api/logout",
    "/api/password",
    "/api/docs",
    "/api/openapi.json",
)
OWNER = (
    "/people",
    "/api/people",
    "/api/people/",
    "/api/invites",
    "/api/invites/",
    "/api/tokens",
    "/api/tokens/",
    "/api/webhooks",
    "/api/webhooks/",
    "/api/annotators/",
)
NOT_THEIRS = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Prefloop</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/prefloop/account.css">
</head><body class="plain"><main class="account"><h1>Prefloop</h1><p>{}.</p><p><a href="/">Label</a></p>
</main></body></html>"""


def secret_of(headers: Headers) -> str | None:
    """The secret that a request brings: a token in the Authorization header, else the browser's cookie."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return found.value if found else None


def verdict(path: str, account: Account | None) -> Literal["welcome", "sign in", "not theirs"]:
    """Whether a request for this path may go on, in a project with accounts."""
    if _among(path, PUBLIC):
        return "welcome"
    if account is None:
        return "sign in"
    if account.role == "labeler" and not _among(path, LABELER):
        return "not theirs"
    if account.role != "owner" and _among(path, OWNER):
        return "not theirs"
    return "welcome"


def _among(path: str, known: tuple[str, ...]) -> bool:
    return any(path == k or (k.endswith("/") and k != "/" and path.startswith(k)) for k in known)


class SignIn:
    """ASGI middleware: finds out who asks, keeps it in `scope["state"]["account"]`, and refuses by `verdict`."""

    def __init__(self, app: ASGIApp, store: Store) -> None:
        self.app, self.store = app, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with 401, 403 or the way to the sign-in page."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        needed, account = self._look(Headers(scope=scope))  # two short reads: a thread would cost more
        scope.setdefault("state", {})["account"] = account
        path: str = scope["path"]
        found = verdict(path, account) if needed else "welcome"
        if scope["type"] != "http":
            if found == "welcome":
                await self.app(scope, receive, send)
            return
        if found == "welcome":
            if account is not None and account.role == "labeler" and path == "/":
                scope = {**scope, "path": "/label", "raw_path": b"/label"}
            await self.app(scope, receive, send)
        elif found == "not theirs":
            assert account is not None
            line = f"{account.name} is a {account.role}: this is not theirs to see or do"
            reads = "text/html" in Headers(scope=scope).get("accept", "")  # somebody who followed a link
            refused = (
                HTMLResponse(NOT_THEIRS.format(escape(line)), 403) if reads else JSONResponse({"error": line}, 403)
            )
            await refused(scope, receive, send)
        elif path.startswith(("/api/", "/gradio_api/", "/clips/")) or scope["method"] != "GET":
            await JSONResponse({"error": "sign in first"}, 401)(scope, receive, send)
        else:
            await RedirectResponse(f"/login?next={quote(path)}", 303)(scope, receive, send)

    def _look(self, headers: Headers) -> tuple[bool, Account | None]:
        if not self.store.has_accounts():
            return False, None
        secret = secret_of(headers)
        return True, self.store.account_of(secret) if secret else None
