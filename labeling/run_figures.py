"""Line charts as SVG text, without a plotting library: a line, its 95 % band, and one dashed line to compare with.

Colours come from the page's CSS (`currentColor` and variables), so one figure serves light, dark and print.
Every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from labeling.run_view import Point

WIDTH, HEIGHT = 440, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 26
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Chart:
    """What to draw. `reference` is the height of the dashed line and `reference_name` what it stands for."""

    points: Sequence[Point]
    last_x: int
    color: str
    reference: float | None = None
    reference_name: str = ""


def plain(value: float | None, signed: bool = False) -> str:
    """A number for people: three significant digits, counts whole, a true minus; `–` when unknown."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 999.5:
        text = f"{size:,.0f}".replace(",", "\u202f")
    elif size != 0 and size < 0.001:
        mantissa, exponent = f"{size:.1e}".split("e")
        superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        text = f"{mantissa}·10{superscript}"
    elif size == 0 or isinstance(value, int):
        text = f"{size:.0f}"
    else:
        digits = max(0, 2 - math.floor(math.log10(size)))
        text = f"{size:.{digits}f}"
    negative = value < 0 and any(c in "123456789" for c in text)
    return ("−" if negative else "+" if signed else "") + text


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) that span low..high."""
    if high <= low:
        pad = max(abs(low) * 0.1, 1e-3) if low else 0.5  # a single rounding error is no scale
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9)), 10 * power)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _tick_label(value: float, step: float) -> str:
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value:.{min(decimals, 6)}f}".replace("-", "−")


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def line_chart(chart: Chart, label: str) -> str:
    """Draw `chart` as an SVG that fills its container; `label` names it for screen readers."""
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    if not chart.points:
        return f'{head}<text class="none" x="{WIDTH / 2}" y="{HEIGHT / 2}">No figure yet</text></svg>'
    heights = [v for p in chart.points for v in (p.y, p.low, p.high) if v is not None]
    heights += [] if chart.reference is None else [chart.reference]
    ticks = nice_ticks(min(heights), max(heights))
    last_x = max(chart.last_x, chart.points[-1].x, 1)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / last_x

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (ticks[-1] - value) / (ticks[-1] - ticks[0])

    parts = [head, _grid(ticks, last_x, x, y)]
    banded = [p for p in chart.points if p.low is not None and p.high is not None]
    if len(banded) > 1:
        upper = [(x(p.x), y(p.high)) for p in banded if p.high is not None]
        lower = [(x(p.x), y(p.low)) for p in reversed(banded) if p.low is not None]
        parts.append(f'<path class="band {chart.color}" d="{_path([*upper, *lower])}Z"/>')
    elif banded:
        (p,) = banded
        ends = [(x(p.x), y(v)) for v in (p.low, p.high) if v is not None]
        parts.append(f'<path class="whisker {chart.color}" d="{_path(ends)}"/>')
    if chart.reference is not None:
        level = y(chart.reference)
        name_y = level - 5 if level > TOP + 14 else level + 13
        parts.append(f'<path class="reference" d="M{LEFT} {level:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="reference" x="{WIDTH - RIGHT}" y="{name_y:.1f}">')
        parts.append(f"{escape(chart.reference_name)}</text>")
    parts.append(f'<path class="line {chart.color}" d="{_path([(x(p.x), y(p.y)) for p in chart.points])}"/>')
    parts += [_dot(p, x(p.x), y(p.y), chart.color, p is chart.points[-1]) for p in chart.points]
    return "".join([*parts, "</svg>"])


def _grid(ticks: Sequence[float], last_x: int, x: Scale, y: Scale) -> str:
    parts = []
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>')
        text = _tick_label(tick, ticks[1] - ticks[0])
        parts.append(f'<text class="tick y" x="{LEFT - 7}" y="{y(tick) + 3.5:.1f}">{text}</text>')
    every = math.ceil(last_x / 8)
    for i in range(0, last_x + 1, every):
        parts.append(f'<text class="tick x" x="{x(i):.1f}" y="{HEIGHT - 8}">{i}</text>')
    return "".join(parts)


def _dot(p: Point, x: float, y: float, color: str, newest: bool) -> str:
    interval = "" if p.low is None or p.high is None else f" (95 % CI {plain(p.low)} to {plain(p.high)})"
    told = escape(f"iteration {p.x}: {plain(p.y)}{interval}")
    radius = 4 if newest else 2.5
    return (
        f'<g class="point"><title>{told}</title><circle class="hit" cx="{x:.1f}" cy="{y:.1f}" r="11"/>'
        f'<circle class="dot {color}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/></g>'
    )
