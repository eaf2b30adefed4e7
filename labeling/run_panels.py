"""A run as HTML text, piece by piece: status, tables, samples, config.

Pure functions of a `RunView`, shared by the live page and the report. What comes from a model, a label or a
config is hostile text: everything is escaped where it enters the markup. `run_style.css` gives it its looks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labeling.run_figures import plain
from labeling.run_view import (
    Figures,
    Phase,
    RunView,
    is_stale,
    mapping,
    number,
    planned_iterations,
    seconds_left,
)
from labeling.run_words import is_agent, words


def style() -> str:
    """The style sheet, as a `<style>` element."""
    return f"<style>{Path(__file__).with_name('run_style.css').read_text(encoding='utf-8')}</style>"


def duration(seconds: float) -> str:
    """Seconds for people: `0.8 s`, `48 s`, `2 min 05 s`, `1 h 12 min`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s" if seconds % 1 >= 0.05 else f"{max(0.0, seconds):.0f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(n: int, noun: str) -> str:
    """`1 label`, `3 labels`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose other columns are figures; cells are escaped here."""
    head = "".join(f"<th>{escape(h)}</th>" for h in headers)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def section(title: str, body: str, note: str = "") -> str:
    """A titled card; `body` is markup, `title` and `note` are text."""
    said = f'<p class="note">{escape(note)}</p>' if note else ""
    return f'<section class="card"><h3>{escape(title)}</h3>{said}{body}</section>'


def download(run: str) -> str:
    """A link to all figures of a run as a file."""
    return f'<p class="files"><a href="/api/runs/{quote(run, safe="")}/csv" download>All figures as CSV</a></p>'


# Status


def nothing_yet() -> str:
    """What the page says before the first run."""
    return (
        '<section class="card empty"><h3>No run yet</h3><p>Start one with <code>prefloop loop RUN.toml</code>; '
        "this page follows it by itself.</p></section>"
    )


def status(view: RunView, now: float) -> str:
    """What is happening now, in words, with the steps of the iteration and how far the step is."""
    total = planned_iterations(view)
    about = [str(view.about[key]) for key in ("recipe", "model") if view.about.get(key)]
    asked = [str(s) for s in view.about.get("sources") or [] if isinstance(s, str)]
    about += [f"labels from {', '.join(asked)}"] if asked else []
    tone, headline, detail = _headline(view, now)
    where = f"Iteration {view.iteration} of {total}" if view.iteration else f"Before iteration 1 of {total}"
    running = "" if view.end or is_stale(view, now) else " running"
    told = str(view.iterations[max(view.iterations)].get("verdict") or "") if view.iterations else ""
    verdict = f'<p class="detail verdict">So far: {escape(told)}</p>' if told else ""
    steps = "".join(_step(name, view.phases.get(name), now, bool(running)) for name in words(view).phases)
    return (
        f'<section class="card status {tone}"><div class="row"><div><p class="where">{where}</p>'
        f'<h2><span class="lamp{running}"></span>{escape(headline)}</h2>'
        f'<p class="detail">{_with_code(detail)}</p>{verdict}</div>'
        f'<p class="about">{escape(" · ".join(about))}</p></div><ol class="steps">{steps}</ol></section>'
    )


def _with_code(text: str) -> str:
    """Escape `text`; what stands between backticks becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _headline(view: RunView, now: float) -> tuple[str, str, str]:
    if view.end is not None:
        reason = str(view.end.get("reason"))
        told = str(view.end.get("message") or "")
        ended = {"finished": "Finished", "stopped": "Stopped", "failed": "Failed"}.get(reason, "Ended")
        cure = "" if reason == "finished" else "Go on with `prefloop loop RUN.toml --resume`."
        return ("bad" if reason == "failed" else "done"), ended, " ".join(filter(None, (told, cure)))
    if is_stale(view, now):
        silent = duration(now - view.reported)
        hint = (
            "It may be in one long step; if its process is gone, start it again with `prefloop loop RUN.toml --resume`."
        )
        return "warn", f"The loop has not reported for {silent}", hint
    phase = view.current
    parts = []
    if phase is None:
        headline = "Between two steps" if view.phases else words(view).loading
    else:
        known = words(view).phases
        headline = known.get(phase.name, phase.name)
        place = list(known).index(phase.name) + 1 if phase.name in known else 0
        parts.append(f"step {place} of {len(known)}" if place else "")
        parts.append(f"{phase.done} of {phase.total}" if phase.total > 1 else "")
        parts.append(phase.note)
        parts.append(f"for {duration(_elapsed(phase, now))}")
    parts.append(f"this iteration for {duration(now - view.iteration_started)}" if view.iteration_started else "")
    left = seconds_left(view, now)
    parts.append(f"about {duration(round(left / 10) * 10)} left" if left and left >= 10 else "")
    return "", headline, " · ".join(filter(None, parts))


def _elapsed(phase: Phase, now: float) -> float:
    return phase.seconds + (max(0.0, now - phase.reported) if phase.running else 0.0)


def _step(name: str, phase: Phase | None, now: float, live: bool) -> str:
    short = name.capitalize()
    if phase is None:
        return f'<li><span class="bar"></span><b>{short}</b></li>'
    share = 100.0 if not phase.running else 100.0 * phase.done / phase.total if phase.total else 0.0
    state = "now" if phase.running else "over"
    unknown = " unknown" if phase.running and live and phase.total <= 1 else ""
    took = duration(_elapsed(phase, now) if live else phase.seconds)
    return (
        f'<li class="{state}"><span class="bar{unknown}"><i style="width:{min(100.0, share):.0f}%"></i></span>'
        f"<b>{short}</b> <small>{took}</small></li>"
    )


# Tables


def sources(view: RunView) -> str:
    """Where each fit's labels came from and what the fit made of them, newest first."""
    seen = [mapping(fit, "labels_by_kind") for fit in view.fits.values()]
    kinds = [k for k in ("human", "judge", "oracle") if any(number(s, k) for s in seen)] or ["human"]
    headers = ["Fit", *(_KIND_NAMES[k] for k in kinds), "Slates", "Pairs", "Train loss", "Held-out accuracy"]
    headers += ["Log-loss", "ECE"]
    rows = []
    for i in sorted(view.fits, reverse=True):
        fit = view.fits[i]
        totals, fresh = mapping(fit, "labels_by_kind"), mapping(fit, "new_labels_by_kind")
        by_kind = [_with_new(number(totals, k), number(fresh, k)) for k in kinds]
        figures = [plain(number(fit, key)) for key in ("slates", "pairs", "train_loss")]
        checked = [
            interval(fit, "heldout_accuracy"),
            *(plain(number(fit, f"heldout_{k}")) for k in ("log_loss", "ece")),
        ]
        rows.append([f"#{i}", *by_kind, *figures, *checked])
    body = table(headers, rows) if rows else '<p class="note">No fit yet.</p>'
    notes = [_withdrawn(i, view.fits[i]) for i in sorted(view.fits, reverse=True) if "withdrawn_labels" in view.fits[i]]
    if view.fits and (trust := _trust(max(view.fits), view.fits[max(view.fits)])):
        notes.insert(0, trust)
    return section("Labels by source", body, " ".join(notes))


MOST_TRUST = 5  # annotators that one line tells of; the event holds all


def _trust(fit: int, figures: Figures) -> str:
    """What each annotator's labels counted for in a fit."""
    trust = figures.get("trust")
    known = [one for one in trust if isinstance(one, Mapping)] if isinstance(trust, list) else []
    known.sort(key=lambda one: (not one.get("calibration"), -(number(one, "evidence") or 0)))
    told = [*map(_counted_as, known[:MOST_TRUST]), *([f"{len(known) - MOST_TRUST} more"] if known[MOST_TRUST:] else [])]
    return f"Fit #{fit} took {'; '.join(told)}." if told else ""


def _counted_as(trust: Figures) -> str:
    """One annotator's flip rate and where it comes from, in words."""
    rubric = f" by the rubric {trust['rubric']}" if trust.get("rubric") else ""
    evidence, source = int(number(trust, "evidence") or 0), trust.get("source")
    flips = f"flip rate {plain(number(trust, 'flip_rate'))}"
    if source == "answers":
        why = f"{flips}, by {count(evidence, 'checked answer')}"
    elif trust.get("calibration"):
        drawn = "audited" if trust.get("audit") else "labelled"
        fit = f"{source} calibration {str(trust['calibration'])[-6:]}"
        why = f"{fit} on {count(evidence, f'{drawn} slate')}, {flips} in the mean"
    else:
        why = f"{flips}, as declared"
    return f"{trust.get('annotator')}{rubric} with {why}"


def _withdrawn(fit: int, figures: Figures) -> str:
    """What became of labels that a fit was given before and that no longer stand."""
    before, now, moved = (
        "–" if x is None else f"{100 * x:.0f} %"
        for x in (number(figures, key) for key in ("heldout_accuracy_before", "heldout_accuracy", "changed_pairs"))
    )
    gone = count(int(number(figures, "withdrawn_labels") or 0), "label")
    return (
        f"Fit #{fit} began afresh without {gone} that no longer stand: {moved} of pairs are ordered otherwise, "
        f"held-out accuracy {before} → {now}."
    )


_KIND_NAMES = {"human": "People", "judge": "Judges", "oracle": "Oracles"}


def _with_new(total: float | None, new: float | None) -> str:
    return f"{plain(total)} (+{plain(new)})" if new else plain(total)


def interval(data: Figures, key: str) -> str:
    """`0.62 (0.55 to 0.69)`, without the brackets where no interval is known."""
    low, high = number(data, f"{key}_low"), number(data, f"{key}_high")
    middle = plain(number(data, key))
    return middle if low is None or high is None else f"{middle} ({plain(low)} to {plain(high)})"


def named(key: str, names: Mapping[str, str]) -> str:
    """A figure's name for people: `clip_fraction` is `Clip fraction`."""
    return names.get(key, key.replace("_", " ").capitalize())


def figure_keys(rows: Mapping[int, Figures]) -> list[str]:
    """Keys that hold a number in some row, without the ends of intervals, in the order of their first coming."""
    found = {key: None for row in rows.values() for key in row if number(row, key) is not None}
    ends = {f"{key}_{end}" for key in found for end in ("low", "high")}
    return [key for key in found if key not in ends]


def latest(view: RunView) -> str:
    """The newest evaluation beside the one before any update, and the newest update."""
    spoken = words(view)
    newest = max(view.evaluations, default=None)
    if newest is None:
        body = '<p class="note">No evaluation yet.</p>'
    else:
        first, now = view.evaluations.get(0, {}), view.evaluations[newest]
        keys = figure_keys(view.evaluations)
        rows = [[named(key, spoken.names), interval(first, key), interval(now, key)] for key in keys]
        body = table([f"On {spoken.measured}", spoken.start.capitalize(), f"Iteration {newest}"], rows)
    if view.updates:
        last = max(view.updates)
        rows = [[named(key, spoken.names), plain(number(view.updates[last], key))] for key in figure_keys(view.updates)]
        body += table(["Policy update", f"Iteration {last}"], rows)
    return section("Latest figures", f'<div class="pair">{body}</div>')


def by_iteration(title: str, rows: Mapping[int, Figures], names: Mapping[str, str]) -> str:
    """Every figure of every iteration, for the report."""
    keys = figure_keys(rows)
    cells = [[str(i), *(interval(rows[i], key) for key in keys)] for i in sorted(rows)]
    return section(title, table(["Iteration", *(named(key, names) for key in keys)], cells)) if rows else ""


# Samples and config


def samples(view: RunView) -> str:
    """The untouched model's and the newest policy's answers to the same held-out prompts; an agent has none."""
    if is_agent(view):
        return ""
    newest = max(view.evaluations, default=0)
    before, after = _samples_of(view, 0), _samples_of(view, newest) if newest else {}
    prompts = list(after or before)
    if not prompts:
        return section("Before and after", '<p class="note">No samples yet.</p>')
    cards = []
    for prompt in prompts:
        sides = _side("Untouched model", before.get(prompt))
        sides += _side(f"Iteration {newest}", after.get(prompt)) if after else ""
        cards.append(f'<article><p class="asked">{escape(prompt)}</p><div class="sides">{sides}</div></article>')
    return section("Before and after", f'<div class="samples">{"".join(cards)}</div>', "on the same held-out prompts")


def _samples_of(view: RunView, iteration: int) -> dict[str, Figures]:
    found = view.evaluations.get(iteration, {}).get("samples") or []
    return {str(s.get("prompt", "")): s for s in found if isinstance(s, Mapping)}


def _side(title: str, sample: Figures | None) -> str:
    if sample is None:
        return f'<div><h4>{escape(title)}</h4><p class="note">not sampled</p></div>'
    scores = " · ".join(f"{key} {plain(number(sample, key))}" for key in ("gold", "proxy"))
    text = str(sample.get("response") or "")
    answer = f'<p class="answer">{escape(text)}</p>' if text.strip() else '<p class="note">(an empty answer)</p>'
    return f"<div><h4>{escape(title)} <small>{escape(scores)}</small></h4>{answer}</div>"


def config(view: RunView) -> str:
    """The resolved config, seed, git revision and versions of the run, collapsed."""
    facts = {key: view.about.get(key) for key in ("seed", "git") if view.about.get(key) is not None}
    shown = {**facts, **mapping(view.about, "config")}
    lines = "\n".join(f"{key} = {value}" for key, value in flat(shown))
    versions = ", ".join(f"{k} {v}" for k, v in mapping(view.about, "versions").items())
    return (
        f'<details class="card config"><summary>Config of this run</summary><pre>{escape(lines)}</pre>'
        f'<p class="note">{escape(versions)}</p></details>'
    )


def flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested sections as dotted keys with JSON values: what `prefloop loop RUN.toml` takes as overrides."""
    lines: list[tuple[str, str]] = []
    for key, value in nested.items():
        if isinstance(value, Mapping):
            lines += flat(value, f"{prefix}{key}.")
        else:
            lines.append((f"{prefix}{key}", json.dumps(value, ensure_ascii=False)))
    return lines
