"""Series on the screen and in pictures: what the commands of ``headrace codecs`` share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli import output
from headrace.core.clock import NS
from headrace.core.errors import ConfigError, Rejected, StorageError

if TYPE_CHECKING:
    from headrace.codecs.base import I64, Array

FILE = click.Path(path_type=Path)
_UNITS_NS = (
    (1_000, "µs"),
    (1_000_000, "ms"),
    (NS, "s"),
    (60 * NS, "min"),
    (3_600 * NS, "hours"),
    (86_400 * NS, "days"),
)
"""Units of a time axis."""


def finite(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """A click callback: refuses NaN and infinities."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter("it is not a finite number")
    return value


def check_svg(file: Path | None) -> None:
    """Say it before the work begins where a picture is to have another name. Raises `ConfigError`."""
    if file is not None and file.suffix.lower() != ".svg":
        raise ConfigError(f"{file} is not named .svg, and SVG is what --plot draws")


def shown(value: float | None) -> str:
    """A number as tables show it."""
    if value is None:
        return "-"
    return output.count(value) if isinstance(value, int) else f"{value:.6g}"


def comparison(title: str, ts_ns: I64, x: Array, y: Array) -> str:
    """Original ``x``, reconstruction ``y`` and error over the time, as SVG. Raises `Rejected`: no samples."""
    import numpy as np

    from headrace.bench.chart import Panel, panel_chart
    from headrace.runtime.times import rfc3339

    if not len(ts_ns):
        raise Rejected("there is nothing to draw: the series have no samples")
    order = np.argsort(ts_ns, kind="stable")
    ts_ns, x, y = ts_ns[order], x[order].astype(np.float64), y[order].astype(np.float64)
    since_ns = ts_ns - ts_ns[0]
    unit_ns, unit = next((u for u in reversed(_UNITS_NS) if since_ns[-1] >= 5 * u[0]), _UNITS_NS[0])
    with np.errstate(invalid="ignore", over="ignore"):
        error = y - x
    panels = [Panel("value", {"original": x, "decoded": y}), Panel("error", {"decoded - original": error})]
    return panel_chart(title, f"{unit} since {rfc3339(int(ts_ns[0]))}", since_ns / unit_ns, panels)


def write_picture(file: Path, text: str) -> None:
    """Write a picture. Raises `StorageError`."""
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as e:
        raise StorageError(f"{file} can't be written: {e.strerror or e}") from e
