"""What commands print: tables for people, one JSON document, or bytes of tabular formats."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import click

from headrace.core.errors import ConfigError
from headrace.runtime.phrases import age as age
from headrace.runtime.phrases import count as count
from headrace.runtime.phrases import number as number
from headrace.runtime.phrases import size as size
from headrace.runtime.phrases import span as span


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
