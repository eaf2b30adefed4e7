"""The site: Gradio's pages put together and mounted around the labeling routes, with nothing from outside."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from labeling.store import Store

HERE = Path(__file__).parent
BRAND = """
.nav-holder nav { align-items: center; padding: 8px max(16px, 50vw - 590px); }
.nav-holder nav::before { content: "Prefloop"; margin-right: auto; font-weight: 700; letter-spacing: -0.01em; }
"""
SCRIPTS = ("label.js", "clips.js", "screen.js", "elements.js", "server.js")
STYLES = ("label.css", "clips.css")
ASSETS = dict.fromkeys(SCRIPTS, "text/javascript") | dict.fromkeys(STYLES, "text/css")


def mount(app: FastAPI, store: Store) -> None:
    """Add the pages to the app: "/" to label, "/live" to watch a run. Loads Gradio, which takes seconds."""
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    import gradio as gr

    from labeling.pages import label, live

    @app.get("/prefloop/{name}")
    def asset(name: str) -> FileResponse:
        if name not in ASSETS:
            raise HTTPException(404, f"there is no asset {name!r}")
        # "no-cache" means: ask each time. One script imports another by its plain name, which must not go stale either.
        return FileResponse(HERE / name, media_type=ASSETS[name], headers={"cache-control": "no-cache"})

    with gr.Blocks(title="Prefloop", analytics_enabled=False) as pages:
        gr.Navbar(main_page_name="Label")
        label.build([_versioned(name) for name in STYLES], _versioned("label.js"))
    with pages.route("Live", "/live"):
        gr.Navbar(main_page_name="Label")
        live.build(store)

    # Gradio says that pages with routes have no server-side rendering, also when none was asked for.
    warnings.filterwarnings("ignore", "SSR mode is not supported", UserWarning)
    sans = ("ui-sans-serif", "system-ui", "sans-serif")  # plain names: a Google font would be fetched from outside
    gr.mount_gradio_app(
        app,
        pages,
        path="/",
        root_path="",
        ssr_mode=False,
        show_error=False,
        footer_links=[],
        run_history=False,
        css=BRAND,
        theme=gr.themes.Base(primary_hue="indigo", neutral_hue="slate", font=sans, font_mono=("ui-monospace",)),
    )


def _versioned(name: str) -> str:
    """The address of an asset; it changes with the content, so that no browser shows an old page."""
    return f"/prefloop/{name}?{hashlib.sha256((HERE / name).read_bytes()).hexdigest()[:8]}"
