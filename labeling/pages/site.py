"""The site: Gradio's pages put together and mounted around the labeling routes, with nothing from outside."""

from __future__ import annotations

import os
import warnings

from fastapi import FastAPI

from labeling.pages.static import LABEL_STYLES, versioned
from labeling.store import Store

# Seconds between two looks at Gradio's queue. By its own setting it looks a thousand times a second, which takes time
# from everybody who labels, while our pages ask it for something every two seconds.
QUEUE_SECONDS = 0.05

BRAND = """
.nav-holder nav { align-items: center; padding: 8px max(16px, 50vw - 590px); }
.nav-holder nav::before { content: "Prefloop"; margin-right: auto; font-weight: 700; letter-spacing: -0.01em; }
.nav-holder nav a { color: #475569 !important; } /* Gradio's own grey has too little contrast */
.dark .nav-holder nav a { color: #cbd5e1 !important; }
"""


def mount(app: FastAPI, store: Store) -> None:
    """Add the pages to the app: "/" to label, "/live" to watch a run, "/quality" to see how people and judges do.

    Loads Gradio, which takes seconds.
    """
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
    import gradio as gr

    from labeling.pages import label, live, quality

    with gr.Blocks(title="Prefloop", analytics_enabled=False) as pages:
        gr.Navbar(main_page_name="Label")
        label.build([versioned(name) for name in LABEL_STYLES], versioned("label.js"))
    with pages.route("Live", "/live"):
        gr.Navbar(main_page_name="Label")
        live.build(store)
    with pages.route("Quality", "/quality"):
        gr.Navbar(main_page_name="Label")
        quality.build(store)

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
    pages._queue.sleep_when_free = pages._queue.progress_update_sleep_when_free = QUEUE_SECONDS
