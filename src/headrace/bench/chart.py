"""Charts of measurements as SVG: small enough for a page, and nothing to install."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

Points = Sequence[tuple[float, float]]
Array = npt.NDArray[Any]

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 130, 48, 56
_COLOURS = ("#0f6fc5", "#d9480f", "#2b8a3e", "#862e9c", "#b08900", "#495057", "#0b7285", "#94a3b8")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#6b7280}.t{font-size:16px;font-weight:600}"
    ".g{stroke:#9ca3af;stroke-opacity:.35}.l{fill:none;stroke-width:2}.v{fill:#fff;font-size:12px}"
    ".h{fill:none;stroke-width:1.2;stroke-opacity:.8}"
)
_PANEL, _MARGIN = 190, 30
_TINY = 1e-290


class Panel(NamedTuple):
    """One of the charts that share an axis of `panel_chart`.

    Parameters
    ----------
    title : what is drawn, with its unit. lines : name → y at each x; not finite where there is none.
    """

    title: str
    lines: Mapping[str, Array]


def stacked(charts: Sequence[str]) -> str:
    """Charts of this module below each other, as one."""
    tops = [0]
    for chart in charts:
        tops.append(tops[-1] + int(chart.partition('height="')[2].partition('"')[0]))
    parts = [
        chart.replace("<svg ", f'<svg y="{top}" ', 1) for chart, top in zip(charts, tops[:-1], strict=True)
    ]
    return _page(tops[-1], parts)


def line_chart(title: str, axes: tuple[str, str], lines: Mapping[str, Points]) -> str:
    """Lines on logarithmic axes, each labelled at its end.

    Parameters
    ----------
    axes : what x and y are, with units. lines : name → points (x, y), all above 0.
    """
    every = [point for points in lines.values() for point in points]
    x_low, x_high = _decades([x for x, _ in every])
    y_low, y_high = _decades([y for _, y in every])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_text(_LEFT, 24, title, "t")]
    for decade in range(x_low, x_high + 1):
        x, y = at(10.0**decade, 10.0**y_low)
        parts += [_line((x, y), (x, _TOP)), _text(x, y + 20, _number(10.0**decade), anchor="middle")]
    for decade in range(y_low, y_high + 1):
        x, y = at(10.0**x_low, 10.0**decade)
        parts += [
            _line((x, y), (_WIDTH - _RIGHT, y)),
            _text(x - 8, y + 4, _number(10.0**decade), anchor="end"),
        ]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, axes[0], anchor="middle"))
    parts.append(_text(_LEFT, _TOP - 8, axes[1]))
    for colour, (name, points) in zip(_COLOURS, lines.items(), strict=False):
        places = [at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="l" stroke="{colour}" points="{path}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(_text(places[-1][0] + 8, places[-1][1] + 4, name, colour=colour))
    return _page(_HEIGHT, parts)


def panel_chart(title: str, x_title: str, x: Array, panels: Sequence[Panel]) -> str:
    """Charts below each other over one axis x, linear in both; of any number of points.

    Parameters
    ----------
    x : float64[n], at least one, not decreasing. panels : from above, all with lines of n points.
    """
    wide = _WIDTH - _LEFT - _MARGIN
    low, high, ticks = _scale(x)
    pixels = (x - low) / (high - low) * wide
    parts = [_text(_LEFT, 24, title, "t")]
    for number, panel in enumerate(panels):
        parts += _panel(panel, pixels, _TOP + 24 + number * (_PANEL + 44), wide)
    bottom = _TOP - 20 + len(panels) * (_PANEL + 44)
    for tick in ticks:
        across = (tick - low) / (high - low) * wide
        parts.append(_text(_LEFT + across, bottom + 20, f"{tick:.6g}", anchor="middle"))
    parts.append(_text(_LEFT + wide / 2, bottom + 42, x_title, anchor="middle"))
    return _page(bottom + 56, parts)


def _panel(panel: Panel, pixels: Array, top: int, wide: int) -> list[str]:
    # Far outside of what sensors measure, so that differences of what is drawn do not overflow.
    lines = [np.clip(y, -1e300, 1e300, where=np.isfinite(y), out=y.copy()) for y in panel.lines.values()]
    low, high, ticks = _scale(np.concatenate([y[np.isfinite(y)] for y in lines]))
    up = _PANEL / (high - low)
    parts = [_text(_LEFT, top - 10, panel.title)]
    for tick in ticks:
        at = top + (high - tick) * up
        parts.append(_line((_LEFT, at), (_LEFT + wide, at)))
        parts.append(_text(_LEFT - 8, at + 4, f"{tick:.6g}", anchor="end"))
    legend = float(_LEFT + wide)
    for colour, name in reversed(list(zip(_COLOURS, panel.lines, strict=False))):
        parts.append(_text(legend, top - 10, name, anchor="end", colour=colour))
        legend -= 16 + 7.0 * len(name)
    for colour, line in zip(_COLOURS, lines, strict=False):
        across, y = _thinned(pixels, line, wide)
        places = zip((_LEFT + across).tolist(), (top + (high - y) * up).tolist(), strict=True)
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        parts.append(f'<polyline class="h" stroke="{colour}" points="{path}"/>')
    return parts


def _thinned(x: Array, y: Array, n_columns: int) -> tuple[Array, Array]:
    """The points of a line that can be seen: of each column of pixels the lowest and the highest, in their order."""
    there = np.isfinite(y)
    x, y = x[there], y[there]
    if len(x) <= 2 * n_columns:
        return x, y
    column = np.floor(x)
    starts = np.flatnonzero(np.diff(column, prepend=-1.0))
    # One sort finds all extremes: of each column the lowest comes first, the highest last.
    order = np.lexsort((y, column))
    keep = np.unique(np.concatenate([order[starts], order[np.append(starts[1:], len(x)) - 1]]))
    return x[keep], y[keep]


def _scale(values: Array) -> tuple[float, float, list[float]]:
    """Ends of an axis that holds the values, and its ticks: steps of 1, 2 or 5 times a power of ten."""
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if high - low < _TINY:
        apart = abs(low) / 2 if abs(low) > _TINY else 0.5
        low, high = low - apart, high + apart
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.7)
    ticks = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return low, high, ticks


def bar_chart(title: str, unit: str, bars: Mapping[str, Mapping[str, float]]) -> str:
    """Stacked bars, one below the other: what each is made of.

    Parameters
    ----------
    bars : name → part → size; parts have the same colour in every bar.
    """
    names = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    colour = dict(zip(names, _COLOURS * (1 + len(names) // len(_COLOURS)), strict=False))
    left, row, most = 190, 54, max(sum(bar.values()) for bar in bars.values())
    height = _TOP + row * len(bars) + 44
    parts = [_text(20, 24, title, "t")]
    for i, (name, bar) in enumerate(bars.items()):
        x, y = float(left), _TOP + row * i
        parts.append(_text(left - 10, y + 22, name, anchor="end"))
        for part, size in bar.items():
            wide = size / most * (_WIDTH - left - 90)
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="34" fill="{colour[part]}"/>'
                + (_text(x + wide / 2, y + 22, f"{size:.1f}", "v", anchor="middle") if wide > 28 else "")
            )
            x += wide
        parts.append(_text(x + 8, y + 22, f"{sum(bar.values()):.1f} {unit}"))
    x = 20.0
    for part in names:
        parts.append(f'<rect x="{x}" y="{height - 26}" width="12" height="12" fill="{colour[part]}"/>')
        parts.append(_text(x + 17, height - 15, part))
        x += 32 + 7.5 * len(part)
    return _page(height, parts)


def pair_chart(title: str, unit: str, names: tuple[str, str], rows: Mapping[str, tuple[float, float]]) -> str:
    """Two sizes of each row as points on one logarithmic axis, joined by a line: how far one is ahead of the other.

    Parameters
    ----------
    names : of the two sizes. rows : name → sizes above 0, drawn in this order.
    """
    left, row = 170, 22
    low, high = _decades([size for pair in rows.values() for size in pair])
    bottom = _TOP + 20 + row * len(rows)

    def across(size: float) -> float:
        return left + (math.log10(size) - low) / (high - low) * (_WIDTH - left - 30)

    parts = [_text(20, 24, title, "t")]
    for i, name in enumerate(names):
        parts.append(_text(left + 130 * i, _TOP, f"● {name}", colour=_COLOURS[i]))
    for decade in range(low, high + 1):
        x = across(10.0**decade)
        parts += [
            _line((x, bottom), (x, _TOP + 10)),
            _text(x, bottom + 18, _number(10.0**decade), anchor="middle"),
        ]
    for i, (name, pair) in enumerate(rows.items()):
        y = _TOP + 24 + row * i
        parts.append(_text(left - 10, y + 4, name, anchor="end"))
        parts.append(_line((across(pair[0]), y), (across(pair[1]), y)))
        # The first lies above the second where both are the same.
        for size, colour in reversed(list(zip(pair, _COLOURS, strict=False))):
            parts.append(f'<circle cx="{across(size):.1f}" cy="{y}" r="5" fill="{colour}"/>')
    parts.append(_text((left + _WIDTH) / 2, bottom + 38, unit, anchor="middle"))
    return _page(bottom + 50, parts)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _number(value: float) -> str:
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _line(a: tuple[float, float], b: tuple[float, float]) -> str:
    return f'<line class="g" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>'


def _text(x: float, y: float, text: str, style: str = "", *, anchor: str = "start", colour: str = "") -> str:
    own = f' class="{style}"' if style else ""
    own += f' style="fill:{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{own}>{escape(text)}</text>'


def _page(height: int, parts: Sequence[str]) -> str:
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
        f"<style>{_STYLE}</style>\n{inside}\n</svg>\n"
    )
