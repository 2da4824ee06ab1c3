"""SVG plots of a report in the colours of the page, light and dark."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10
from typing import Final

from llmdirect.reports.html import safe

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 620, 280, 64, 44, 14, 16
_DASHES: Final = ("", "6 4", "2 3", "9 3 2 3", "12 4")
_COLOURS: Final = ("words", "against", "popularity", "muted", "for")


@dataclass(frozen=True)
class Line:
    """Curve of a plot: a name and points in ascending x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10.0 ** floor(log10(span / count))
    step = next((power * factor for factor in (1, 2, 5) if span / (power * factor) <= count), power * 10)
    first = -floor(-low / step)
    return [round((first + n) * step, 12) for n in range(floor(high / step) - first + 1)]


def lines(title: str, x_label: str, y_label: str, curves: Sequence[Line], mark: float | None = None) -> str:
    """Line plot with axes and a legend; curves differ in colour and in dashes.

    Parameters
    ----------
    title
        Caption of the plot.
    x_label, y_label
        Labels of the axes, with units.
    curves
        One or more curves.
    mark
        x of a thin vertical line.
    """
    xs = [x for curve in curves for x in curve.x]
    ys = [y for curve in curves for y in curve.y]
    x_at, y_at, axes = _axes(xs, ys, x_label, y_label)
    drawn = []
    if mark is not None:
        drawn.append(
            f'<line class="mark" x1="{x_at(mark):.1f}" x2="{x_at(mark):.1f}" y1="{_TOP}" '
            f'y2="{_HEIGHT - _BOTTOM}"/>'
        )
    keys = []
    for number, curve in enumerate(curves):
        path = "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
        style = f'class="curve c{number % len(_COLOURS)}"'
        drawn.append(f'<path {style} d="M{path}"/>')
        keys.append(
            f'<li><svg width="34" height="10" aria-hidden="true"><path {style} d="M1 5H33"/></svg>'
            f"{safe(curve.name)}</li>"
        )
    return (
        f'<figure class="plot"><figcaption>{safe(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{safe(title)}: {safe(y_label)} by {safe(x_label)}">{axes}'
        f'{"".join(drawn)}</svg><ul class="keys">{"".join(keys)}</ul></figure>'
    )


def intervals(
    title: str, x_label: str, rows: Sequence[tuple[str, float, float, float]], highlighted: str
) -> str:
    """Point plot of means with intervals, one row each.

    Parameters
    ----------
    title
        Caption of the plot.
    x_label
        Label of the x axis.
    rows
        Tuples (name, low, mean, high).
    highlighted
        Name of the row in another colour.
    """
    row, left = 24, 170
    height = row * len(rows) + _BOTTOM
    widest = max((high for _, _, _, high in rows), default=1.0) or 1.0

    def at(value: float) -> float:
        return left + (_WIDTH - left - 60) * value / widest

    drawn = [
        f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="4" y2="{height - _BOTTOM + 6}"/>'
        f'<text class="tick" x="{at(tick):.1f}" y="{height - 22}" text-anchor="middle">{tick:g}</text>'
        for tick in ticks(0.0, widest)
    ]
    for number, (name, low, mean, high) in enumerate(rows):
        middle, style = row * number + 16, "c4" if name == highlighted else "c3"
        drawn.append(
            f'<text x="{left - 10}" y="{middle + 4}" text-anchor="end">{safe(name)}</text>'
            f'<path class="curve {style} whole" d="M{at(low):.1f} {middle}H{at(high):.1f}"/>'
            f'<circle class="dot {style}" cx="{at(mean):.1f}" cy="{middle}" r="4.5"/>'
            f'<text class="tick" x="{at(high) + 8:.1f}" y="{middle + 4}">{mean:.4f}</text>'
        )
    return (
        f'<figure class="plot"><figcaption>{safe(title)}</figcaption><svg viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="{safe(title)}">{"".join(drawn)}<text class="axis" '
        f'x="{(left + _WIDTH) / 2:.0f}" y="{height - 4}" text-anchor="middle">{safe(x_label)}</text></svg>'
        "</figure>"
    )


def _axes(
    xs: Sequence[float], ys: Sequence[float], x_label: str, y_label: str
) -> tuple[Callable[[float], float], Callable[[float], float], str]:
    """Maps from values to x and y coordinates, and the SVG of the axes."""
    left, right = min(xs), max(xs)
    margin = 0.06 * ((max(ys) - min(ys)) or abs(max(ys)) or 1.0)
    low, high = min(ys) - margin, max(ys) + margin

    def x_at(value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - left) / ((right - left) or 1.0)

    def y_at(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low)

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y_at(tick):.1f}" '
        f'y2="{y_at(tick):.1f}"/><text class="tick" x="{_LEFT - 8}" y="{y_at(tick) + 4:.1f}" '
        f'text-anchor="end">{tick:g}</text>'
        for tick in ticks(low, high)
    ]
    parts += [
        f'<text class="tick" x="{x_at(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">'
        f"{tick:g}</text>"
        for tick in ticks(left, right, 8)
    ]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f'{safe(x_label)}</text><text class="axis" x="14" y="{middle:.0f}" text-anchor="middle" '
        f'transform="rotate(-90 14 {middle:.0f})">{safe(y_label)}</text>'
    )
    return x_at, y_at, "".join(parts)


STYLE: Final = (
    ".plot{margin:0;min-width:0}.plot figcaption{font-weight:600;margin-bottom:.35rem}"
    ".plot>svg{display:block;width:100%;max-width:46rem;height:auto}"
    ".plot text{font-size:13px;fill:var(--text)}"
    ".plot .tick,.plot .axis{fill:var(--muted);font-variant-numeric:tabular-nums}"
    ".plot .grid{stroke:var(--border)}.plot .mark{stroke:var(--muted);stroke-dasharray:3 3}"
    ".curve{fill:none;stroke-width:2.25}.plot .curve.whole{stroke-dasharray:none}"
    ".keys{list-style:none;display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;"
    "margin:.35rem 0 0;padding:0;font-size:.875rem}.keys li{display:flex;gap:.5rem;align-items:center}"
) + "".join(
    f".c{n}{{stroke:var(--{colour})}}.curve.c{n}{{stroke-dasharray:{dash or 'none'}}}"
    f".dot.c{n}{{fill:var(--{colour});stroke:none}}"
    for n, (colour, dash) in enumerate(zip(_COLOURS, _DASHES, strict=True))
)
