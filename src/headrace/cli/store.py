"""``headrace store status`` and ``verify``: what a store holds, and whether it is sound."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import Unreachable

if TYPE_CHECKING:
    from headrace.store.query import Store
    from headrace.store.view import StoreView

_RAW_BYTES = 16
"""A sample as a time and a float of 64 bits each: what `ratio` compares with."""


@click.group(invoke_without_command=True)
@click.pass_context
def store(ctx: click.Context) -> None:
    """What a store holds, and whether it is sound."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@store.command(
    cls=TaughtCommand,
    examples=(
        "headrace store status                        # of ./plant.toml",
        "headrace store status -t demo-store",
        "headrace store status -t demo-store --json | jq .tiers",
    ),
)
@target_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def status(target: str | None, as_json: bool) -> None:
    """Segments, samples and bytes by tier, compression, days; reads the store's folder, whether an engine runs or not.

    The ratio compares with 16 bytes a sample: a time and a float of 64 bits each.
    """
    facts = _facts(find_target(target))
    if as_json:
        output.emit_json(facts)
        return
    click.echo(_screen(facts))
    for sentence in facts["damaged"]:
        output.note(f"damaged: {sentence}")


def _open(where: Target) -> Store:
    from headrace.core.disk import LocalDisk
    from headrace.runtime.announcement import is_store
    from headrace.store.query import Store

    folder = where.store_folder
    if not is_store(folder):
        raise Unreachable(f"{folder} holds no store yet; headrace run makes one")
    return Store.open(LocalDisk(folder))


def _facts(where: Target) -> dict[str, Any]:
    found = _open(where)
    view = found.refresh()
    tiers = {name: _tier(infos) for name, infos in view.segments.items()}
    n_samples = sum(t["samples"] for t in tiers.values())
    size_bytes = sum(t["bytes"] for t in tiers.values())
    per_sample = size_bytes / n_samples if n_samples else 0.0
    return {
        "url": str(where.store_folder),
        "sensors": found.directory.n_sensors,
        "groups": found.directory.n_slots,
        "samples": n_samples,
        "bytes": size_bytes,
        "bytes_per_sample": round(per_sample, 3),
        "ratio": round(_RAW_BYTES / per_sample, 1) if per_sample else 0.0,
        "tiers": tiers,
        "partitions": _partitions(view),
        "folders": _folders(found),
        "free_bytes": found.disk.free_bytes(),
        "damaged": list(view.damaged),
    }


def _tier(infos: list[Any]) -> dict[str, Any]:
    from headrace.runtime.times import rfc3339

    return {
        "segments": len(infos),
        "samples": sum(i.n_samples for i in infos),
        "bytes": sum(i.size_bytes for i in infos),
        "first": rfc3339(min(i.t_min_ns for i in infos)) if infos else None,
        "last": rfc3339(max(i.t_max_ns for i in infos)) if infos else None,
    }


def _partitions(view: StoreView) -> list[dict[str, Any]]:
    """The warm tier by day, the cold one by 30."""
    import numpy as np

    from headrace.store.manifests import BUCKET_DAYS

    cold = [
        {
            "from_day": str(np.datetime64(bucket * BUCKET_DAYS, "D")),
            "days": BUCKET_DAYS,
            "files": len(one.files),
            "samples": sum(f.n_samples for f in one.files),
            "bytes": sum(f.size_bytes for f in one.files),
            "dropped": one.n_dropped,
        }
        for bucket, one in view.cold.items()
    ]
    return cold + [
        {
            "day": str(np.datetime64(day, "D")),
            "files": len(manifest.files),
            "samples": sum(f.n_samples for f in manifest.files),
            "bytes": sum(f.size_bytes for f in manifest.files),
            "is_whole": manifest.is_whole,
        }
        for day, manifest in view.manifests.items()
        if manifest.files or not view.is_taken(day)
    ]


def _folders(found: Store) -> dict[str, int]:
    """Bytes of everything beside the segments."""
    disk = found.disk
    names = ("journal", "commits", "manifests", "state", "directory", "rollups")
    return {name: sum(_size(disk, path) for path in disk.list(name)) for name in names}


def _size(disk: Any, path: str) -> int:
    from headrace.core.errors import NotFound

    try:
        return int(disk.size(path))
    except NotFound:  # an engine trims meanwhile
        return 0


def _screen(facts: dict[str, Any]) -> str:
    pairs = [
        ("store", facts["url"]),
        ("sensors", f"{facts['sensors']:,} in {facts['groups']:,} groups"),
        ("samples", f"{facts['samples']:,}"),
        (
            "size",
            f"{output.size(facts['bytes'])}, {facts['bytes_per_sample']:g} bytes a sample, {facts['ratio']:g} times smaller",
        ),
        ("beside", ", ".join(f"{name} {output.size(n)}" for name, n in facts["folders"].items() if n) or "-"),
        ("free", output.size(facts["free_bytes"])),
    ]
    rows = [
        [
            name,
            output.count(t["segments"]),
            output.count(t["samples"]),
            output.size(t["bytes"]),
            t["first"] or "-",
            t["last"] or "-",
        ]
        for name, t in facts["tiers"].items()
    ]
    text = [
        output.fields(pairs),
        "",
        output.table(("tier", "segments", "samples", "size", "first", "last"), rows, (1, 2, 3)),
    ]
    if facts["partitions"]:
        days = [
            [
                p["day"] if "day" in p else f"{p['days']} from {p['from_day']}",
                output.count(p["files"]),
                output.count(p["samples"]),
                output.size(p["bytes"]),
                _state_of(p),
            ]
            for p in facts["partitions"]
        ]
        text += ["", output.table(("day", "files", "samples", "size", ""), days, (1, 2, 3))]
    return "\n".join(text)


def _state_of(partition: dict[str, Any]) -> str:
    if "days" in partition:
        dropped = partition["dropped"]
        return "cold" + (f", {dropped:,} samples dropped" if dropped else "")
    return "" if partition["is_whole"] else "in part"


@store.command(
    cls=TaughtCommand,
    examples=(
        "headrace store verify -t demo-store",
        "headrace store verify --json | jq .damages",
        "headrace store verify -t backup/leon-store || echo 'restore it'",
    ),
)
@target_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(target: str | None, as_json: bool) -> int:
    """Read all of a store: every checksum, every sample decoded, and compared with what headers and commits say.

    Changes nothing, and may run beside an engine. What is damaged is named; exit code 1 where anything is.
    """
    from headrace.store.verify import verify_store

    where = find_target(target)
    opened = _open(where)
    shown = sys.stderr.isatty()

    def tell(number: int, n: int, name: str) -> None:
        if shown:
            click.echo(f"\r{number:,} of {n:,}: {name}\033[K", err=True, nl=False)

    found = verify_store(opened.disk, opened, tell)
    journal = _journal_harms(where)
    if shown:
        click.echo("\r\033[K", err=True, nl=False)
    harms = [{"name": h.name, "sentence": h.sentence} for h in found.harms] + journal
    if as_json:
        output.emit_json(
            {
                "segments": found.n_segments,
                "rows": found.n_rows,
                "samples": found.n_samples,
                "bytes": found.size_bytes,
                "damages": harms,
            }
        )
    else:
        for harm in harms:
            click.echo(f"{harm['name']}: {harm['sentence']}")
        state = "sound" if not harms else f"{len(harms):,} damaged"
        click.echo(
            f"{found.n_segments:,} segments, {found.n_rows:,} rows, {found.n_samples:,} samples, "
            f"{output.size(found.size_bytes)}: {state}"
        )
    return Exit.FAILED if harms else Exit.DONE


def _journal_harms(where: Target) -> list[dict[str, str]]:
    """What of the journal that is not in segments yet can't be read."""
    from headrace.core.disk import LocalDisk
    from headrace.runtime.reader import StoreReader

    tail = StoreReader(LocalDisk(where.store_folder)).journal_tail()
    return [{"name": damage.path, "sentence": damage.text} for damage in tail.damages]
