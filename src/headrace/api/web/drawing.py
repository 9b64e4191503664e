"""Curves as a browser draws them: rows of the chart, points as plain numbers, gaps where nothing came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.api.listing import SensorFacts
from headrace.api.web.resolution import MS
from headrace.api.web.trends import Curve, Trend
from headrace.core.paths import format_duration
from headrace.core.quality import CLASS_MASK, Quality, word

F64 = npt.NDArray[np.float64]
_DIGITS = 7
_GAP_STEPS = 4.0
_STEPPED = ("discrete", "event")
_SIGNS = {"degC": "°C", "Cel": "°C", "degF": "°F", "deg": "°", "ohm": "Ω", "um": "µm"}


def is_stepped(facts: SensorFacts) -> bool:
    """Whether a sensor keeps its value until the next sample: it is drawn in steps, without gaps."""
    return facts.kind in _STEPPED or bool(facts.labels)


def rows_of(facts: Sequence[SensorFacts]) -> list[dict[str, Any]]:
    """Rows of a chart: sensors with one unit share a scale, states with the same words too.

    Each row: ``title``, ``unit``, ``labels``, ``sensors`` (their numbers).
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, one in enumerate(facts):
        stepped = is_stepped(one)
        # Signals without a unit share a scale only where they are of one name: percent and rpm do not mix.
        key = (stepped, one.unit or one.path.rpartition("/")[2], one.labels)
        title = sign_of(one.unit) or one.path.rpartition("/")[2].replace("_", " ")
        row = rows.setdefault(
            key,
            {"title": title, "unit": one.unit, "labels": list(one.labels), "sensors": [], "step": stepped},
        )
        row["sensors"].append(number)
    return sorted(rows.values(), key=lambda row: (row["step"], row["sensors"][0]))


def sign_of(unit: str) -> str:
    """How a unit is printed: ``degC`` → ``°C``, ``m3/h`` → ``m³/h``."""
    known = _SIGNS.get(unit)
    return known or re.sub(r"(?<=m)([23])(?!\d)", lambda power: "²³"[int(power[1]) - 2], unit)


def drawn_trend(trend: Trend, facts: dict[str, SensorFacts], now_ns: int) -> dict[str, Any]:
    """Everything that a chart draws of a trend, JSON-ready; times in ms since 1970, counted from ``base``."""
    base_ms = trend.since_ns // MS
    known = [facts[curve.path] for curve in trend.curves]
    n_points = max((len(curve.ts_ns) for curve in trend.curves), default=0)
    return {
        "base": base_ms,
        "start": trend.span.start_ns / MS,
        "end": trend.span.end_ns / MS,
        "since": trend.since_ns / MS,
        "now": now_ns / MS,
        "every": None if trend.every_ns is None else format_duration(trend.every_ns),
        "every_ms": None if trend.every_ns is None else trend.every_ns / MS,
        "points": n_points,
        "rows": rows_of(known),
        "series": [
            {**_about(one), **points_of(curve, one, trend.every_ns, base_ms)}
            for curve, one in zip(trend.curves, known, strict=True)
        ],
        "missing": list(trend.missing),
        "gone": list(trend.gone),
    }


def _about(facts: SensorFacts) -> dict[str, Any]:
    return {
        "path": facts.path,
        "unit": sign_of(facts.unit),
        "kind": facts.kind,
        "labels": list(facts.labels),
        "step": is_stepped(facts),
        "derived": facts.is_derived,
    }


def points_of(curve: Curve, facts: SensorFacts, every_ns: int | None, base_ms: int) -> dict[str, Any]:
    """A curve's points, column by column: ``t`` ms after `base_ms`, ``v``, and of windows ``lo``, ``hi``, ``n``.

    Of samples that are not good ``q`` has their places and words. A null in ``v`` parts the line.
    """
    stepped = is_stepped(facts)
    value = curve.last if stepped and curve.last is not None else curve.value
    # A window's mean stands in its middle; a state holds from its beginning.
    shift_ns = 0 if every_ns is None or stepped else every_ns // 2
    ts_ns = curve.ts_ns + shift_ns
    after = np.empty(0, np.int64) if stepped else gaps(ts_ns, every_ns)
    columns = {"v": value}
    if curve.low is not None and curve.high is not None and curve.count is not None:
        columns |= {"lo": curve.low, "hi": curve.high, "n": curve.count}
    t_ms = (ts_ns - base_ms * MS) / MS
    out: dict[str, Any] = {"t": _inserted(t_ms, after, t_ms[after] + 1e-3).round(3).tolist()}
    for name, numbers in columns.items():
        out[name] = plain(_inserted(numbers, after, np.full(len(after), np.nan)))
    out["q"] = [] if curve.quality is None else _marks(curve.quality, after)
    if curve.text is not None:
        out["text"] = curve.text
    return out


def gaps(ts_ns: npt.NDArray[np.int64], every_ns: int | None) -> npt.NDArray[np.int64]:
    """Numbers of the points behind which nothing came for much longer than usual: int64[k].

    Usual is the median distance of points: a slow sensor in short windows is no row of gaps.
    """
    if len(ts_ns) < 3:
        return np.empty(0, np.int64)
    distance = np.diff(ts_ns)
    usual = max(float(np.median(distance)), float(every_ns or 0))
    return np.flatnonzero(distance > _GAP_STEPS * usual)


def plain(values: F64) -> list[float | None]:
    """Numbers for JSON, of seven digits at the scale of the largest: shorter to send, as exact as a pixel can be."""
    finite = np.isfinite(values)
    most = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    decimals = _DIGITS - (int(np.floor(np.log10(most))) + 1 if most > 0 else 0)
    rounded = np.round(values, min(max(decimals, 0), 300)) if abs(decimals) < 300 else values
    return [one if ok else None for one, ok in zip(rounded.tolist(), finite.tolist(), strict=True)]


def _inserted(values: F64, after: npt.NDArray[np.int64], what: F64) -> F64:
    return np.insert(values.astype(np.float64), after + 1, what) if len(after) else values.astype(np.float64)


def _marks(quality: npt.NDArray[np.uint8], after: npt.NDArray[np.int64]) -> list[list[Any]]:
    """Place, class and word of each sample that is not good."""
    marked = np.flatnonzero(quality)
    moved = marked + np.searchsorted(after, marked)
    classes = {Quality.UNCERTAIN: "uncertain", Quality.BAD: "bad", Quality.ABSENT: "absent"}
    return [
        [place, classes[Quality(int(code) & CLASS_MASK)], word(int(code))]
        for place, code in zip(moved.tolist(), quality[marked].tolist(), strict=True)
    ]
