"""The labeling page: a frame for `label.js`, which does everything in the browser through the /api routes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import gradio as gr


def build(style_urls: Sequence[str], script_url: str) -> None:
    """Put the labeling page into the current Blocks; its files are served from the given addresses."""
    links = "".join(f'<link rel="stylesheet" href="{escape(url)}">' for url in style_urls)
    gr.HTML(
        f'{links}<main class="prefloop" data-page="label"></main>',
        js_on_load=f"import({script_url!r}).then((page) => page.start(element.querySelector('.prefloop')));",
        apply_default_css=False,
    )
