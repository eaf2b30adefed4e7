"""Pages and files that need no Gradio: scripts, styles, the sign-in page, and the labeling page as labelers get it.

A labeler's page is plain HTML, so that in a project with accounts labelers need none of Gradio's routes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from html import escape
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse

from labeling.pages.api_page import api_page
from labeling.rich_text import plain, rich
from labeling.store import Store

HERE = Path(__file__).parent
SCRIPTS = (
    # The labeling page, from the page to its parts.
    "start.js",
    "label.js",
    "top.js",
    "workplace.js",
    "nothing.js",
    "slate.js",
    "pair_bar.js",
    "ranking_bar.js",
    "ranking.js",
    "dragging.js",
    "remarks.js",
    "reading.js",
    "differences.js",
    "players.js",
    "clips.js",
    "screen.js",
    "dialogs.js",
    "keys.js",
    "rest.js",
    "attention.js",
    "outbox.js",
    "drafts.js",
    "kept.js",
    "server.js",
    "elements.js",
    # Signing in, and looking after who may.
    "account.js",
    "people.js",
)
LABEL_STYLES = ("label.css", "reading.css", "answering.css", "clips.css")
ASSETS = dict.fromkeys(SCRIPTS, "text/javascript") | dict.fromkeys((*LABEL_STYLES, "account.css"), "text/css")
PAGES = {"/label": "label.html", "/people": "people.html"} | dict.fromkeys(
    ("/login", "/join", "/password"), "account.html"
)
# Nothing inline runs here: what a model wrote could not run even if it got into a page as markup.
HEADERS = {
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "media-src 'self' blob:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cache-control": "no-cache",
}


def versioned(name: str) -> str:
    """The address of an asset; it changes with the content, so that no browser shows an old page."""
    return f"/prefloop/{name}?{hashlib.sha256((HERE / name).read_bytes()).hexdigest()[:8]}"


def add_to(app: FastAPI, store: Store) -> None:
    """Serve the files under /prefloop, and the pages."""

    @app.get("/prefloop/{name}", include_in_schema=False)
    def asset(name: str) -> FileResponse:
        if name not in ASSETS:
            raise HTTPException(404, f"there is no asset {name!r}")
        # "no-cache" means: ask each time. One script imports another by its plain name, which must not go stale either.
        return FileResponse(HERE / name, media_type=ASSETS[name], headers={"cache-control": "no-cache"})

    @app.get("/guidelines", include_in_schema=False)
    def guidelines() -> HTMLResponse:
        return _to_read("guidelines", f'<div class="guidelines page">{_guidelines(store)}</div>')

    @app.get("/api/docs", include_in_schema=False)
    def api() -> HTMLResponse:
        return _to_read("API", f'<div class="text rich">{api_page(app.openapi())}</div>')

    for path, file in PAGES.items():
        app.add_api_route(path, _page(file), include_in_schema=False)


def _to_read(title: str, body: str) -> HTMLResponse:
    page = (HERE / "to_read.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("{title}", title).replace("{body}", body), headers=HEADERS)


def _guidelines(store: Store) -> str:
    """What the project says about how to decide, as harmless HTML; words alone keep their lines."""
    text = store.settings().guidelines
    if not text.strip():
        return "<h1>Guidelines</h1><p>This project has none yet.</p>"
    html = rich(text)
    return f'<div class="text rich">{html}</div>' if html else f'<div class="text">{escape(plain(text))}</div>'


def _page(file: str) -> Callable[[], HTMLResponse]:
    def page() -> HTMLResponse:
        return HTMLResponse((HERE / file).read_text(encoding="utf-8"), headers=HEADERS)

    return page
