"""``headrace rejects``: refused input that is kept: look at it, and take it in after what was wrong is mended."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import quote, urlencode

import click

from headrace.cli import output
from headrace.cli.exits import Exit
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand

_REPLAY_S = 120.0
_DUMPED_BYTES = 4_096
_BATCH = 1_000


@click.group(invoke_without_command=True)
@click.pass_context
def rejects(ctx: click.Context) -> None:
    """Input that was refused: counted, kept, and replayed once it can be read."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _filters(command: Any) -> Any:
    for option in (
        click.option("--to", metavar="TIME", help="Arrived before."),
        click.option(
            "--from", "from_", metavar="TIME", help="Arrived at or after; plant time without an offset."
        ),
        click.option("--last", metavar="DURATION", help="Arrived within: 10m, 1h, 7d."),
        click.option("--code", help="Only of this code: malformed, bad-time, ..."),
        click.option("--adapter", help="Only of this adapter."),
    ):
        command = option(command)
    return command


@rejects.command(
    "list",
    cls=TaughtCommand,
    examples=(
        "headrace rejects list                               # counts, and the newest",
        "headrace rejects list --adapter broker --code malformed --last 1h",
        "headrace rejects list --json | jq '.counts[].rejects'",
    ),
)
@target_option
@_filters
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=20, help="How many of the newest to show; default 20."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_(target: str | None, as_json: bool, limit: int, **chosen: Any) -> None:
    """Counts by adapter and code, and the newest one by one.

    A running engine is asked; where none runs, the store is read.
    """
    where = find_target(target)
    found = _report(where, _wanted(where, chosen), limit)
    if as_json:
        output.emit_json(found)
        return
    click.echo(_counts(found["counts"]) if found["counts"] else "no rejects are kept")
    if found["rejects"]:
        click.echo("\n" + _newest(found["rejects"]))
    for problem in found["problems"]:
        output.note(problem)


def _counts(counts: list[dict[str, Any]]) -> str:
    rows = [
        [
            c["adapter"], c["code"], output.count(c["rejects"]), output.count(c["samples"]),
            output.size(c["size_bytes"]), _moment(c["first"]), _moment(c["last"]),
        ]
        for c in counts
    ]  # fmt: skip
    return output.table(
        ("adapter", "code", "rejects", "samples", "size", "first (UTC)", "last (UTC)"), rows, (2, 3, 4)
    )


def _newest(some: list[dict[str, Any]]) -> str:
    rows = [[r["id"], _moment(r["arrived"]), r["adapter"], r["code"], r["source"], r["detail"]] for r in some]
    return output.table(("id", "arrived (UTC)", "adapter", "code", "source", "detail"), rows)


def _moment(text: str | None) -> str:
    return "-" if text is None else text[:23].replace("T", " ")


@rejects.command(
    cls=TaughtCommand,
    examples=("headrace rejects show 1042-3", "headrace rejects show 1042-3 --raw > message.json"),
)
@click.argument("reject_id", metavar="ID")
@target_option
@click.option("--raw", is_flag=True, help="Only its bytes, as they came.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object; bytes as hexadecimal digits.")
def show(reject_id: str, target: str | None, raw: bool, as_json: bool) -> None:
    """One reject: where it came from, what was wrong, and its bytes."""
    found = _one(find_target(target), reject_id)
    data = bytes.fromhex(found["hex"])
    if as_json:
        output.emit_json(found)
    elif raw:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        names = ("id", "adapter", "code", "source", "detail", "arrived")
        pairs = [(name, str(found[name])) for name in names] + [("samples", output.count(found["samples"]))]
        click.echo(output.fields(pairs) + "\n\n" + dump(data))


def dump(data: bytes) -> str:
    """Bytes as hexadecimal digits with their text beside them, sixteen a line; the beginning of many."""
    lines = []
    for at in range(0, min(len(data), _DUMPED_BYTES), 16):
        part = data[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:06x}  {part.hex(' ').ljust(47)}  {text}")
    if len(data) > _DUMPED_BYTES:
        lines.append(f"... {len(data) - _DUMPED_BYTES:,} bytes more; --raw writes all of them")
    return "\n".join(lines) or "(no bytes were kept)"


@rejects.command(
    cls=TaughtCommand,
    examples=(
        "headrace rejects replay --adapter broker --dry-run   # what would come of it",
        "headrace rejects replay --adapter broker --code unknown-topic --yes",
        "headrace rejects replay 1042-3",
    ),
)
@click.argument("ids", nargs=-1, metavar="[ID]...")
@target_option
@_filters
@click.option("--dry-run", is_flag=True, help="Only say what would come of it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def replay(
    ids: tuple[str, ...], target: str | None, dry_run: bool, yes: bool, as_json: bool, **chosen: Any
) -> int:
    """Take rejects in again, by the present configuration of their adapters.

    What is accepted now is stored with its own time and is a reject no more; what still fails stays. The exit code is
    1 where some still fail.
    """
    where = find_target(target)
    engine = where.running(_REPLAY_S)
    wanted = _wanted(where, chosen) | ({"ids": list(ids)} if ids else {})
    if not dry_run:
        output.confirm("replay these rejects? What is accepted is stored", yes)
    total = _replayed(engine, {**wanted, "limit": _BATCH, "dry_run": dry_run})
    if as_json:
        output.emit_json({**total, "dry_run": dry_run})
    else:
        verb = "would be replayed" if dry_run else "replayed"
        click.echo(
            f"{total['replayed']:,} {verb} ({total['samples']:,} samples), {total['failing']:,} still failing"
        )
        if total["samples_lost"]:
            output.note(f"{total['samples_lost']:,} samples of them were too many to be kept, and are lost")
        for one in total["reasons"]:
            output.note(f"  {one['rejects']:,} of {one['adapter']}: {one['why']}")
    return Exit.FAILED if total["failing"] else Exit.DONE


def _replayed(engine: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Replay batch after batch."""
    total: dict[str, Any] = {"replayed": 0, "samples": 0, "samples_lost": 0, "failing": 0}
    reasons: dict[tuple[str, str, str], int] = {}
    while True:
        found = engine.send("POST", "/api/v1/rejects/replay", document)
        for name in total:
            total[name] += found[name]
        for one in found["reasons"]:
            key = one["adapter"], one["code"], one["why"]
            reasons[key] = reasons.get(key, 0) + one["rejects"]
        if found["next"] is None:
            break
        document = {**document, "after": found["next"]}
    listed = [{"adapter": a, "code": c, "why": w, "rejects": n} for (a, c, w), n in reasons.items()]
    return {**total, "reasons": sorted(listed, key=lambda one: -one["rejects"])}


# --- where from --------------------------------------------------------------------------------------


def _wanted(where: Target, chosen: dict[str, Any]) -> dict[str, Any]:
    """The options as the engine wants them; times in ns."""
    wanted = {name: chosen[name] for name in ("adapter", "code") if chosen[name]}
    if chosen["last"] or chosen["from_"] or chosen["to"]:
        from headrace.core.clock import SystemClock
        from headrace.core.spans import parse_range

        start = chosen["from_"] or (None if chosen["last"] else "1970-01-02")
        now_ns = SystemClock().now_ns()
        span = parse_range(now_ns + 1, where.zone, last=chosen["last"], start=start, end=chosen["to"])
        wanted |= {"from_ns": span.start_ns, "to_ns": span.end_ns}
    return wanted


def _report(where: Target, wanted: dict[str, Any], limit: int) -> dict[str, Any]:
    from headrace.runtime.operations import rejects_report
    from headrace.runtime.replay import filter_of

    engine = where.engine()
    if engine is not None:
        found: dict[str, Any] = engine.json(f"/api/v1/rejects?{urlencode({**wanted, 'limit': limit})}")
        return found
    return rejects_report(_tables(where), filter_of(wanted), limit)


def _one(where: Target, reject_id: str) -> dict[str, Any]:
    from headrace.runtime.operations import reject_report_of

    engine = where.engine()
    if engine is not None:
        found: dict[str, Any] = engine.json(f"/api/v1/rejects/{quote(reject_id)}")
        return found
    return reject_report_of(_tables(where), reject_id)


def _tables(where: Target) -> Any:
    from headrace.ingest.rejects_log import read_rejects

    return read_rejects(where.open_disk(is_asked=True))
