"""The Quality page as HTML text, piece by piece: pure functions of what the store says, every text escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from labeling.intervals import Interval
from labeling.leaderboard import Standing
from labeling.quality import AnnotatorQuality, Quality, Share
from labeling.quality_figures import day_chart, interval_chart
from labeling.quality_tables import Table
from labeling.run_figures import plain
from labeling.run_panels import count, duration


def summary(quality: Quality, progress: Table) -> str:
    """How much there is, how far people agree, and what waits for a decision."""
    labels = progress.rows[-1][-1] if progress.rows else 0
    found = quality.agreement
    alpha = plain(found.alpha.mean)
    interval = f"α, 95 % CI {plain(found.alpha.low)} to {plain(found.alpha.high)}" if found.slates else "α"
    same = f"{_percent(found.share)} the same, on {count(found.pairs, 'pair')}" if found.slates else _NOT_SHARED
    boxes = (
        ("labels", plain(int(labels or 0)), "labels stand"),
        ("alpha", alpha, f"{interval}: people's agreement beyond chance; {same}"),
        ("disputed", plain(quality.disputed), "slates on which people contradict each other"),
    )
    cells = "".join(
        f'<div class="{kind}"><b data-count="{kind}">{escape(value)}</b><span>{escape(what)}</span></div>'
        for kind, value, what in boxes
    )
    decide = '<p><a href="/label?queue=disputed">Decide them</a></p>' if quality.disputed else ""
    body = f'<div class="counts">{cells}</div>{decide}{files("agreement")}'
    return f'<section class="card"><h3>Agreement</h3>{body}</section>'


_NOT_SHARED = "no pair was answered by two people yet; with prefloop settings overlap=2 or more they come to be"


def figures(quality: Quality, labels: Table, found: Sequence[Standing]) -> str:
    """What people would rather look at than read."""
    return f'<div class="plots">{_progress(labels)}{_accuracy(quality)}{_standings(found)}</div>'


def _progress(table: Table) -> str:
    """Labels by day."""
    return (
        f'<section class="card plot"><h3>Labels by day</h3>{day_chart(table)}'
        f'<p class="note">people, judges and simulated annotators, from dark to light</p>{files("progress")}</section>'
    )


def _accuracy(quality: Quality) -> str:
    """How often each annotator is right, as far as it can be checked."""
    rows = [
        (q.annotator.id, Interval(q.reliability.accuracy, q.reliability.low, q.reliability.high), _checked(q))
        for q in quality.annotators
        if q.reliability.checked
    ]
    chart = interval_chart(sorted(rows, key=lambda row: -row[1].mean), 0.5, "a coin", "Accuracy of annotators")
    note = "on pairs with a known answer or a second person's; a reward model is told the flip rate that follows"
    return f'<section class="card plot"><h3>Accuracy</h3>{chart}<p class="note">{note}</p></section>'


def _checked(q: AnnotatorQuality) -> str:
    return count(q.reliability.checked, "answer")


def _standings(found: Sequence[Standing]) -> str:
    """The leaderboard of policies."""
    rows = [(s.policy, s.score, count(s.comparisons, "pair")) for s in found]
    chart = interval_chart(rows, 0.5, "as good as the others", "Leaderboard of policies")
    note = (
        "share of comparisons that a policy would win against the others (Bradley–Terry, judges by their probabilities)"
    )
    if not rows:
        note = "policies are compared where a slate holds answers of two"
    body = f'{chart}<p class="note">{note}</p>{files("leaderboard")}'
    return f'<section class="card plot"><h3>Policies</h3>{body}</section>'


HEADERS = (
    "Annotator",
    "Labels",
    "Known",
    "Same again",
    "First place",
    "Agrees (κ)",
    "Median time",
    "Flip rate",
)


def annotators(quality: Quality) -> str:
    """One row for each annotator, with a button that revokes or restores them."""
    head = "".join(f"<th>{escape(h)}</th>" for h in HEADERS)
    rows = "".join(_row(q) for q in quality.annotators)
    note = (
        "Known: of pairs with a known answer, those that were right. Same again: on mirrored repeats. First place: how "
        "often the answer shown first won. Agrees: with other people. Flip rate: what the reward model is told. "
        "Revoking lets all labels of an annotator count for nothing: the next fit of the reward model begins afresh "
        "without them and says what changed. Restoring takes that back."
    )
    return (
        f'<section class="card"><h3>Annotators</h3><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="note">{note}</p>{files("annotators")}</section>'
    )


def _row(q: AnnotatorQuality) -> str:
    seconds = "–" if math.isnan(q.seconds) else duration(q.seconds)
    agrees = f"{_share(q.agrees)} ({plain(q.kappa)})" if q.agrees.whole else "–"
    cells = [
        str(q.labels),
        _share(q.gold),
        _share(q.repeats),
        _share(q.first_place),
        agrees,
        seconds,
        plain(q.flip_rate),
    ]
    does = "revoke" if q.revoked is None else "restore"
    why = "" if q.revoked is None else f' <span class="note">revoked: {escape(q.revoked)}</span>'
    name = escape(q.annotator.id)
    button = f'<button type="button" data-annotator="{name}" data-does="{does}">{does.capitalize()}</button>'
    shown = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    kind = ' class="revoked"' if q.revoked is not None else ""
    return f"<tr{kind}><td>{button} {name}{why}</td>{shown}</tr>"


def _share(share: Share) -> str:
    return f"{_percent(share.part / share.whole)} of {share.whole}" if share.whole else "–"


def _percent(x: float) -> str:
    return f"{100 * x:.0f} %"


def files(*figures: str) -> str:
    """Links to figures as files; by name where there are several."""
    links = (
        f'<a href="/api/quality/{figure}/csv" download>{"CSV" if len(figures) == 1 else f"{figure}.csv"}</a>'
        for figure in figures
    )
    return f'<p class="files">{" ".join(links)}</p>'
