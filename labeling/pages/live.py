"""The Live page: what a researcher watches while the loop runs.

Every two seconds the page asks the store for what is new. The folded run is shared by all who look; a piece of
the page is sent only to those whose copy differs. Nothing here trains, samples or writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from labeling import run_clips, run_panels, run_plots
from labeling.run_labels import people
from labeling.run_view import RunView, fold
from labeling.store import HumanLabel, Store

REFRESH_SECONDS = 2.0
RECENT_LABELS = 4
# A clip of the strip plays while it is pointed at or has the focus, which a tap gives it; one that is lost says so.
PLAY_CLIPS = """
const clipOf = (e) => e.pointerType === "touch" ? null : e.target.closest(".strip video");
for (const name of ["pointerover", "focusin"]) element.addEventListener(name, (e) => clipOf(e)?.play().catch(() => {}));
for (const name of ["pointerout", "focusout"]) element.addEventListener(name, (e) => clipOf(e)?.pause());
const tell = (e) => e.target.closest("figure")?.classList.toggle("missing", e.type === "error");
for (const name of ["error", "loadeddata"]) element.addEventListener(name, tell, true);
"""


@dataclass(frozen=True)
class Snapshot:
    """A run as it stands, with people's labels and the prompts of the newest of them."""

    view: RunView
    labels: tuple[HumanLabel, ...] = ()
    prompts: dict[str, str] | None = None
    marks: tuple[int, ...] = ()


class Watch:
    """The runs of a store as last seen; each look reads only what came since."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[str, Snapshot] = {}
        self._lock = threading.Lock()

    def look(self, run: str) -> Snapshot:
        """The run as it stands now. Raises UserError when the store cannot be read."""
        with self._lock:
            # The marks come first: what is added between the two reads is then read again, never missed.
            marks = self._store.label_marks()
            old = self._seen.get(run) or Snapshot(RunView(run))
            view = fold(old.view, self._store.events(run, after=old.view.seq))
            labels, prompts = old.labels, old.prompts
            if marks != old.marks:
                labels = tuple(self._store.human_labels(run))
                prompts = recent_prompts(self._store, labels)
            self._seen[run] = Snapshot(view, labels, prompts, marks)
            return self._seen[run]


def recent_prompts(store: Store, labels: tuple[HumanLabel, ...], limit: int = RECENT_LABELS) -> dict[str, str]:
    """The last message of the prompt of each of the newest labels, by slate."""
    slates = filter(None, (store.slate(label.slate_id) for label in labels[-limit:]))
    return {slate.id: slate.prompt.messages[-1].content for slate in slates}


PIECES: dict[str, Callable[[Snapshot, float], str]] = {
    "status": lambda s, now: run_panels.status(s.view, now),
    "goal": lambda s, now: run_clips.goal(s.view, s.labels),
    "clips": lambda s, now: run_clips.clips(s.view),
    "labels": lambda s, now: people(s.view, s.labels, s.prompts or {}),
    "plots": lambda s, now: run_plots.plots(s.view) + run_panels.download(s.view.run),
    "samples": lambda s, now: run_panels.samples(s.view),
    "sources": lambda s, now: run_panels.sources(s.view),
    "latest": lambda s, now: run_panels.latest(s.view),
    "config": lambda s, now: run_panels.config(s.view),
}


def pieces(snapshot: Snapshot | None, now: float) -> dict[str, str]:
    """The page's HTML by piece; without a run, a line that says how to start one."""
    if snapshot is None:
        return {name: run_panels.nothing_yet() if name == "status" else "" for name in PIECES}
    # A lone surrogate in a model's text cannot be sent as UTF-8: it would silence the whole page.
    return {name: draw(snapshot, now).encode("utf-8", "replace").decode() for name, draw in PIECES.items()}


@dataclass(frozen=True)
class Sent:
    """What one browser holds."""

    runs: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ("",) * len(PIECES)


def build(store: Store) -> None:
    """Build the Live page inside the current gr.Blocks or route."""
    watch = Watch(store)

    def refresh(chosen: str | None, sent: Sent) -> list[object]:
        runs = tuple(store.runs())
        # Whoever watches the newest run follows on to the next one; whoever chose an older one stays there.
        follows = chosen not in runs or sent.runs[:1] in ((), (chosen,))
        run = next(iter(runs), None) if follows else chosen
        drawn = tuple(pieces(watch.look(run) if run else None, time.time()).values())
        changed = [new if new != old else gr.skip() for new, old in zip(drawn, sent.pieces, strict=True)]
        same_picker = runs == sent.runs and run == chosen
        picked = gr.skip() if same_picker else gr.Dropdown(choices=list(runs), value=run, visible=bool(runs))
        return [picked, Sent(runs, drawn), *changed]

    def html(value: str, name: str) -> gr.HTML:
        return gr.HTML(
            value,
            elem_id=f"run-{name}",
            elem_classes="pf-run",
            padding=False,
            apply_default_css=False,
            js_on_load=PLAY_CLIPS if name == "clips" else None,
        )

    with gr.Column(elem_classes="pf-page"):
        html(run_panels.style(), "style")
        picker = gr.Dropdown(
            [], show_label=False, container=False, visible=False, elem_id="run-picker", filterable=False
        )
        shown = [html("", name) for name in PIECES]
    held = gr.State(Sent())
    timer = gr.Timer(REFRESH_SECONDS)
    page = gr.context.Context.root_block
    assert page is not None, "build() is called inside gr.Blocks"
    gr.on(
        [page.load, timer.tick, picker.input],
        refresh,
        [picker, held],
        [picker, held, *shown],
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )
