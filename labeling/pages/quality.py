"""The Quality page: how people and judges do, how far they agree, and which policy is preferred.

Every few seconds the page asks whether a label or a revocation came, and is drawn again only then.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import gradio as gr

from labeling import judge_panels, quality_panels
from labeling.run_panels import style
from labeling.store import Store

REFRESH_SECONDS = 4.0
PIECES = ("summary", "figures", "judges", "annotators")
REVOKE = """
element.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-annotator]");
  if (!button) return;
  const { annotator, does } = button.dataset;
  const reason = does === "revoke" ? prompt(`Why shall the labels of ${annotator} count for nothing?`)?.trim() : "-";
  if (!reason) return;
  const address = `/api/annotators/${encodeURIComponent(annotator)}/${does}`;
  const body = does === "revoke" ? JSON.stringify({ reason }) : undefined;
  const reply = await fetch(address, { method: "POST", headers: { "content-type": "application/json" }, body });
  if (reply.ok) button.disabled = true;
  else alert((await reply.json()).error);
});
"""


class Drawn:
    """The page as last drawn, shared by all who look."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._marks: tuple[int, ...] = ()
        self._pieces: Mapping[str, str] = {}
        self._lock = threading.Lock()

    def pieces(self) -> Mapping[str, str]:
        """The page's HTML by piece."""
        with self._lock:
            marks = self._store.label_marks()
            if marks != self._marks:
                store = self._store
                quality, progress = store.quality(), store.figure("progress")
                self._pieces = {
                    "summary": quality_panels.summary(quality, progress),
                    "figures": quality_panels.figures(quality, progress, store.leaderboard()),
                    "judges": judge_panels.judges(store.judge_quality(), store.request_counts()),
                    "annotators": quality_panels.annotators(quality),
                }
                self._marks = marks
            return self._pieces


def build(store: Store) -> None:
    """Build the Quality page inside the current gr.Blocks or route."""
    drawn = Drawn(store)

    def refresh(sent: tuple[str, ...]) -> list[object]:
        now = tuple(drawn.pieces()[name] for name in PIECES)
        return [now, *(new if new != old else gr.skip() for new, old in zip(now, sent, strict=True))]

    def html(name: str) -> gr.HTML:
        return gr.HTML(
            "",
            elem_id=f"quality-{name}",
            elem_classes="pf-run",
            padding=False,
            apply_default_css=False,
            js_on_load=REVOKE if name == "annotators" else None,
        )

    with gr.Column(elem_classes="pf-page"):
        gr.HTML(style(), elem_classes="pf-run", padding=False, apply_default_css=False)
        shown = [html(name) for name in PIECES]
    held = gr.State(("",) * len(PIECES))
    timer = gr.Timer(REFRESH_SECONDS)
    page = gr.context.Context.root_block
    assert page is not None, "build() is called inside gr.Blocks"
    gr.on(
        [page.load, timer.tick],
        refresh,
        [held],
        [held, *shown],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )
