"""The figures of the Quality page as SVG text: values with their intervals, reliability, and labels by day."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from labeling.intervals import Interval
from labeling.quality_tables import Table
from labeling.run_figures import nice_ticks

WIDTH, NAMES, VALUES, ROW, AXIS = 440, 120, 100, 24, 22
BARS, LEFT = 160, 42
KINDS = ("human", "judge", "oracle")


def interval_chart(rows: Sequence[tuple[str, Interval, str]], reference: float, name: str, label: str) -> str:
    """A dot with its interval for each (name, share in [0, 1], remark); a dashed line at `reference`, called `name`."""
    height = ROW * max(1, len(rows)) + AXIS
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    if not rows:
        return f'{head}<text class="none" x="{WIDTH / 2}" y="{height / 2}">No figure yet</text></svg>'

    def x(share: float) -> float:
        return NAMES + (WIDTH - NAMES - VALUES) * share

    parts = [head]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="grid" d="M{x(tick):.1f} 0V{height - AXIS}"/>')
        parts.append(f'<text class="tick x" x="{x(tick):.1f}" y="{height - 6}">{100 * tick:.0f} %</text>')
    parts.append(
        f'<path class="reference" d="M{x(reference):.1f} 0V{height - AXIS}"><title>{escape(name)}</title></path>'
    )
    for n, (who, share, remark) in enumerate(rows):
        y = ROW * n + ROW / 2
        told = f"{100 * share.mean:.0f} % (95 % CI {100 * share.low:.0f} to {100 * share.high:.0f} %)"
        parts.append(
            f'<g class="point"><title>{escape(f"{who}: {told}; {remark}")}</title>'
            f'<text class="tick y" x="{NAMES - 8}" y="{y + 4:.1f}">{escape(_short(who))}</text>'
            f'<path class="whisker gold" d="M{x(share.low):.1f} {y:.1f}H{x(share.high):.1f}"/>'
            f'<circle class="dot gold" cx="{x(share.mean):.1f}" cy="{y:.1f}" r="4"/>'
            f'<text class="remark" x="{WIDTH - VALUES + 10}" y="{y + 4:.1f}">{escape(remark)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def reliability_chart(points: Sequence[tuple[float, Interval, str]], judge: str) -> str:
    """A dot with its interval for each (p from ½ to 1, share of people, remark); a dashed line where p is the share."""

    def x(p: float) -> float:
        return LEFT + (WIDTH - LEFT - 24) * (2 * p - 1)

    def y(share: float) -> float:
        return (BARS - AXIS - 6) * (1 - share) + 6

    label = escape(f"Reliability of {judge}")
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {BARS}" role="img" aria-label="{label}">']
    for tick in (0, 0.5, 1):
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH}"/>')
        parts.append(f'<text class="tick y" x="{LEFT - 6}" y="{y(tick) + 4:.1f}">{100 * tick:.0f} %</text>')
    for tick in (0.5, 0.75, 1):
        parts.append(f'<text class="tick x" x="{x(tick):.1f}" y="{BARS - 4}">{100 * tick:.0f} %</text>')
    parts.append(f'<path class="reference" d="M{x(0.5):.1f} {y(0.5):.1f}L{x(1):.1f} {y(1):.1f}"/>')
    for p, share, remark in points:
        told = (
            f"p = {p:.2f}: people {100 * share.mean:.0f} % (95 % CI {100 * share.low:.0f} to {100 * share.high:.0f} %)"
        )
        parts.append(
            f'<g class="point"><title>{escape(f"{told}; {remark}")}</title>'
            f'<path class="whisker gold" d="M{x(p):.1f} {y(share.low):.1f}V{y(share.high):.1f}"/>'
            f'<circle class="dot gold" cx="{x(p):.1f}" cy="{y(share.mean):.1f}" r="4"/></g>'
        )
    return "".join([*parts, "</svg>"])


def day_chart(progress: Table) -> str:
    """Labels of each of the last 30 days with any, stacked by who gave them."""
    rows = progress.rows[-30:]
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {BARS}" role="img" aria-label="Labels by day">'
    if not rows:
        return f'{head}<text class="none" x="{WIDTH / 2}" y="{BARS / 2}">No label yet</text></svg>'
    days = [(str(row[0]), [int(row[1 + n] or 0) for n in range(len(KINDS))]) for row in rows]
    ticks = nice_ticks(0, max(sum(counts) for _, counts in days), 3)
    step = min(60.0, (WIDTH - LEFT) / len(days))

    def y(value: float) -> float:
        return (BARS - AXIS) * (1 - value / ticks[-1]) + 4

    parts = [head]
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH}"/>')
        parts.append(f'<text class="tick y" x="{LEFT - 6}" y="{y(tick) + 4:.1f}">{tick:.0f}</text>')
    for n, (day, counts) in enumerate(days):
        told = ", ".join(f"{count} by {kind}s" for kind, count in zip(KINDS, counts, strict=True) if count)
        parts.append(f'<g class="point"><title>{escape(f"{day}: {told}")}</title>')
        below, left = 0, LEFT + step * n + step * 0.1
        for kind, count in zip(KINDS, counts, strict=True):
            if count:
                top, bottom = y(below + count), y(below)
                parts.append(
                    f'<rect class="stack {kind}" x="{left:.1f}" y="{top:.1f}" width="{step * 0.8:.1f}" '
                    f'height="{bottom - top:.1f}"/>'
                )
                below += count
        parts.append("</g>")
    for n in sorted({0, len(days) - 1}):
        parts.append(
            f'<text class="tick x" x="{LEFT + step * (n + 0.5):.1f}" y="{BARS - 4}">{escape(days[n][0][5:])}</text>'
        )
    return "".join([*parts, "</svg>"])


def _short(name: str) -> str:
    return name if len(name) <= 17 else f"{name[:16]}…"
