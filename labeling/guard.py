"""What stands before every request: no other site's writes, no huge bodies, and without accounts this computer only.

In a project without accounts, whoever reaches the port may label. So a request must name a loopback host (a foreign
name that resolves to 127.0.0.1 is DNS rebinding); with accounts, a session belongs to the name that it was made under.
In either, a request that writes must come from our own pages or from a program that is no browser.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT = 64 * 1024
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
# What a page does not say better itself. Gradio's pages need inline code; nothing may be loaded from, sent to or framed
# by another site.
HEADERS = {
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "form-action 'self'; base-uri 'self'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether this host name or address can only mean the computer itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal(method: str, headers: Mapping[str, str], open_to_others: bool = False) -> str | None:
    """Why a request with these headers is refused; None when it is welcome. open_to_others: by any name of the host."""
    host = headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
        origin = urlsplit(headers["origin"]).netloc if "origin" in headers else None
    except ValueError:
        return "the Host or Origin header is malformed"
    if not open_to_others and not is_loopback(name):
        return f"this server answers only to localhost, not to {host[:80]!r}"
    if method in SAFE_METHODS:
        return None
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") or origin not in (None, host):
        return "another web site may not write here"
    return None


class Guard:
    """ASGI middleware: refuses what `refusal` names and bodies over the limit, and sets the security headers."""

    def __init__(self, app: ASGIApp, open_to_others: Callable[[], bool]) -> None:
        self.app, self.open_to_others = app, open_to_others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with 403 or 413 and one line."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        reason = refusal(scope["method"], Headers(scope=scope), self.open_to_others())
        if reason is not None:
            await JSONResponse({"error": reason}, 403)(scope, receive, send_with_headers)
        elif scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send_with_headers)
        elif (body := await _whole_body(receive)) is None:
            error = {"error": f"the request is longer than {BODY_LIMIT // 1024} kB"}
            await JSONResponse(error, 413)(scope, receive, send_with_headers)
        else:
            await self.app(scope, _replay(body, receive), send_with_headers)


async def _whole_body(receive: Receive) -> bytes | None:
    """The request's body, or None as soon as it is over the limit."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_LIMIT:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands over the body that was read already, then what comes next."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
