"""The figures of the Quality page as tables: what is drawn there, and what its files hold."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labeling.intervals import Interval
from labeling.judge_quality import JudgeQuality
from labeling.leaderboard import Standing
from labeling.prediction_powered import WinRate
from labeling.quality import Quality, Share
from labeling.records import Label, printable
from labeling.soft_labels import FITTERS
from labeling.stored_requests import RequestCount
from labeling.tables import guarded

FIGURES = (
    "annotators",
    "agreement",
    "judges",
    "reliability",
    "requests",
    "winrates",
    "leaderboard",
    "progress",
)
Cell = str | float | int | None
DAY = 86400


@dataclass(frozen=True)
class Table:
    """Named columns and rows. A cell that says nothing is None."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def as_csv(table: Table) -> str:
    """The table as CSV. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow(guarded(cell) for cell in row)
    return out.getvalue()


def as_text(table: Table) -> str:
    """The table for a terminal, its columns aligned."""
    if not table.rows:
        return "nothing yet\n"
    shown = [[_told(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.columns, *shown, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in (table.columns, *shown)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _told(cell: Cell) -> str:
    return "–" if cell is None else f"{cell:.3g}" if isinstance(cell, float) else printable(str(cell))


def annotators(quality: Quality) -> Table:
    """One row for each annotator."""
    columns: tuple[str, ...] = (
        "annotator",
        "kind",
        "labels",
        "ranked",
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "checked",
    )
    columns += ("flip_rate", "gold_right", "gold_pairs", "repeats_same", "repeat_pairs", "first_place", "placed_pairs")
    columns += ("agrees", "shared_answers", "kappa", "median_seconds", "revoked")
    rows = []
    for q in quality.annotators:
        r = q.reliability
        known: tuple[Cell, ...] = (r.accuracy, r.low, r.high) if r.checked else (None, None, None)
        row: tuple[Cell, ...] = (q.annotator.id, q.annotator.kind, q.labels, q.ranked, *known, r.checked, q.flip_rate)
        row += (*_share(q.gold), *_share(q.repeats), *_share(q.first_place), *_share(q.agrees))
        rows.append((*row, _finite(q.kappa), _finite(q.seconds), q.revoked))
    return Table(columns, tuple(rows))


def agreement(quality: Quality) -> Table:
    """One row: how far people agree."""
    found = quality.agreement
    row = (*map(_finite, (*found.alpha, found.share)), found.pairs, found.slates, quality.disputed)
    return Table(("alpha", "alpha_low", "alpha_high", "share", "pairs", "slates", "disputed"), (row,))


def judges(found: Iterable[JudgeQuality]) -> Table:
    """One row for each judge that people can be compared with."""
    columns: tuple[str, ...] = ("judge", "measured_on", "slates", "pairs")
    columns += ("agreement", "agreement_low", "agreement_high", "kappa", "kappa_low", "kappa_high")
    columns += ("decided_same", "decided_tie", "decided_opposite", "tied_decided", "tied_tie")
    methods = ("raw", *FITTERS)
    columns += tuple(f"error_{method}{end}" for method in methods for end in ("", "_low", "_high"))
    rows = []
    for q in found:
        row: tuple[Cell, ...] = (q.judge, q.measured_on, q.slates, q.pairs)
        row += tuple(map(_finite, (*q.agreement, *q.kappa)))
        row += (q.same, q.tie, q.opposite, q.tied_decided, q.tied_tie)
        row += tuple(value for m in methods for value in q.error.get(m, (None,) * 3))
        rows.append((*row, q.in_use))
    return Table((*columns, "in_use"), tuple(rows))


def reliability(found: Iterable[JudgeQuality]) -> Table:
    """One row for each bin of each judge's reliability diagram."""
    columns = ("judge", "measured_on", "p", "preferred", "preferred_low", "preferred_high", "pairs")
    rows = ((q.judge, q.measured_on, b.p, *map(_finite, b.preferred), b.pairs) for q in found for b in q.bins)
    return Table(columns, tuple(rows))


def requests(counts: Iterable[RequestCount]) -> Table:
    """One row for each judge and reason for which people are to answer its slates."""
    return Table(("judge", "reason", "asked", "answered", "ranked"), tuple((*count,) for count in counts))


def winrates(found: Iterable[WinRate]) -> Table:
    """One row for each two policies and judge: how often a beats b by the judge, by people, and by both together."""
    columns: tuple[str, ...] = ("a", "b", "judge", "judged", "answered")
    columns += tuple(f"{by}{end}" for by in ("by_judge", "by_people", "both") for end in ("", "_low", "_high"))
    rows = (
        (w.a, w.b, w.judge, w.judged, w.answered, *map(_finite, (*w.by_judge, *w.by_people, *w.both, w.power)))
        for w in found
    )
    return Table((*columns, "power"), tuple(rows))


def leaderboard(standings: Iterable[Standing]) -> Table:
    """One row for each policy that was compared with another, best first."""
    rows = tuple((s.policy, *s.score, s.comparisons) for s in standings)
    return Table(("policy", "score", "score_low", "score_high", "comparisons"), rows)


def progress(labels: Sequence[Label], times: Mapping[str, float], kinds: Mapping[str, str]) -> Table:
    """Standing labels of each day (UTC) by the kind of who gave them, and all labels up to its end."""
    by_day: dict[int, Counter[str]] = {}
    for label in labels:
        day = int(times[label.client_key] // DAY)
        by_day.setdefault(day, Counter())[kinds[label.annotator]] += 1
    rows: list[tuple[Cell, ...]] = []
    total = 0
    for day in sorted(by_day):
        counts = by_day[day]
        total += counts.total()
        date = time.strftime("%Y-%m-%d", time.gmtime(day * DAY))
        rows.append((date, counts["human"], counts["judge"], counts["oracle"], total))
    return Table(("day", "human", "judge", "oracle", "total"), tuple(rows))


def _share(share: Share) -> tuple[Cell, Cell]:
    interval: Interval = share.interval
    return _finite(interval.mean), share.whole


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
