"""What commands print: tables for people, one JSON document, or bytes of tabular formats."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import click

from headrace.core.clock import NO_TIME, NS
from headrace.core.errors import ConfigError

_LEFT_OUT = "-"


class Format(StrEnum):
    """How tabular results are written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    ARROW = "arrow"
    PARQUET = "parquet"


def emit_json(document: Any) -> None:
    """Write one JSON document to stdout, indented where a person reads it."""
    indent = 2 if sys.stdout.isatty() else None
    click.echo(json.dumps(plain(document), indent=indent, allow_nan=False, ensure_ascii=False))


def json_line(document: Any) -> str:
    """One JSON document on one line, for output that is followed."""
    return json.dumps(plain(document), allow_nan=False, ensure_ascii=False)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is changed.

    Parameters
    ----------
    yes : whether the user has said so already.

    Raises
    ------
    click.Abort : the answer is no. ConfigError : there is nobody to ask.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("this changes a running plant and there is nobody to ask: add --yes")
    click.confirm(question, abort=True, err=True)


def plain(value: Any) -> Any:
    """`value` with only what JSON has: numbers that are none of JSON's (NaN, infinities) become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def emit_bytes(data: bytes, form: Format) -> None:
    """Write a binary or CSV result to stdout.

    Raises
    ------
    ConfigError : a binary format would go to a terminal.
    """
    if form in (Format.ARROW, Format.PARQUET) and sys.stdout.isatty():
        raise ConfigError(f"{form} is binary: send it to a file, as in > rows.{form}")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def toml_text(text: str) -> str:
    """`text` as a TOML string: JSON's escapes are TOML's too."""
    return json.dumps(text, ensure_ascii=False)


def note(text: str) -> None:
    """Say something that is not the result: it goes to stderr."""
    click.echo(text, err=True)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Columns aligned by spaces under a header; `right` are the columns that are flush right."""
    lines = [list(header), *(list(row) for row in rows)]
    width = [max(len(line[i]) for line in lines) for i in range(len(header))]
    flush = set(right)
    text = [
        "  ".join(
            c.rjust(w) if i in flush else c.ljust(w) for i, (c, w) in enumerate(zip(line, width, strict=True))
        )
        for line in lines
    ]
    return "\n".join([click.style(text[0].rstrip(), bold=True), *(t.rstrip() for t in text[1:])])


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values below each other."""
    found = list(pairs)
    width = max(len(name) for name, _ in found)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in found)


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
