"""``headrace adapters probe``: one look at a device or a broker; nothing is stored."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, urlsplit

import click

from headrace.cli import output
from headrace.cli.target import Target, find_target, target_option
from headrace.cli.teaching import TaughtCommand
from headrace.core.errors import ConfigError, HeadraceError, NotFound, Unreachable
from headrace.core.registry import nearest

_ORDERS = {
    "ABCD": "ABCD big-endian",
    "CDAB": "CDAB word-swapped",
    "BADC": "BADC byte-swapped",
    "DCBA": "DCBA little-endian",
}
_SCHEMES = {"modbus+tcp": "modbus", "mqtt": "mqtt", "mqtts": "mqtt", "kafka": "kafka"}
_PROBE_S = 90.0
_PAYLOAD_SHOWN = 60


@click.command(
    cls=TaughtCommand,
    examples=(
        "headrace adapters probe ovens --device leon/paint/line1/oven1 --address holding:100",
        "headrace adapters probe ovens --signal temperature --json | jq .readings.F32",
        "headrace adapters probe --url 'modbus+tcp://10.0.4.11:502?unit=1' --address holding:100",
        "headrace adapters probe broker --for 10s --topic 'plant/#'",
        "headrace adapters probe --url mqtt://broker:1883 --topic '#'",
        "headrace adapters probe --url kafka://broker:9092 --topic 'plant.#' --count 5",
    ),
)
@click.argument("name", required=False)
@target_option
@click.option("--url", help="A device or broker that no adapter has, or one of an adapter's.")
@click.option("--device", help="modbus: path of one of the adapter's devices.")
@click.option("--address", help="modbus: what to read, as in holding:100 or input:4:F32;order=CDAB.")
@click.option("--signal", help="modbus: the address that the device's profile has for a signal.")
@click.option(
    "--count",
    type=click.IntRange(1),
    help="modbus: registers or bits; kafka: newest messages of a partition.",
)
@click.option("--topic", help="mqtt, kafka: which topics; default: the adapter's own.")
@click.option("--for", "for_", metavar="DURATION", help="mqtt, kafka: for how long; default 5s.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def probe(name: str | None, target: str | None, as_json: bool, for_: str | None, **options: Any) -> None:
    """Look once at a device or a broker; nothing is stored.

    Of a Modbus device the registers at an address are read and shown as every type in all four byte orders: whoever
    knows roughly what the value should be sees which order the device uses. A running adapter lends its connection,
    as many devices take but one. Of a broker it is told which topics come, what they carry, which rule would take
    them, and what values would come out.
    """
    wanted = {k: str(v) for k, v in {**options, "for": for_}.items() if v is not None}
    found = _probe(name, target, wanted)
    if as_json:
        output.emit_json(found)
    elif found["protocol"] == "modbus":
        click.echo(modbus_screen(found))
    else:
        click.echo(topics_screen(found))


def _probe(name: str | None, target: str | None, wanted: dict[str, str]) -> dict[str, Any]:
    if name is None and "url" not in wanted:
        raise click.UsageError("name an adapter, or a device or broker with --url")
    try:
        where = find_target(target)
    except Unreachable:
        if name is not None or target is not None:
            raise
        return _directly(wanted)
    name = name or _adapter_at(where, wanted["url"])
    if name is None:
        return _directly(wanted)
    engine = where.engine()
    if engine is not None:
        engine.timeout_s = _PROBE_S
        found: dict[str, Any] = engine.send("POST", f"/api/v1/adapters/{quote(name)}/probe", wanted)
        return found
    return _by_file(where, name, wanted)


def _adapter_at(where: Target, url: str) -> str | None:
    """The adapter of the plant file that talks to the same host and port: it may hold the only connection."""
    if where.config is None:
        return None
    peer = _peer(url)
    for name, section in where.config.adapters.items():
        devices = section.devices.values() if isinstance(section.devices, dict) else ()
        urls = [d["url"] if isinstance(d, dict) else d for d in devices] + [section.url or ""]
        if section.protocol == "modbus" and any(_peer(u) == peer for u in urls):
            return name
    return None


def _peer(url: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port
    except ValueError:
        return None, None


def _by_file(where: Target, name: str, wanted: dict[str, str]) -> dict[str, Any]:
    """Without an engine: by the plant file, over a connection of our own."""
    from headrace.adapters.abilities import Probes
    from headrace.core.clock import SystemClock
    from headrace.runtime.assemble import check_plant
    from headrace.runtime.operations import probe_report

    if where.config is None:
        raise Unreachable(f"no engine runs on {where.text}; name the plant file with -t")
    known = check_plant(where.config).adapters
    if name not in known:
        raise NotFound(f"no adapter {name!r}{nearest(name, list(known))}")
    adapter = known[name]
    if not isinstance(adapter, Probes):
        raise HeadraceError(f"adapter {name} has nothing to probe")
    return probe_report(asyncio.run(adapter.probe(wanted, SystemClock())))


def _directly(wanted: dict[str, str]) -> dict[str, Any]:
    """What no adapter has."""
    from headrace.adapters.registry import ADAPTERS
    from headrace.core.clock import SystemClock
    from headrace.runtime.operations import probe_report

    scheme = urlsplit(wanted["url"]).scheme
    if scheme not in _SCHEMES:
        raise ConfigError(
            f"{wanted['url']!r} can't be probed; write one of {', '.join(_SCHEMES)}://", "--url"
        )
    kind = ADAPTERS.load(_SCHEMES[scheme])
    return probe_report(asyncio.run(kind.probe_url(wanted, SystemClock())))


# --- screens -----------------------------------------------------------------------------------------


def modbus_screen(found: dict[str, Any]) -> str:
    """A Modbus probe for people."""
    took = output.span(found["seconds"])
    pairs = [
        ("device", f"{found['device']}, unit {found['unit']} of {found['peer']}"),
        ("connection", f"{found['connection']}, {took}"),
    ]
    first, area = found["first"], found["area"]
    if "bits" in found:
        pairs.append((f"{area}:{first}", " ".join(map(str, found["bits"]))))
        return output.fields(pairs)
    registers = found["registers"]
    pairs += [
        ("registers", " ".join(f"{one}" for one in registers) + f" (from {area}:{first})"),
        ("bytes", f"{found['hex']}  {found['text']!r}"),
        ("as written", f"{found['configured']['address']} is {output.number(found['configured']['value'])}"),
    ]
    rows = [
        [kind, *(_reading(values, order) for order in _ORDERS)] for kind, values in found["readings"].items()
    ]
    return f"{output.fields(pairs)}\n\n{output.table(('type', *_ORDERS.values()), rows, (1, 2, 3, 4))}"


def _reading(values: dict[str, Any], order: str) -> str:
    return output.number(values[order]) if order in values else ""


def topics_screen(found: dict[str, Any]) -> str:
    """A probe of topics for people: each topic, then what comes of it."""
    count = f"{found['messages']:,} messages of {len(found['topics']):,} topics"
    if found["protocol"] == "kafka":
        head = f"{count} at {found['broker']}, looking for {', '.join(found['filters'])}"
    else:
        head = f"{count} in {output.span(found['seconds'])} from {found['broker']}, listening to {', '.join(found['filters'])}"
    lines = [head]
    for topic in found["topics"]:
        payload = (
            topic["payload"] if len(topic["payload"]) <= _PAYLOAD_SHOWN else topic["payload"][:57] + "..."
        )
        lines += ["", f"{topic['topic']}  ({topic['messages']:,})  {payload}"]
        lines.append(f"  rule {topic['rule']}" if topic["rule"] else "  no rule")
        for value in topic["values"]:
            quality = "" if value["quality"] == "good" else f"  {value['quality']}"
            lines.append(f"  {value['path']} = {output.number(value['value'])}  at {value['ts']}{quality}")
        lines += [f"  refused: {problem}" for problem in topic["problems"]]
    if found["messages_of_other_topics"]:
        lines += [
            "",
            f"and {found['messages_of_other_topics']:,} messages of more topics: narrow it with --topic",
        ]
    return "\n".join(lines)
