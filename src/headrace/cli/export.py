"""``headrace export PATTERN --to D``: samples or aggregates as plain files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.target import find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError

if TYPE_CHECKING:
    from headrace.runtime.exporting import ExportPlan


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace export '**' --to out --last 1d                       # Parquet, a folder a day",
        "headrace export '**/temperature' --to out --last 7d --every 1m --agg mean,max",
        "headrace export 'leon/**' --to out --from 2026-03-01 --until 2026-04-01 --format csv --yes",
        "duckdb -c \"SELECT * FROM read_parquet('out/*/*.parquet', hive_partitioning = true)\"",
    ),
)
@click.argument("pattern")
@target_option
@click.option(
    "--to",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the files go.",
)
@click.option("--last", metavar="DURATION", help="Back from the present: 10m, 1h, 7d.")
@click.option("--from", "from_", metavar="TIME", help="First time; plant time unless it has an offset.")
@click.option("--until", metavar="TIME", help="End, outside; default: the present.")
@click.option("--every", metavar="DURATION", help="Length of the windows that --agg is of.")
@click.option(
    "--agg",
    metavar="WORDS",
    default="",
    help="count, sum, min, max, first, last, mean, var, twa; parted by commas.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "arrow"]),
    default="parquet",
    show_default=True,
    help="Kind of the files.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask; replace an earlier export in FOLDER.")
@click.option("--json", "as_json", is_flag=True, help="What was written as one JSON object.")
def export(pattern: str, target: str | None, folder: Path, as_json: bool, **keys: Any) -> int:
    """Write samples of the sensors that PATTERN matches, or aggregates of them, as plain files.

    FOLDER gets a folder for each UTC day, day=2026-03-02, with parts of at most some million rows: columns path, ts, value,
    quality, text, or path, ts and the aggregates. What is not flushed yet is there too. Memory stays bounded however much
    it is. Exit code 1: something could not be read; export.json and stderr say what.
    """
    from headrace.runtime.exporting import ExportRequest, plan_export, run_export

    dry_run, yes = keys.pop("dry_run"), keys.pop("yes")
    words = tuple(word.strip() for word in keys.pop("agg").split(",") if word.strip())
    request = ExportRequest(pattern, to=keys.pop("until"), agg=words, **keys)
    plan = plan_export(_reader(target), request)
    if dry_run:
        _tell_plan(plan, folder, as_json)
        return Exit.DONE
    _check_folder(folder, yes)
    shown = sys.stderr.isatty()

    def tell(day: str, n_rows: int) -> None:
        if shown:
            click.echo(f"\r{day}: {n_rows:,} rows\033[K", err=True, nl=False)

    done = run_export(plan, folder, tell)
    if shown:
        click.echo("\r\033[K", err=True, nl=False)
    if as_json:
        output.emit_json(
            {
                "folder": str(folder),
                "sensors": done.n_sensors,
                "rows": done.n_rows,
                "files": done.n_files,
                "bytes": done.size_bytes,
                "days": done.days,
                "missing": done.missing,
            }
        )
    else:
        days = f"{len(done.days)} day{'s' if len(done.days) != 1 else ''}"
        click.echo(
            f"{done.n_rows:,} rows of {done.n_sensors:,} sensors, {days}, {done.n_files} files, {output.size(done.size_bytes)} in {folder}"
        )
    for sentence in done.missing:
        output.note(f"missing: {sentence}")
    return Exit.FAILED if done.missing else Exit.DONE


def _reader(target: str | None) -> Any:
    from headrace.runtime.reader import StoreReader

    where = find_target(target)
    return StoreReader(where.open_disk(), where.zone)


def _check_folder(folder: Path, yes: bool) -> None:
    """An empty folder, or one with an earlier export that may be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; --to takes a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    foreign = [
        p.name for p in sorted(folder.iterdir()) if not p.name.startswith("day=") and p.name != "export.json"
    ]
    if foreign:
        raise ConfigError(
            f"{folder} holds other files ({foreign[0]}); --to takes an empty folder, or one with an export"
        )
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{folder} holds an export; --yes replaces it")
    click.confirm(f"Replace the export in {folder}?", abort=True, err=True)


def _tell_plan(plan: ExportPlan, folder: Path, as_json: bool) -> None:
    import numpy as np

    days = [str(np.datetime64(day, "D")) for day in plan.days]
    if as_json:
        output.emit_json(
            {"folder": str(folder), "sensors": plan.wanted.n, "days": days, "columns": plan.schema.names}
        )
        return
    span = f"{days[0]} to {days[-1]}" if days else "nothing in the span"
    click.echo(
        f"{plan.wanted.n:,} sensors, {len(days)} days ({span}), columns {', '.join(plan.schema.names)}, would go to {folder}"
    )
