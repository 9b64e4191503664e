"""``headrace store``: what a store holds, whether it is sound, and copies of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from headrace.cli import output
from headrace.cli.backup import backup, progress, restore, verify_backup
from headrace.cli.exits import Exit
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand

if TYPE_CHECKING:
    from headrace.store.query import Store
    from headrace.store.view import StoreView

_RAW_BYTES = 16
"""A sample as a time and a float of 64 bits each: what `ratio` compares with."""


@click.group(invoke_without_command=True)
@click.pass_context
def store(ctx: click.Context) -> None:
    """What a store holds, whether it is sound, and copies of it."""
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
    from headrace.store.query import Store

    return Store.open(where.open_disk())


def _facts(where: Target) -> dict[str, Any]:
    from headrace.store.disks import url_of

    found = _open(where)
    view = found.refresh()
    tiers = {name: _tier(infos) for name, infos in view.segments.items()}
    n_samples = sum(t["samples"] for t in tiers.values())
    size_bytes = sum(t["bytes"] for t in tiers.values())
    per_sample = size_bytes / n_samples if n_samples else 0.0
    return {
        "url": url_of(found.disk),
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
        "headrace store verify -t backup || echo 'take it anew'",
    ),
)
@target_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def verify(target: str | None, as_json: bool) -> int:
    """Read all of a store: every checksum, every sample decoded, and compared with what headers and commits say.

    Segments, commits, manifests, the shards' state, the journal that is not in segments yet, rejects, rollups; of a backup
    also its catalogue. Changes nothing, and may run beside an engine. What is damaged is named, with what to do about it;
    exit code 1 where anything is.
    """
    if target is not None and not target.startswith(("http://", "https://")):
        from headrace.runtime.restoring import is_backup

        if is_backup(target):
            return verify_backup(target, as_json)
    from headrace.runtime.soundness import verify_folder

    disk = find_target(target).open_disk()
    with progress() as tell:
        found = verify_folder(disk, tell)
    harms = [{"name": h.name, "sentence": h.sentence} for h in found.harms]
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


store.add_command(backup)
store.add_command(restore)
