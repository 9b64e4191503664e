"""Numbers, sizes and times as people read them, the same on the terminal and on the page."""

from __future__ import annotations

import math
from typing import Any

from headrace.core.clock import NO_TIME, NS

RAW_BYTES = 16
"""A sample as int64 time and float64 value: what a compression ratio is measured against."""
_LEFT_OUT = "-"


def number(value: Any) -> str:
    """A measured value as people read it: seven significant digits at most, whole numbers whole."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _LEFT_OUT
    if isinstance(value, float):
        return f"{value:.7g}"
    return str(value)


def count(n: float) -> str:
    """A number of things: ``1,234``."""
    return f"{n:,.0f}"


def size(n_bytes: float) -> str:
    """Bytes in decimal units, three digits: ``12.3 MB``."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1_000
    return f"{value:,.3g} TB" if value < 999.5 else f"{value:,.0f} TB"


def age(ts_ns: int, now_ns: int) -> str:
    """How long ago a time was: ``3.2 s ago``."""
    if ts_ns == NO_TIME:
        return "never"
    return f"{span((now_ns - ts_ns) / NS)} ago" if now_ns > ts_ns else "now"


def span(seconds: float) -> str:
    """A length of time in one or two units: ``850 ms``, ``4.2 s``, ``3 min 20 s``, ``2 d 4 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1_000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for unit, sub, n_sub, unit_s in (("min", "s", 60, 60), ("h", "min", 60, 3_600), ("d", "h", 24, 86_400)):
        total = round(seconds / (unit_s / n_sub))
        if total < n_sub * (60 if unit == "min" else 24) or unit == "d":
            whole, rest = divmod(total, n_sub)
            return f"{whole:,} {unit} {rest} {sub}" if rest and whole < 100 else f"{whole:,} {unit}"
    raise AssertionError("days take everything")
