"""Judges on the Quality page as HTML text: how they fit people, and what people are to answer because they did."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labeling.intervals import Interval
from labeling.judge_quality import JudgeQuality
from labeling.quality_figures import reliability_chart
from labeling.quality_panels import files
from labeling.run_figures import plain
from labeling.run_panels import count, table
from labeling.stored_requests import REASONS, RequestCount

HEADERS = ("Judge", "Measured on", "Same as people", "κ", "Same · tie · opposite", "Calibration error", "Training gets")
ASKED = ("Judge", "Why people are to answer", "Slates", "Of what it ranked", "Answered")
NOTE = (
    "Same as people: on pairs, as better, tie or worse. Same · tie · opposite: what people say where the judge prefers "
    "an answer. Calibration error: how far its probabilities are from how often people agree, as they are, and after "
    "temperature scaling and isotonic calibration, out of fold. 95 % intervals over slates. Win rates put a judge's "
    "many answers and people's few together."
)


def judges(found: Sequence[JudgeQuality], asked: Sequence[RequestCount]) -> str:
    """All that people's answers say of judges; nothing where there are none."""
    if not found and not asked:
        return ""
    tables = "".join(
        f'<div class="scroll">{table(headers, rows)}</div>'
        for headers, rows in ((HEADERS, [_row(q) for q in found]), (ASKED, [_asked(c) for c in asked]))
        if rows
    )
    downloads = files("judges", "reliability", "requests", "winrates")
    card = f'<section class="card"><h3>Judges</h3>{tables}<p class="note">{NOTE}</p>{downloads}</section>'
    return card + f'<div class="plots few">{"".join(map(_diagram, found))}</div>'


def _row(q: JudgeQuality) -> tuple[str, ...]:
    where = count(q.slates, "slate") + (", drawn at random" if q.audit else " that people happened to label")
    errors = " · ".join(plain(error.mean) for error in q.error.values())
    said = " · ".join(map(str, (q.same, q.tie, q.opposite)))
    return (q.judge, where, _interval(q.agreement), _interval(q.kappa), said, errors, q.in_use)


def _asked(c: RequestCount) -> tuple[str, ...]:
    return (c.judge, REASONS[c.reason], str(c.asked), f"{100 * c.share:.1f} %", str(c.answered))


def _interval(i: Interval) -> str:
    return f"{plain(i.mean)} [{plain(i.low)}, {plain(i.high)}]"


def _diagram(q: JudgeQuality) -> str:
    """How often people prefer what the judge does, by its probability."""
    chart = reliability_chart([(b.p, b.preferred, count(b.pairs, "pair")) for b in q.bins], q.judge)
    note = f"{q.judge}: how often people prefer the answer that it does, by its probability; on the line it is right"
    return f'<section class="card plot"><h3>Reliability</h3>{chart}<p class="note">{escape(note)}</p></section>'
