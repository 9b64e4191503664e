"""``headrace adapters``: how adapters and their devices are, and what can be done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from headrace.cli import output
from headrace.cli.probe import probe
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.clock import monotonic_ns
from headrace.core.errors import ConfigError, NotFound, StorageError, Unreachable
from headrace.core.registry import nearest

_NOT_RUNNING = "not running"


@click.group(invoke_without_command=True)
@click.pass_context
def adapters(ctx: click.Context) -> None:
    """How each adapter and its devices are: state, reason, last good sample, next retry; and steer them."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@adapters.command(
    "list",
    cls=TaughtCommand,
    examples=(
        "headrace adapters list                       # of ./plant.toml",
        "headrace adapters list -t demo-store",
        "headrace adapters list -t http://127.0.0.1:8844 --json",
    ),
)
@target_option
@click.option("--json", "as_json", is_flag=True, help="A list of JSON objects.")
def list_(target: str | None, as_json: bool) -> None:
    """All adapters, a line each."""
    found = _reports(find_target(target))
    if as_json:
        output.emit_json(found)
        return
    rows = [
        [
            one["name"],
            one["protocol"],
            one["state"],
            f"{sum(d['state'] == 'connected' for d in one['devices'])}/{len(one['devices'])}",
            output.count(one["sensors"]),
            output.count(one["samples"]),
            _last_good(one["devices"]),
            one["reason"],
        ]
        for one in found
    ]
    header = ("adapter", "protocol", "state", "devices", "sensors", "samples", "last good (UTC)", "reason")
    click.echo(output.table(header, rows, (3, 4, 5)))


@adapters.command(
    cls=TaughtCommand,
    examples=(
        "headrace adapters show ovens",
        "headrace adapters show broker -t demo-store --json",
        "headrace adapters show ovens --tags --stale      # signals that are silent, the longest first",
    ),
)
@click.argument("name")
@target_option
@click.option("--tags", is_flag=True, help="When each signal was last good, the longest silent first.")
@click.option("--stale", is_flag=True, help="With --tags: only those silent for longer than --stale-after.")
@click.option("--stale-after", metavar="DURATION", help="With --tags; default: [runtime] stale_after, 5m.")
@click.option("--limit", type=click.IntRange(1), default=1_000, show_default=True, help="With --tags.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(
    name: str, target: str | None, tags: bool, stale: bool, stale_after: str | None, limit: int, as_json: bool
) -> None:
    """One adapter and all its devices, those in trouble first; or with --tags its signals."""
    if tags:
        _show_tags(find_target(target), name, stale, stale_after, limit, as_json)
        return
    found = {one["name"]: one for one in _reports(find_target(target))}
    if name not in found:
        raise NotFound(f"no adapter {name!r}{nearest(name, list(found))}")
    one = found[name]
    if as_json:
        output.emit_json(one)
        return
    cpu, latency = one["cpu_ns_per_sample"], one["latency_s"]
    pairs = [
        ("adapter", f"{one['name']} ({one['protocol']})"),
        ("state", one["state"] + (f": {one['reason']}" if one["reason"] else "")),
        *([("process", f"its own, {one['pid']}")] if one["pid"] else []),
        ("since", one["since"] or "-"),
        ("sensors", output.count(one["sensors"])),
        (
            "samples",
            f"{one['samples']:,} in {one['frames']:,} frames, {output.size(one['bytes'])}, {_rejected(one)}",
        ),
        ("delivery", _delivery(one)),
        ("connections", f"{one['connects']:,} made, {one['timeouts']:,} time-outs"),
        ("cpu", ", ".join(f"{part} {cpu[part]:.0f} ns" for part in cpu) + " a sample"),
        (
            "latency",
            f"{output.span(latency['p50'])} (median), {output.span(latency['p99'])} (99 in 100 are faster)",
        ),
    ]
    made_of = [f"{name} {version}" for name, version in one["versions"].items()]
    pairs += [("versions", ", ".join(made_of))] if made_of else []
    pairs += [("config", one["config_hash"])] if one["config_hash"] else []
    click.echo(output.fields(pairs))
    if one["devices"]:
        click.echo("\n" + _devices(one["devices"]))
    problems = _problems(one["devices"])
    if problems:
        click.echo("\n" + problems)


def _show_tags(
    target: Target, name: str, stale: bool, stale_after: str | None, limit: int, as_json: bool
) -> None:
    from headrace.core.paths import parse_duration_ns

    wanted = {"stale": str(stale).lower(), "limit": str(limit)}
    if stale_after is not None:
        wanted["stale_after_ns"] = str(parse_duration_ns(stale_after))
    found = target.running().json(f"/api/v1/adapters/{quote(name)}/tags?{urlencode(wanted)}")
    if as_json:
        output.emit_json(found)
        return
    rows = [
        [
            tag["path"],
            "never" if tag["last_good_age_s"] is None else f"{output.span(tag['last_good_age_s'])} ago",
            "stale" if tag["stale"] else "-",
            tag["problem"],
        ]
        for tag in found["shown"]
    ]
    click.echo(output.table(("tag", "last good", "state", "problem"), rows))
    after = output.span(found["stale_after_s"])
    click.echo(f"\n{found['stale']:,} of {found['tags']:,} without a usable value for longer than {after}")


def _rejected(one: dict[str, Any]) -> str:
    codes = ", ".join(f"{n:,} {code}" for code, n in sorted(one["rejects_by_code"].items()))
    return f"{one['rejects']:,} rejected" + (f" ({codes})" if codes else "")


def _delivery(one: dict[str, Any]) -> str:
    since = f" since {_moment(one['unacknowledged_since'])}" if one["unacknowledged_since"] else ""
    return (
        f"{one['unacknowledged']:,} not yet acknowledged{since}, {one['duplicates']:,} sent again, "
        f"{one['out_of_order']:,} out of order, {one['gaps']:,} gaps"
    )


_WHY = click.option("--reason", default="", help="Why; shown with the adapter's state.")
_YES = click.option("--yes", is_flag=True, help="Do not ask.")
_CHANGE_S = 150.0
"""A process that imports an adapter's code and compiles its kernels has two minutes."""


@adapters.command(
    cls=TaughtCommand,
    examples=(
        "headrace adapters pause ovens --reason 'valve is changed'",
        "headrace adapters pause ovens --yes                 # in a script",
    ),
)
@click.argument("name")
@target_option
@_WHY
@_YES
def pause(name: str, target: str | None, reason: str, yes: bool) -> None:
    """Let an adapter stand still, until it is resumed; also over restarts.

    What it has received is written first. Nothing is polled and no connection is held meanwhile; a broker keeps
    QoS 1 messages for it, as long as session_expiry says.
    """
    engine = find_target(target).running(_CHANGE_S)
    output.confirm(f"pause adapter {name}? Nothing is collected from it before it is resumed", yes)
    engine.send("POST", f"/api/v1/adapters/{quote(name)}/pause", {"by": _who(), "reason": reason})
    click.echo(f"{name} is paused; it goes on with: headrace adapters resume {name}")


@adapters.command(cls=TaughtCommand, examples=("headrace adapters resume ovens",))
@click.argument("name")
@target_option
def resume(name: str, target: str | None) -> None:
    """Let a paused adapter go on."""
    engine = find_target(target).running(_CHANGE_S)
    engine.send("POST", f"/api/v1/adapters/{quote(name)}/resume", {"by": _who()})
    click.echo(f"{name} goes on")


@adapters.command(
    cls=TaughtCommand,
    examples=(
        "headrace adapters reload ovens       # after its section, or its ovens.csv, was changed",
        "headrace adapters reload scale       # after pip install --upgrade headrace-scale",
        "headrace adapters reload ovens --code          # after a library that it uses was upgraded",
    ),
)
@click.argument("name")
@target_option
@click.option("--code", is_flag=True, help="Import its code anew, also where its own files are the same.")
@_YES
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def reload(name: str, target: str | None, code: bool, yes: bool, as_json: bool) -> None:
    """Read an adapter's section of the plant file anew and give it a new instance; others are not touched.

    Where the adapter's code has changed on the disk, the new instance gets a process of its own that imports it: that is
    ready before the old one hands on what it has and ends. Where the new section or the new code can't be used, the old
    instance runs on.
    """
    engine = find_target(target).running(_CHANGE_S)
    output.confirm(f"reload adapter {name}? Its connections are made anew", yes)
    document = {"by": _who(), "code": code}
    found = engine.send("POST", f"/api/v1/adapters/{quote(name)}/reload", document)
    if as_json:
        output.emit_json(found)
        return
    in_what = " with its code imported anew, in a process of its own" if found["new_code"] else ""
    same = "" if found["lines"] else "; nothing in its section has changed"
    click.echo(f"{name} has a new instance{in_what}{same}")
    for line in found["lines"]:
        click.echo(f"  {line}")


@adapters.command(
    cls=TaughtCommand,
    examples=(
        "headrace adapters tail ovens",
        "headrace adapters tail ovens --match '**/temperature' --json | jq .value",
    ),
)
@click.argument("name")
@target_option
@click.option("--match", "pattern", default="**", help="Only sensors of this pattern.")
@click.option("--limit", type=click.IntRange(1), help="End after so many readings.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def tail(name: str, target: str | None, pattern: str, limit: int | None, as_json: bool) -> None:
    """Follow what an adapter takes in: path, time (UTC), value, quality. Ctrl-C ends it.

    Intake is never slowed by it: at most 2,000 readings a second are shown, and it is told how many were not.
    """
    engine = find_target(target).running()
    query = urlencode({"pattern": pattern})
    n = 0
    for one in engine.follow(f"/api/v1/adapters/{quote(name)}/tail?{query}"):
        if one is None:
            continue
        if "skipped" in one and not as_json:
            output.note(f"({one['skipped']:,} readings were not shown)")
            continue
        click.echo(output.json_line(one) if as_json else _reading(one))
        n += "path" in one
        if limit is not None and n >= limit:
            return


@adapters.command(
    cls=TaughtCommand,
    examples=(
        "headrace adapters capture broker --to broker.jsonl --for 30s",
        "headrace adapters capture ovens --to ovens.jsonl --size 1MB",
        "headrace adapters probe broker --capture broker.jsonl     # decode it again, by the present plant file",
    ),
)
@click.argument("name")
@target_option
@click.option(
    "--to", "file", required=True, type=click.Path(path_type=Path), metavar="FILE", help="JSON lines."
)
@click.option("--for", "for_", default="10s", show_default=True, metavar="DURATION", help="How long.")
@click.option("--size", default="64MB", show_default=True, help="End when the file is so large.")
@click.option("--yes", is_flag=True, help="Replace a file that is there.")
def capture(name: str, target: str | None, file: Path, for_: str, size: str, yes: bool) -> None:
    """Write what an adapter receives to a file, byte by byte: message, body or answer, with time and source.

    The adapter is not slowed: what is not written in time is left out, and counted. Passwords, tokens and keys are never in
    it; the values that your devices send are.
    """
    from headrace.core.paths import parse_duration_ns, parse_size_bytes

    for_ns, size_bytes = parse_duration_ns(for_), parse_size_bytes(size)
    if file.exists() and not yes:
        raise ConfigError(f"{file} is there already; --yes replaces it, or name another file")
    documents = find_target(target).running().follow(f"/api/v1/adapters/{quote(name)}/capture")
    head = next(documents)
    end_ns = monotonic_ns() + for_ns
    n_pieces = n_skipped = 0
    try:
        with file.open("w", encoding="utf-8") as out:
            n_bytes = out.write(output.json_line(head) + "\n")
            for one in documents:
                n_skipped += (one or {}).get("skipped", 0)
                n_pieces += "data" in (one or {})
                n_bytes += 0 if one is None else out.write(output.json_line(one) + "\n")
                if monotonic_ns() >= end_ns or n_bytes >= size_bytes:
                    break
    except OSError as e:
        raise StorageError(f"can't write {file}: {e.strerror or e}") from e
    left_out = f", {n_skipped:,} were left out" if n_skipped else ""
    click.echo(f"{n_pieces:,} pieces in {file}, {output.size(n_bytes)}{left_out}")


def _reading(one: dict[str, Any]) -> str:
    quality = "" if one["quality"] == "good" else f"  {one['quality']}"
    return f"{_moment(one['ts'])}  {one['path']}  {output.number(one['value'])}{quality}"


def _who() -> str:
    from headrace.runtime.reconfigure import who

    return who()


adapters.add_command(probe)


def _devices(devices: list[dict[str, Any]]) -> str:
    in_order = sorted(devices, key=lambda d: (d["state"] == "connected", d["path"]))
    rows = [
        [
            d["path"],
            d["state"],
            d["circuit"],
            "-" if d["last_good_age_s"] is None else f"{output.span(d['last_good_age_s'])} ago",
            "-" if d["next_retry_in_s"] is None else f"in {output.span(d['next_retry_in_s'])}",
            output.count(d["requests"]),
            output.count(d["errors"]),
            output.count(d["timeouts"]),
            output.count(d["polls_skipped"]),
            output.count(d["polls_late"]),
            "-" if d["clock_skew_s"] is None else f"{d['clock_skew_s']:+.3f} s",
            d["reason"],
        ]
        for d in in_order
    ]
    header = (
        "device", "state", "circuit", "last good", "next retry", "requests", "errors", "timeouts", "skipped", "late", "clock",
        "reason",
    )  # fmt: skip
    return output.table(header, rows, (5, 6, 7, 8, 9, 10))


def _problems(devices: list[dict[str, Any]]) -> str:
    """Signals without a value although their device answers; empty where there are none."""
    rows = [[d["path"], name, text] for d in devices for name, text in d.get("problems", {}).items()]
    return output.table(("device", "signal", "problem"), rows) if rows else ""


def _last_good(devices: list[dict[str, Any]]) -> str:
    return _moment(max((d["last_good"] for d in devices if d["last_good"]), default=None))


def _moment(text: str | None) -> str:
    """``2026-03-01T06:30:00.250000000Z`` to the millisecond, for people."""
    return "-" if text is None else text[:23].replace("T", " ")


def _reports(target: Target) -> list[dict[str, Any]]:
    """All adapters: as the running engine says, else as the plant file has them.

    Raises
    ------
    Unreachable : only a store is known and no engine runs on it.
    """
    engine = target.engine()
    if engine is not None:
        names = [one["name"] for one in engine.json("/api/v1/adapters")]
        return [engine.json(f"/api/v1/adapters/{name}") for name in names]
    if target.config is None:
        raise Unreachable(
            f"no engine runs on {target.text}, and a store does not know its adapters; name the plant file with -t"
        )
    from headrace.runtime.assemble import check_plant
    from headrace.runtime.diagnostics import adapter_report

    known = check_plant(target.config).adapters.values()
    output.note(f"no engine runs on {target.config.store_folder}; these are the adapters of {target.text}")
    return [{**adapter_report(a.diagnostics()), "state": "stopped", "reason": _NOT_RUNNING} for a in known]
