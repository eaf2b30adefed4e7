"""A run as one HTML file that needs nothing else: the figures of the live page, and every number behind them."""

from __future__ import annotations

import os
import time
from html import escape
from pathlib import Path

from labeling import run_clips, run_panels, run_plots
from labeling.records import UserError
from labeling.run_labels import people
from labeling.run_view import RunView, fold
from labeling.run_words import is_agent, words
from labeling.store import HumanLabel, Store

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>{style}</head>
<body class="pf-run pf-report"><header><h1>{title}</h1><p class="note">{subtitle}</p></header>
{body}
</body></html>
"""


def write_report(store: Store, run: str | None, path: str | Path) -> Path:
    """Write the report of `run` (None: the one that reported last) to `path`, whole or not at all.

    Raises UserError when there is no such run or the file cannot be written.
    """
    runs = store.runs()
    if not runs:
        raise UserError(f"{store.project} holds no run yet: start one with `prefloop loop RUN.toml`")
    name = runs[0] if run is None else run
    if name not in runs:
        raise UserError(f"{store.project} holds no run {name!r}: it has {', '.join(runs)}")
    view = fold(RunView(name), store.events(name))
    return _write(Path(path), report(view, store.human_labels(name)))


def report(view: RunView, labels: list[HumanLabel]) -> str:
    """The report as HTML text; it tells the run as it stood at its last event, whenever it is read."""
    told = time.strftime("%Y-%m-%d %H:%M", time.localtime(view.reported))
    subtitle = f"Prefloop run report · last event {told} · intervals are 95 % confidence intervals"
    names = words(view).names
    evaluations = "Evaluations" if is_agent(view) else "Held-out evaluations"
    parts = [
        run_panels.status(view, view.reported),
        run_clips.goal(view, labels),
        run_plots.plots(view),
        people(view, labels, {}, title="Labels from people"),
        run_panels.samples(view),
        run_panels.sources(view),
        run_clips.clip_names(view),
        run_panels.by_iteration(evaluations, view.evaluations, names),
        run_panels.by_iteration("Reward-model fits", view.fits, names),
        run_panels.by_iteration("Policy updates", view.updates, names),
        run_panels.by_iteration("Iterations", view.iterations, names),
        run_panels.config(view),
    ]
    return PAGE.format(
        title=escape(view.run), style=run_panels.style(), subtitle=escape(subtitle), body="\n".join(filter(None, parts))
    )


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="replace")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"cannot write the report {path}: {error.strerror}; name another file or free some space"
        ) from error
    return path
