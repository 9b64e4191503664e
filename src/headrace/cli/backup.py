"""``headrace store backup`` and ``restore``: copies of a store, taken while it runs, and a store made of one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.target import find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError

if TYPE_CHECKING:
    from headrace.store.disks import SplitDisk


@contextmanager
def progress() -> Iterator[Callable[[int, int, str], None]]:
    """Tells on one line of a terminal how far something is: done, of how many, what."""
    shown = sys.stderr.isatty()

    def tell(n: int, total: int, name: str) -> None:
        if shown:
            click.echo(f"\r{n:,} of {total:,}: {name}\033[K", err=True, nl=False)

    try:
        yield tell
    finally:
        if shown:
            click.echo("\r\033[K", err=True, nl=False)


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace store backup --to /mnt/backup/leon           # of ./plant.toml; the first copies all, the next what is new",
        "headrace store backup -t leon-store --to /mnt/backup/leon --verify",
        "headrace store backup --to s3://backups/leon          # the store may be in a bucket too",
        "headrace store backup --to /mnt/backup/leon --json | jq .copied_bytes",
    ),
)
@target_option
@click.option(
    "--to",
    required=True,
    metavar="PLACE",
    help="A folder, or a bucket with a prefix: empty, new, or that of an earlier backup.",
)
@click.option("--verify", "is_verified", is_flag=True, help="Read and decode all of the backup afterwards.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def backup(target: str | None, to: str, is_verified: bool, as_json: bool) -> int:
    """Copy a store while its engine runs, or when none does.

    Everything acknowledged before it begins is in the copy. Cut at any moment, it leaves the backup before it as it was; run
    it again. Exit code 1 where the store could not give everything.
    """
    from headrace.core.clock import SystemClock
    from headrace.runtime.backup import back_up

    where = find_target(target)
    folder = where.store_folder  # also of a store in a bucket: without its journal there is no copy of it
    store = where.open_disk() if where.config is not None and where.config.store.is_bucket else folder
    with progress() as tell:
        report = back_up(store, to, SystemClock(), tell)
    if not is_verified:
        problems = report.problems
    else:
        from headrace.runtime.restoring import check_backup

        with progress() as tell:
            problems = [*report.problems, *(f"{h.name}: {h.sentence}" for h in check_backup(to, tell).harms)]
    if as_json:
        output.emit_json(
            {
                "to": str(to),
                "files": report.n_files,
                "bytes": report.size_bytes,
                "copied_files": report.n_copied,
                "copied_bytes": report.n_copied_bytes,
                "removed_files": report.n_removed,
                "is_verified": is_verified,
                "problems": problems,
            }
        )
    else:
        for problem in problems:
            click.echo(problem)
        sound = ", read and sound" if is_verified and not problems else ""
        click.echo(
            f"{report.n_files:,} files, {output.size(report.size_bytes)} in {to}: {report.n_copied:,} copied "
            f"({output.size(report.n_copied_bytes)}), {report.n_removed:,} removed{sound}"
        )
    return Exit.FAILED if problems else Exit.DONE


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace store restore /mnt/backup/leon --to leon-store      # a new folder; then: headrace run plant.toml",
        "headrace store restore /mnt/backup/leon --to look && headrace query '**' -t look --last 1d --agg count",
        "headrace store restore s3://backups/leon --to plant.toml     # where its [store] says: a folder, or a bucket",
    ),
)
@click.argument("place")
@click.option(
    "--to",
    required=True,
    metavar="FOLDER|FILE",
    help="The store's folder, new or empty; or a plant file, for the store that it names.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def restore(place: str, to: str, as_json: bool) -> None:
    """Make a store of the backup in PLACE, a folder or a bucket with a prefix.

    Every file is checked against the catalogue; nothing is made of a damaged one.

    An engine starts on it as after a power cut: `headrace run` with the store's url in the plant file.
    """
    from headrace.runtime.restoring import restore as make
    from headrace.runtime.times import rfc3339

    with progress() as tell:
        catalogue = make(place, _store_at(to), tell)
    facts = {
        "to": str(to),
        "files": len(catalogue.files),
        "bytes": catalogue.size_bytes,
        "taken": rfc3339(catalogue.taken_ns),
        "problems": list(catalogue.problems),
    }
    if as_json:
        output.emit_json(facts)
        return
    for problem in catalogue.problems:
        output.note(f"when it was taken: {problem}")
    click.echo(
        f"{facts['files']:,} files, {output.size(catalogue.size_bytes)} in {to}, as of {facts['taken']}"
    )


def _store_at(to: str) -> Path | SplitDisk:
    """The folder of a store that is to be, or its folder and bucket. Raises `ConfigError`."""
    from headrace.store.disks import SplitDisk, is_cloud, plant_disk

    if is_cloud(to):
        raise ConfigError(
            f"a store at {to} has a folder as well, for its journal; name a plant file whose [store] says both"
        )
    path = Path(to)
    if not path.is_file():
        return path
    from headrace.core.config import load_plant

    config = load_plant(path)
    disk = plant_disk(config)
    return disk if isinstance(disk, SplitDisk) else config.store_folder


def verify_backup(place: str, as_json: bool) -> int:
    """What ``headrace store verify`` says of a backup."""
    from headrace.runtime.restoring import check_backup
    from headrace.runtime.times import rfc3339

    with progress() as tell:
        found = check_backup(place, tell)
    harms = [{"name": h.name, "sentence": h.sentence} for h in found.harms]
    catalogue = found.catalogue
    taken = rfc3339(catalogue.taken_ns)
    if as_json:
        facts = {
            "files": len(catalogue.files),
            "samples": found.n_samples,
            "bytes": catalogue.size_bytes,
            "taken": taken,
        }
        output.emit_json({**facts, "damages": harms})
    else:
        for harm in harms:
            click.echo(f"{harm['name']}: {harm['sentence']}")
        state = "sound" if not harms else f"{len(harms):,} damaged"
        click.echo(
            f"{len(catalogue.files):,} files, {found.n_samples:,} samples in segments, "
            f"{output.size(catalogue.size_bytes)}, as of {taken}: {state}"
        )
    return Exit.FAILED if harms else Exit.DONE
