"""``headrace import SOURCE``: history from CSV and Parquet files."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.target import ENVIRONMENT, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from headrace.core.config import PlantConfig
    from headrace.runtime.importing import ImportCounts, Imported


@click.command(
    "import",
    cls=TaughtCommand,
    examples=(
        "headrace import history.parquet                        # long: columns path, ts, value; into ./plant.toml's store",
        "headrace import 'logs/*.csv' -t plant.toml --time timestamp --path leon/paint/line1/oven1/{key}",
        "headrace import old.csv -t my-store --rename Tag=path --rename Date=ts --rename PV=value --dry-run",
        "headrace import oven.csv --path leon/paint/line1/oven1/{key} --rename 'T in=inlet' --unit inlet=degC --yes",
    ),
)
@click.argument("source", nargs=-1, required=True)
@target_option
@click.option(
    "--path",
    default="",
    metavar="TEMPLATE",
    help="Wide files: path of the columns' sensors, ending in {key}.",
)
@click.option("--time", default="ts", show_default=True, metavar="COLUMN", help="Column of the time.")
@click.option(
    "--time-unit",
    type=click.Choice(["auto", "s", "ms", "us", "ns"]),
    default="auto",
    help="Of times given as numbers; auto goes by their size.",
)
@click.option(
    "--value", default="value", show_default=True, metavar="COLUMN", help="Long files: column of the values."
)
@click.option(
    "--column", "only", multiple=True, metavar="NAME", help="Wide files: a column to take; default: all."
)
@click.option(
    "--rename", multiple=True, metavar="OLD=NEW", help="Another name for a column; may be repeated."
)
@click.option("--unit", multiple=True, metavar="SIGNAL=UNIT", help="The unit of a signal; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Read the files and say what would be taken; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The counts as one JSON object.")
def import_(
    source: tuple[str, ...], target: str | None, dry_run: bool, yes: bool, as_json: bool, **keys: Any
) -> int:
    """Read history from CSV and Parquet files into the store of a plant, or into a store of its own.

    Long files have a row a sample: columns path, ts, value. Wide files have a row a time and a column a sensor of one
    device, which --path names. Times without an offset are plant time. The way is that of live data (journal, pipelines,
    commit), so the engine must not run meanwhile; a second import of the same file stores nothing. Sensors with a scale
    get the raw values that the file's values are of.

    What can't be taken is counted and kept with its reason (headrace rejects list). Exit code 1: nothing of it could be.
    """
    from headrace.runtime.importing import ImportMapping, import_files, preview_files

    renames, units = _pairs(keys.pop("rename"), "--rename"), _pairs(keys.pop("unit"), "--unit")
    mapping = ImportMapping(renames=renames, units=units, **keys)
    files, config = _files(source), _config(target)
    if dry_run:
        counts, sensors = preview_files(config, files, mapping)
        _tell_preview(counts, sensors, as_json)
        return Exit.DONE if counts.samples else Exit.FAILED
    if not yes and sys.stdin.isatty():
        names = f"{len(files)} file{'s' if len(files) != 1 else ''}"
        click.confirm(f"Import {names} into {config.store_folder}?", abort=True, err=True)
    done = asyncio.run(import_files(config, files, mapping, tell=_progress()))
    _tell(done, config.store_folder, as_json)
    return Exit.DONE if done.counts.samples else Exit.FAILED


def _files(source: tuple[str, ...]) -> list[Path]:
    from headrace.adapters.replay.adapter import find_files

    found = [file for pattern in source for file in find_files(Path(), pattern)]
    for pattern in source:
        if not find_files(Path(), pattern):
            raise NotFound(
                f"no .csv or .parquet file {pattern}; SOURCE is a file or a quoted pattern: 'logs/*.csv'"
            )
    return list(dict.fromkeys(found))


def _config(target: str | None) -> PlantConfig:
    """The plant, or one that is nothing but a store."""
    from headrace.core.config import PlantConfig

    named = target or os.environ.get(ENVIRONMENT, "")
    path = Path(named)
    is_new = (
        bool(named)
        and "://" not in named
        and (
            not path.exists()
            or (path.is_dir() and not any(p for p in path.iterdir() if not p.name.startswith(".")))
        )
    )
    if is_new and path.suffix != ".toml":
        return PlantConfig.model_validate({"version": 1, "store": {"url": str(path.absolute())}})
    where = find_target(target)
    if where.config is not None:
        return where.config
    folder = where.store_folder
    _check_is_bare(folder)
    return PlantConfig.model_validate({"version": 1, "store": {"url": str(folder.absolute())}})


def _check_is_bare(folder: Path) -> None:
    """A store whose pipelines have open windows must be opened with them, or they would be lost."""
    from headrace.store.directories import load_directory
    from headrace.store.disks import open_disk

    directory = load_directory(open_disk(folder))
    if any(directory.is_derived(slot) for slot in range(directory.n_slots)):
        raise ConfigError(
            f"store {folder} has derived series, so pipelines write to it; name its plant file with -t, and they go on"
        )


def _pairs(texts: tuple[str, ...], option: str) -> dict[str, str]:
    found = {}
    for text in texts:
        old, equals, new = text.rpartition("=")
        if not equals or not old:
            raise ConfigError(f"{option} {text!r} is not written A=B")
        found[old] = new
    return found


def _progress() -> Any:
    shown = sys.stderr.isatty()

    def tell(file: str, n_samples: int) -> None:
        if shown:
            click.echo(f"\r{file}: {n_samples:,} samples\033[K", err=True, nl=False)

    return tell


def _tell_preview(counts: ImportCounts, sensors: list[str], as_json: bool) -> None:
    if as_json:
        output.emit_json({**_json(counts), "sensors": len(sensors), "paths": sensors[:1_000]})
        return
    click.echo(
        f"{counts.files} files, {counts.rows:,} rows: {counts.samples:,} samples of {len(sensors):,} sensors would be taken"
    )
    for path in sensors[:10]:
        click.echo(f"  {path}")
    if len(sensors) > 10:
        click.echo(f"  ... and {len(sensors) - 10:,} more")
    _tell_rejects(counts)


def _json(counts: ImportCounts) -> dict[str, Any]:
    return {
        "files": counts.files, "rows": counts.rows, "samples": counts.samples,
        "rejected": dict(sorted(counts.rejected.items())),
    }  # fmt: skip


def _tell(done: Imported, folder: Path, as_json: bool) -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", err=True, nl=False)
    if as_json:
        output.emit_json(
            {
                **_json(done.counts),
                "stored": done.stored,
                "duplicates": done.duplicates,
                "derived": done.derived,
            }
        )
        return
    known = f", {done.duplicates:,} were there already" if done.duplicates else ""
    click.echo(
        f"{done.counts.samples:,} samples from {done.counts.files} files: {done.stored:,} stored{known}; in {folder}"
    )
    _tell_rejects(done.counts)


def _tell_rejects(counts: ImportCounts) -> None:
    for code, n in sorted(counts.rejected.items()):
        output.note(f"refused: {n:,} samples, {code}")
    for sentence in counts.sentences:
        output.note(f"  {sentence}")
