"""``headrace query PATTERN``: samples or aggregates of sensors."""

from __future__ import annotations

import sys
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.output import Format
from headrace.cli.target import find_target, target_option
from headrace.cli.teaching import TaughtCommand

if TYPE_CHECKING:
    from headrace.store.result import QueryResult

_TABLE_ROWS = 100


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace query '**/oven1/temperature' --last 10m",
        "headrace query '**/line1/**/temperature' -t demo-store --last 1h --every 1m --agg mean,max",
        "headrace query 'leon/{paint,press}/**' --from '2026-03-01 06:00' --to 2026-03-02 --format parquet > march.parquet",
        "headrace query '**' --last 1h --agg count       # one row a sensor",
    ),
)
@click.argument("pattern")
@target_option
@click.option("--last", metavar="DURATION", help="Back from the present: 10m, 1h, 7d.")
@click.option("--from", "from_", metavar="TIME", help="First time; plant time unless it has an offset.")
@click.option("--to", metavar="TIME", help="End, outside; default: the present.")
@click.option("--every", metavar="DURATION", help="Length of the windows that --agg is of.")
@click.option(
    "--agg", metavar="WORDS", help="count, sum, min, max, first, last, mean, var, twa; parted by commas."
)
@click.option(
    "--limit", type=click.IntRange(1), help=f"Rows at most; a table has {_TABLE_ROWS} unless you say."
)
@click.option(
    "--format",
    "form",
    type=click.Choice([f.value for f in Format]),
    default="table",
    help="Default: a table for people.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document; the same as --format json.")
def query(pattern: str, target: str | None, form: str, as_json: bool, agg: str | None, **span: Any) -> None:
    """Samples of the sensors that PATTERN matches, or aggregates of them.

    A pattern matches whole paths: * one level, ** any number of levels, {a,b} either. Quote it, or the shell
    takes it.

    What is not flushed yet is there too: from the running engine, else out of its journal. The present of a
    store whose engine does not run is the time at which it ended. Rows go to stdout; how fresh they are, and
    what is missing, to stderr.
    """
    chosen = Format.JSON if as_json else Format(form)
    if chosen is Format.TABLE and span["limit"] is None:
        span["limit"] = _TABLE_ROWS
    where = find_target(target)
    from headrace.runtime.reader import StoreReader

    words = [word.strip() for word in agg.split(",")] if agg else []
    result = StoreReader(where.open_disk(), where.zone).query(pattern, agg=words, **span)
    _write(result, chosen, where.zone)


def _write(result: QueryResult, form: Format, zone: tzinfo) -> None:
    if form is Format.CSV:
        output.emit_bytes(result.to_csv(), form)
    elif form is Format.ARROW:
        output.emit_bytes(result.to_ipc(), form)
    elif form is Format.PARQUET:
        output.emit_bytes(result.to_parquet(), form)
    elif form is Format.JSON:
        output.emit_json(_document(result))
        return  # it says itself how fresh it is
    else:
        click.echo(_table(result, zone))
    _notes(result, zone)


def _document(result: QueryResult) -> dict[str, Any]:
    from headrace.core.paths import format_duration
    from headrace.runtime.times import rfc3339

    return {
        "rows": [_json_row(row) for row in result.to_rows(labels=True)],
        "fresh_to": rfc3339(result.fresh_to_ns),
        "sources": result.sources,
        "missing": list(result.missing),
        "resolution": format_duration(result.resolution_ns) if result.resolution_ns else None,
        "notes": list(result.notes),
        "truncated": result.truncated,
    }


def _json_row(row: dict[str, Any]) -> dict[str, Any]:
    from headrace.core.quality import word
    from headrace.runtime.times import rfc3339

    row["ts"] = rfc3339(row["ts"])
    if "quality" in row:
        row["quality"] = word(row["quality"])
    if row.get("text", "") is None:
        del row["text"]
    return row


def _table(result: QueryResult, zone: tzinfo) -> str:
    from headrace.core.quality import word
    from headrace.runtime.times import local_time

    rows = result.to_rows(labels=True)
    names = ["path", "ts", *result.columns]
    if any(row.get("text") is not None for row in rows):
        names.append("text")

    def cell(name: str, value: Any) -> str:
        if name == "ts":
            return local_time(value, zone)
        return word(value) if name == "quality" else output.number(value)

    cells = [[cell(name, row[name]) for name in names] for row in rows]
    header = [f"ts ({zone})" if name == "ts" else name for name in names]
    right = [i for i, name in enumerate(names) if i > 1 and name not in ("quality", "text")]
    return output.table(header, cells, right)


def _notes(result: QueryResult, zone: tzinfo) -> None:
    from headrace.core.clock import NO_TIME
    from headrace.runtime.times import local_time

    rows = f"{result.n_rows:,} row{'s' if result.n_rows != 1 else ''}"
    if result.truncated:
        rows = f"the first {rows}; --limit gives more"
    fresh = "" if result.fresh_to_ns == NO_TIME else f", fresh to {local_time(result.fresh_to_ns, zone)}"
    sources = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in result.sources.items() if n)
    if sys.stderr.isatty() or result.truncated:
        output.note(f"{rows}{fresh}{' (read: ' + sources + ')' if sources else ''}")
    if result.resolution_ns:
        output.note(f"note: {result.notes[-1]}")
    for sentence in result.missing:
        output.note(f"missing: {sentence}")
